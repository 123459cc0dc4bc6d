"""The command, on fake devices of the CPU; on TPUs it is tests/golden that runs it."""

import json
import os
import subprocess
import sys

import jax
import pytest

from research import build, preflight
from research.compile import fit, report, topology
from research.compile.roofline import Times
from research.core import config as config_lib
from research.core.errors import UserError
from tests.rl import tiny, tiny_sums
from tests.tiny import devices, tiny_config


def run(*arguments):
    command = [sys.executable, "-m", "research.preflight", "--config=tests/tiny.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | devices(1))  # --topology says how many


def test_the_command(tmp_path):
    done = run("--topology=cpu:8", "--config.mesh.fsdp=4", "--config.mesh.tensor=2", f"--json={tmp_path}/found.json")
    assert done.returncode == 0, done.stderr
    for words in (
        "8 x cpu, mesh fsdp=4 tensor=2\n",
        "activations and temporaries",
        "all-gather",
        "What rules is",
        "Model-FLOP utilization",
    ):
        assert words in done.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["devices"] == 8 and set(found["steps"]) == {"train", "evaluation"}
    train = found["steps"]["train"]
    e = build.experiment(tiny_config(mesh__fsdp=4, mesh__tensor=2))
    assert found["model_flops_in_a_step"] == e.work()(e.objective.example_batch)[1]
    assert train["fits"] and train["flops"] * 8 == pytest.approx(found["jaxpr_flops_in_a_step"], rel=0.1)
    # Parameters and moments are float32; kernels are split over all eight, biases and norms over some.
    assert found["parameters"] * 4 / 8 < train["memory"]["parameters"] < found["parameters"] * 4 / 2
    assert train["memory"]["optimizer"] == pytest.approx(2 * train["memory"]["parameters"], rel=0.01)
    assert train["memory"]["gradients"] == train["memory"]["parameters"]


def test_what_cannot_be_laid_out_is_one_line():
    done = run("--topology=cpu:8", "--config.mesh.fsdp=3")
    assert done.returncode == 1 and done.stderr.startswith("error: ") and "8 devices" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments, message", [([], "say where it is to run: --topology"), (["--topology=v9:2x2"], "stands for nothing")])
def test_a_topology_that_is_none_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        preflight.main(["preflight", "--config=tests/tiny.py", *arguments])


@pytest.mark.parametrize(
    "name, slices, message", [("cpu:8", 2, "only TPUs have slices"), ("v5p", 1, "stands for nothing"), ("v5p:axb", 1, "stands for nothing")]
)
def test_devices_that_there_cannot_be_are_refused(name, slices, message):
    with pytest.raises(UserError, match=message):
        topology.devices(name, slices)


def test_the_decode_step_is_one_more_token_of_each_text():
    e = build.experiment(tiny_config(model__name="gpt", objective__name="causal_lm", mesh__fsdp=8, model__norm="pre"))
    step, args = preflight.compiled_steps(e)["decode"]
    chosen, state = step.eval_shape(*args)
    assert chosen.shape == (16,) and state.cache["key"].shape == (2, 16, 32, 4, 4)


def test_an_agent_of_text_decodes_the_completions_of_a_round():
    e = build.experiment(config_lib.changed(tiny_sums.get_config(), {}))
    step, args = preflight.compiled_steps(e)["decode"]
    chosen, state = step.eval_shape(*args)
    assert chosen.shape == (64,) and state.cache["key"].shape[:3] == (2, 64, 12)


def test_what_is_decoded_between_the_steps_takes_its_days():
    times = lambda seconds: {"fits": True, "seconds": dict.fromkeys(("compute", "memory", "ICI", "DCN", "bound", "step"), seconds)}
    found = {"steps": {"train": times(1.0), "decode": times(0.5)}, "devices": 2, "unit": "tokens", "units_in_a_step": 8}
    found |= {"model_flops_in_a_step": 1.0, "peak_flops_of_all": 2.0, "steps_in_all": 24 * 3600}
    assert "1.0 days, 48 device-hours." in report.roofline(found, found["steps"])[-1]
    found |= {"round": {"decode": 8}, "steps_a_round": 2}
    assert "3.0 days, 144 device-hours, collecting experience among them." in report.roofline(found, found["steps"])[-1]
    found |= {"round": {"collect": 1}}
    assert "1.0 days, 48 device-hours, collecting experience not among them." in report.roofline(found, found["steps"])[-1]


def test_the_store_of_self_play_lies_split_by_games():
    e = build.experiment(config_lib.changed(tiny.get_config(), {}))
    step, args = preflight.compiled_steps(e, preflight.experience_of(e))["collect"]
    store, after = args[2], step.eval_shape(*args)
    assert jax.tree.map(lambda x: x.shape, store) == jax.tree.map(lambda x: x.shape, after)
    assert all(x.sharding.shard_shape(x.shape)[0] == 1 for name in ("ring", "state") for x in jax.tree.leaves(store[name]))
    assert store["moves"].sharding.is_fully_replicated


def step(memory, seconds, available=10.0):
    return {"fits": memory <= available, "memory": {"all": memory}, "available": available, "seconds": {"step": seconds}}


def measure_by(costs):
    """A stand-in for the compiler: {(microbatches, tensor, policy): (memory, seconds)}, else what does not fit."""
    return lambda f: step(*costs.get((f["optimizer.accumulate"], f["mesh.tensor"], f["model.remat"]), (99.0, 1.0)))


def test_fit_finds_the_fastest_that_fits():
    costs = {(1, 1, "full"): (9, 8.0), (1, 2, "full"): (4, 7.0), (1, 4, "full"): (3, 9.0)}
    costs |= {(1, 2, "none"): (50, 3.0), (1, 2, "matmuls"): (11, 4.0), (1, 2, "projections"): (9, 5.0), (1, 2, "attention"): (5, 6.0)}
    trials = list(fit.search(tiny_config(), 8, 1, measure_by(costs)))
    best = min(trials, key=lambda trial: trial.seconds)
    assert best.fields == {"mesh.data": 1, "mesh.fsdp": 4, "mesh.tensor": 2, "optimizer.accumulate": 1, "model.remat": "projections"}
    assert "--config.mesh.tensor=2" in report.flags(best.fields)


def test_fit_takes_more_microbatches_only_where_one_is_too_much():
    costs = {(4, tensor, "full"): (9, 8.0) for tensor in (1, 2)}
    best = min(fit.search(tiny_config(), 8, 1, measure_by(costs)), key=lambda trial: trial.seconds)
    assert best.fields["optimizer.accumulate"] == 4


def test_fit_finds_nothing_where_nothing_fits():
    assert {trial.seconds for trial in fit.search(tiny_config(), 8, 1, measure_by({}))} == {float("inf")}


def test_remedies_are_those_after_which_least_is_needed():
    needs = {"model.remat": 5.0, "optimizer.accumulate": 12.0, "model.attention_dropout": 11.0, "mesh.tensor": 40.0}
    found = fit.remedies(tiny_config(model__dropout=0.1), 8, 1, lambda fields: step(min(needs.get(name, 99.0) for name in fields), 1.0))
    assert [next(iter(trial.fields)) for trial in found] == ["model.remat", "model.attention_dropout", "optimizer.accumulate"]
    text = "\n".join(report.remedies(found))
    assert "--config.model.remat=full" in text and "does not fit yet" in text


def test_what_runs_beside_the_computation_costs_only_what_it_takes_longer():
    ici = (("fsdp",), "ICI")
    assert Times(3.0, 1.0, 4.0, {ici: 2.0}, {}).step == 4.0
    assert Times(3.0, 1.0, 4.0, {ici: 6.0}, {}).step == 6.0
    waits = Times(3.0, 1.0, 4.0, {ici: 2.0}, {ici: 1.5})
    assert waits.step == 5.5 and waits.bounds == {"compute": 3.0, "memory": 1.0, "ICI": 3.5, "DCN": 0.0} and waits.bound == 3.5
