import json

import pytest
from ml_collections import ConfigDict, FrozenConfigDict

from configs import base
from research.core import config as config_lib
from research.core.errors import UserError

QUICKSTART = "--config=configs/quickstart.py"


def parse(*arguments):
    return config_lib.parse(["train", *arguments])[1]


def test_an_override_takes():
    assert parse(QUICKSTART, "--config.optimizer.learning_rate=1e-3").optimizer.learning_rate == 1e-3


def test_a_placeholder_can_be_set():
    assert parse(QUICKSTART, "--config.optimizer.ema_decay=0.9").optimizer.ema_decay == 0.9


def test_a_config_file_takes_one_argument(tmp_path):
    (tmp_path / "c.py").write_text("from configs import base\ndef get_config(x):\n  c = base.get_config()\n  c.seed = int(x)\n  return c\n")
    assert parse(f"--config={tmp_path}/c.py:7").seed == 7


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([QUICKSTART, "--config.optimizer.learning_rte=1"], "'optimizer.learning_rte'.*'learning_rate'"),
        ([QUICKSTART, "--config.optimiser.learning_rate=1"], "'optimiser.learning_rate'.*'optimizer'"),
        ([QUICKSTART, "--config.zzz=1"], "'zzz'"),
        ([QUICKSTART, "--config.run.steps=many"], "run.steps=many"),
        ([QUICKSTART, "--config.run.steps=1.5"], "run.steps=1.5"),
        ([QUICKSTART, "--config.model=3"], "model"),
        ([QUICKSTART, "--wrkdir=x"], "wrkdir"),
        ([QUICKSTART, "stray"], "stray"),
        ([], "no config file"),
        (["--config=configs/quickstrt.py"], "no config file configs/quickstrt.py"),
        (["--config", "configs/quickstrt.py"], "no config file configs/quickstrt.py"),
    ],
)
def test_a_wrong_argument_is_one_clear_line(arguments, message):
    with pytest.raises(UserError, match=message):
        parse(*arguments)


@pytest.mark.parametrize("bug, error", [("{}['learning_rate']", KeyError), ("1 + 'a'", TypeError), ("int('x')", ValueError)])
def test_a_bug_in_a_config_file_keeps_its_traceback(tmp_path, bug, error):
    (tmp_path / "c.py").write_text(f"def get_config():\n  return {bug}\n")
    with pytest.raises(error):
        parse(f"--config={tmp_path}/c.py", "--config.seed=1")


def test_the_config_is_frozen():
    with pytest.raises(AttributeError):
        parse(QUICKSTART).seed = 3


def test_json_round_trip(tmp_path):
    config = FrozenConfigDict({"a": {"b": 1, "c": (("x", None), ("y", 2.5))}, "d": None, "e": "text", "f": True})
    (tmp_path / "config.json").write_text(config_lib.to_json(config))
    assert config_lib.read(tmp_path / "config.json", ConfigDict()).to_dict() == config.to_dict()


def test_differences_are_named():
    before, now = FrozenConfigDict({"a": {"b": 1, "c": 2}}), FrozenConfigDict({"a": {"b": 1, "c": 3}})
    assert config_lib.differences(before, now) == [("a.c", 2, 3)]


@pytest.mark.parametrize("text, message", [(None, "no config.json"), ("{", "cannot be read")])
def test_a_run_directory_without_a_config_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=message):
        config_lib.parse_run(["evaluate", f"--workdir={tmp_path}"], base.get_config())


def parse_run(workdir, config: dict, *overrides):
    (workdir / "config.json").write_text(json.dumps(config))
    return config_lib.parse_run(["evaluate", f"--workdir={workdir}", *overrides], base.get_config())[1]


def test_a_run_s_config_can_be_overridden(tmp_path):
    kept = {"mesh": {"fsdp": 4}, "run": {"eval_batches": None}, "data": {"dir": None}, "init": {"from": None}}
    absent = ["--config.run.eval_batches=3", "--config.data.dir=/x", "--config.init.from=/y"]
    config = parse_run(tmp_path, kept, "--config.mesh.fsdp=1", *absent)
    assert (config.mesh.fsdp, config.run.eval_batches, config.data.dir, config.init["from"]) == (1, 3, "/x", "/y")


@pytest.mark.parametrize("value", ["abc", "1.5"])
def test_what_a_run_leaves_out_still_has_its_type(tmp_path, value):
    with pytest.raises(UserError, match="eval_batches"):
        parse_run(tmp_path, {"run": {"eval_batches": None}}, f"--config.run.eval_batches={value}")


def test_a_field_newer_than_the_run_has_its_default(tmp_path):
    config = parse_run(tmp_path, {"optimizer": {"learning_rate": 0.5}, "paper": {"own": 1}})
    assert (config.optimizer.learning_rate, config.optimizer.accumulate, config.paper.own) == (0.5, 1, 1)


def test_a_changed_config_leaves_the_first_as_it_is():
    first = FrozenConfigDict({"model": {"layers": 2, "width": 8}})
    assert config_lib.changed(first, {"model.layers": 3}).model.layers == 3
    assert first.model.layers == 2 and config_lib.changed(first, {"model.width": 9}).model.layers == 2
