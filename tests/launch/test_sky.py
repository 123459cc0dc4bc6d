"""Task files against SkyPilot's own schemas, which its package has."""

import sys
from unittest.mock import MagicMock, patch

import jsonschema
import pytest
import yaml

from launch import sky
from research.core.errors import UserError
from research.data.fetch import package_member

RUN = ["--config=tests/tiny.py", "--workdir=/mnt/lodestar/tiny", "--skip_preflight"]


@pytest.fixture(scope="module")
def schemas():
    """sky/utils/schemas.py as a module, without the rest of SkyPilot, of which only lists of names are then missing."""
    path = package_member("skypilot==0.14.1", "sky/utils/schemas.py", "5599785bb01f0078b51bc4fa7fa167bc7a7dc78220756249143a18afb7346c00")
    names = ("sky", "sky.skylet", "sky.utils", "sky.data")
    with patch.dict(sys.modules, dict.fromkeys(names, MagicMock())):
        found = {}
        exec(compile(path.read_text(), str(path), "exec"), found)
        found |= {"_task_config_schema": dict, "_get_infra_pattern": lambda: ".*", "_allow_additional_properties": lambda: False}
        return {name: found[f"get_{name}_schema"]() for name in ("task", "resources", "storage")}


def rendered(capsys, *arguments) -> dict:
    sky.main(["sky", *RUN, *arguments])
    return yaml.safe_load(capsys.readouterr().out)


def check(found: dict, schemas: dict):
    validate = lambda value, name: jsonschema.Draft202012Validator(schemas[name]).validate(value)
    validate(found, "task")
    validate(found["resources"], "resources")
    for mount in found.get("file_mounts", {}).values():
        validate(mount, "storage")


def test_a_task_is_what_skypilot_takes(schemas, capsys):
    found = rendered(capsys, "--gpus=H100:8", "--nodes=2", "--spot", "--bucket=my-runs", "--name=x")
    check(found, schemas)
    assert (found["name"], found["num_nodes"], found["resources"]) == (
        "x",
        2,
        {"accelerators": "H100:8", "job_recovery": {"recover_on_exit_codes": [75]}, "use_spot": True},
    )
    assert found["run"].endswith(
        "EXTRAS=gpu launch/local.sh python -m research.train --config=tests/tiny.py --workdir=/mnt/lodestar/tiny --distributed\n"
    )
    assert "JAX_PROCESS_ID" in found["run"]
    one = rendered(capsys, "--gpus=A100:1")
    check(one, schemas)
    assert "--distributed" not in one["run"] and "JAX_" not in one["run"] and "file_mounts" not in one


@pytest.mark.parametrize("part, field", [(None, "num_node"), ("resources", "accelerator")])
def test_a_field_that_there_is_not_is_seen(schemas, capsys, part, field):
    found = rendered(capsys, "--gpus=H100:8")
    (found if part is None else found[part])[field] = "x"
    with pytest.raises(jsonschema.ValidationError, match=field):
        check(found, schemas)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "--gpus=H100:8"),
        (["--gpus=H100"], "--gpus=H100:8"),
        (["--gpus=H100:8", "--spot"], "say --bucket"),
        (["--gpus=H100:8", "--noskip_preflight"], "say how much memory"),
    ],
)
def test_what_a_user_can_get_wrong(arguments, message):
    with pytest.raises(UserError, match=message):
        sky.main(["sky", *RUN, *arguments])
