"""The large configs, compiled again: what has changed against tests/golden/preflight/*.json, and the bars they meet."""

import importlib.util
import json

import pytest

from tests.golden.layouts import FOLDER, LAYOUTS, found

pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="the TPU compiler is not installed: EXTRAS=test,tpu launch/local.sh"),
]


def differences(was, now, where="") -> list[str]:
    """Paths and values that differ: numbers by more than 1 %, all else at all. Lists of collectives are compared by what they are."""
    if isinstance(was, dict) and isinstance(now, dict):
        return [line for key in sorted(was.keys() | now.keys()) for line in differences(was.get(key), now.get(key), f"{where}/{key}")]
    if isinstance(was, list) and isinstance(now, list) and where.endswith("/collectives"):
        keyed = lambda found: {" ".join([c["kind"], *c["axes"], c["network"], "beside" * c["asynchronous"]]): c for c in found}
        return differences(keyed(was), keyed(now), where)
    if isinstance(was, (int, float)) and isinstance(now, (int, float)):
        return [] if abs(was - now) <= 0.01 * max(abs(was), abs(now)) else [f"{where}: {was:,} -> {now:,}"]
    return [] if was == now else [f"{where}: {was} -> {now}"]


LIKE_ANOTHER = ("bert_large_v5e_16x16", "gpt3_6.7b_v6e_16x16")


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.long if name in LIKE_ANOTHER else ()) for name in LAYOUTS])
def layout(request):
    return request.param, found(request.param)


def test_nothing_has_changed(layout):
    name, now = layout
    was = json.loads((FOLDER / f"{name}.json").read_text())
    if was["versions"] != now["versions"]:
        pytest.skip(f"written with {was['versions']}, here are {now['versions']}: another compiler lays things out in another way")
    assert differences(was, now) == [], f"if it is meant to be so: python -m tests.golden.layouts {name}"


def test_it_fits_and_nothing_is_exchanged_or_copied_that_should_not_be(layout):
    name, now = layout
    train = now["steps"]["train"]
    assert train["fits"] and now["large_and_whole"] == [] and train["involuntary_rematerializations"] == 0 and train["loops_of_unknown_length"] == 0
    assert [c for c in train["collectives"] if "all-to-all" in c["kind"]] == []
    utilization = now["model_flops_in_a_step"] / now["peak_flops_of_all"] / train["seconds"]["bound"]
    free = 1 - sum(train["memory"].values()) / train["available"]
    assert utilization > {"bert": 0.65, "gpt3_175b": 0.70}.get(next((k for k in ("bert", "gpt3_175b") if name.startswith(k)), ""), 0.5)
    assert free > (0.2 if name.startswith("gpt3_175b") else 0.0)


def test_fsdp_sends_what_the_formula_says(layout):
    """All parameters in bfloat16 are 2 P bytes over the tensor shards, of which a ring of n sends (n - 1) / n: gathered in the forward and in the backward
    pass, their gradients scattered once."""
    name, now = layout
    if name != "gpt3_175b_v5p_8x8x16":
        pytest.skip("for small shards this compiler turns gathers and scatters into all-reduces")
    n, tensor = now["mesh"]["fsdp"], now["mesh"]["tensor"]
    once = 2 * now["parameters"] / tensor * (n - 1) / n
    sent = {c["kind"]: c["bytes"] for c in now["steps"]["train"]["collectives"] if c["axes"] == ["fsdp"]}
    assert sent["all-gather"] == pytest.approx(2 * once, rel=0.02) and sent["reduce-scatter"] == pytest.approx(once, rel=0.02)
