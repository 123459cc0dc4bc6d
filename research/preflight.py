"""Will it fit, how fast will it go, what holds it up: asked before the machine is rented.

    python -m research.preflight --config=configs/gpt/gpt3_175b.py --topology=v5p:8x8x16 [--slices=2] [--json=FILE] [--fit] [--config.FIELD=VALUE ...]

Compiles the real steps of a config for the TPUs v4, v5e, v5p, v6e, tpu7x (which need not be there), for cpu:N or for the gpu here, and reads
what came out: memory, FLOPs, traffic, collectives, and how long a step takes. --fit tries microbatches, rematerialization and splits of the mesh for the
fastest layout that fits, which takes some minutes.
"""

import dataclasses
import importlib.metadata
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags
from tqdm import tqdm

from configs import base
from research import build
from research.compile import chips, fit, report, topology
from research.compile.cost import OutOfMemory, cost, device_bytes
from research.compile.flops import count_flops
from research.core import config as config_lib
from research.core.errors import UserError, run_command
from research.core.sharding import partition_spec, path_name
from research.models import decode

STEPS = ("train", "evaluation", "decode", "collect")


def main(argv):
    name = config_lib.given("topology", argv)
    if name is None:
        raise UserError("say where it is to run: --topology=v5p:8x8x16 for instance, or cpu:8, or gpu.")
    topology.prepare(name)
    values, config = config_lib.parse_any(argv, base.get_config(), define)
    devices = topology.devices(name, values.slices)
    found = {"topology": name, "slices": values.slices}
    chip = chip_of(devices, config.model.dtype, values.memory)
    layouts = config, len(devices), values.slices, lambda fields: train_step_of(config, devices, chip, fields)
    if values.fit:
        if chip is None:
            raise UserError(f"--fit: what a {devices[0].device_kind} can do is not in research/compile/chips.py: give it a row.")
        trials = list(tqdm(fit.search(*layouts), desc="compiling layouts", unit=""))
        best = min(trials, key=lambda trial: trial.seconds)
        print("\n".join(report.trials(trials)))
        if best.seconds == float("inf"):
            raise UserError(f"no layout fits {name}: take more devices, or a smaller model or data.batch_size.")
        print(f"\nThe fastest that fits: {report.flags(best.fields)}\n")
        config, found["fit"] = config_lib.changed(config, best.fields), best.fields
    found |= examine(build.experiment(config, devices=devices), values.steps, chip)
    print("\n".join(report.lines(found)))
    if values.json:
        pathlib.Path(values.json).write_text(json.dumps(found, indent=1) + "\n")
    if not found["steps"]["train"]["fits"]:
        print("\n".join(report.remedies(fit.remedies(*layouts))))
    if not all(step["fits"] for step in found["steps"].values()):
        sys.exit(1)


def define(values):
    flags.DEFINE_string("topology", None, "Devices: v5p:8x8x16 and its like, cpu:8, or gpu.", flag_values=values)
    flags.DEFINE_integer("slices", 1, "How many of them, joined by the data-centre network.", lower_bound=1, flag_values=values)
    flags.DEFINE_float("memory", None, "GiB that a device has, where cpu:N stands for others.", lower_bound=0, flag_values=values)
    flags.DEFINE_multi_enum("steps", STEPS, STEPS, "Which steps besides train; may be repeated.", flag_values=values)
    flags.DEFINE_bool("fit", False, "Search the fastest layout that fits.", flag_values=values)
    flags.DEFINE_string("json", None, "A file to write all of it to.", flag_values=values)


def chip_of(devices, dtype: str, memory: float | None) -> chips.Chip | None:
    """What each device can do, with `memory` GiB in place of its own."""
    chip = chips.chip_of(devices, dtype)
    return dataclasses.replace(chip, hbm=memory * chips.GiB) if chip and memory else chip


def train_step_of(config, devices, chip: chips.Chip | None, fields: dict) -> dict:
    """What the train step costs with other `fields`."""
    e = build.experiment(config_lib.changed(config, fields), devices=devices)
    with e.in_force():
        return measured(e, "train", *compiled_steps(e)["train"], chip)


def examine(e: build.Experiment, steps, chip: chips.Chip | None) -> dict:
    """All that preflight says of an experiment, as JSON has it: bytes, FLOPs and seconds of one device, but where the name says otherwise."""
    devices, config = list(e.mesh.devices.flat), e.config
    units, model_flops = e.work()(e.objective.example_batch)
    found = {
        "devices": len(devices),
        "kind": devices[0].device_kind,
        "mesh": dict(e.mesh.shape),
        "versions": {name: version(name) for name in ("jax", "jaxlib", "libtpu")},
        "parameters": sum(x.size for x in jax.tree.leaves(e.shapes.params)),
        "unit": e.unit,
        "units_in_a_step": units,
        "model_flops_in_a_step": model_flops,
        "peak_flops_of_all": chip and chip.flops * len(devices),
        "steps_in_all": config.run.steps,
        "checkpoint_bytes_in_all": sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(e.shapes)),
        "largest": largest(e),
        "large_and_whole": large_and_whole(e),
        "steps": {},
    }
    lived = experience_of(e)
    if config.rl.experience is not None:  # how often each step is taken in a round of experience, and how many training steps learn from it
        found |= {"round": {"collect": 1} if lived else rollout_steps(e), "steps_a_round": config.rl.updates}
    with e.in_force():
        found["jaxpr_flops_in_a_step"] = count_flops(e.train_step, e.shapes, e.trained.example_batch)
        for name, (step, args) in compiled_steps(e, lived).items():
            if name == "train" or name in steps:
                print(f"compiling the {name} step for {len(devices):,} x {devices[0].device_kind}", file=sys.stderr, flush=True)
                found["steps"][name] = measured(e, name, step, args, chip)
    return found


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def compiled_steps(e: build.Experiment, lived=None) -> dict[str, tuple[Callable, tuple]]:
    """{name: (jitted step, its arguments as shapes)} of the steps that a run would compile."""
    at = lambda shape, *axes: jax.ShapeDtypeStruct(
        shape.shape, shape.dtype, sharding=jax.sharding.NamedSharding(e.mesh, partition_spec(axes, e.rules))
    )
    sharded = lambda shapes, shardings: jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)
    params = sharded(e.own(e.shapes.params), e.own(e.shardings.params))
    rows = e.config.data.eval_batch_size
    eval_batch = {name: at(jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype), "batch") for name, x in e.objective.example_batch.items()}
    steps: dict[str, tuple[Callable, tuple]] = {
        "train": (e.train_step, (e.shapes, e.trained.example_batch)),
        "evaluation": (e.eval_step, (params, eval_batch)),
    }
    if getattr(e.objective, "generates", False):
        steps["decode"] = (decode.step, decode_arguments(e, params, at))
    if lived is not None:
        steps["collect"] = type(lived).collect, collect_arguments(e, lived, params, at)
    return steps


def experience_of(e: build.Experiment):
    """That of an agent which collects on the devices; None where there is none. One of text decodes, in steps of their own."""
    if build.has_vocabulary(e.config):
        return None
    return build.experience(e, build.make_corpus(e.config, pathlib.Path()))


def rollout_steps(e: build.Experiment) -> dict[str, float]:
    """How often each step is taken in a round of rollouts: for each token, and where a reference or a critic is asked about all of them. Prompts come on top."""
    r, batch = e.config.rl, e.objective.example_batch
    asked = ("reference_log_probs" in batch and "reference" in e.own(e.shapes.params)) + ("values" in batch)
    return {"decode": r.max_tokens} | ({"evaluation": asked * r.prompts * r.group / e.config.data.eval_batch_size} if asked else {})


def collect_arguments(e: build.Experiment, lived, params, at):
    """Of a round of experience: its store lies as it is begun."""
    key = at(jax.eval_shape(jax.random.key, 0))
    with e.in_force():
        placed = type(lived).start.lower(lived, key).compile().output_shardings
    store = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), jax.eval_shape(lived.start, key), placed)
    return lived, params, store, key


def decode_arguments(e: build.Experiment, params, at):
    """Of one token more for each text of a round of rollouts; where there are none, of a batch of evaluation, with a cache as long as the model's context."""
    what: Any = e.objective  # which generates: it has a model and a vocabulary
    r, rows, slots = e.config.rl, e.config.data.eval_batch_size, e.config.model.max_length
    if r.experience is not None:
        rows, slots = r.prompts * r.group, r.prompt_length + r.max_tokens
    decoder = decode.Decoder(what.model, what.vocabulary.size, what.vocabulary.end)
    tokens, lengths = jax.ShapeDtypeStruct((rows, 16), jnp.int32), jax.ShapeDtypeStruct((rows,), jnp.int32)
    state = jax.eval_shape(lambda *args: decode.prefill(decoder, slots, *args), params, tokens, lengths)
    cache = jax.tree.map(lambda x: at(x, "layers", "batch", None, "heads", "head_dim"), state.cache)
    state = jax.tree.map(lambda x: at(x, "batch"), state._replace(cache=None))._replace(cache=cache)
    return decoder, decode.Sampling(), params, at(jax.eval_shape(lambda: jax.random.split(jax.random.key(0), rows)), "batch"), state


def measured(e: build.Experiment, name: str, step, args, chip) -> dict:
    """What one step costs; of one that does not fit, by how much."""
    available = chip and chip.hbm
    memory = known_memory(e, name, args)
    try:
        c = cost(step, args, e.mesh, chip)
    except OutOfMemory as lack:
        rest = max(0.0, lack.needed - sum(memory.values()))
        largest = [{"bytes": size, "what": what} for size, what in lack.largest[:8]]
        return {"fits": False, "memory": memory | {"activations and temporaries": rest}, "available": lack.available, "largest allocations": largest}
    exchanged: dict[tuple[str, tuple[str, ...], str, bool], tuple[float, float]] = {}
    for one in c.collectives:
        key = (one.kind, one.axes, "DCN" if one.over_dcn else "ICI", one.asynchronous)
        count, moved = exchanged.get(key, (0.0, 0.0))
        exchanged[key] = count + one.times, moved + one.times * one.bytes
    return {
        "fits": available is None or c.memory <= available,
        "memory": memory | {"activations and temporaries": max(0.0, c.memory - sum(memory.values()))},
        "available": available,
        "flops": c.flops,
        "hbm_bytes": c.hbm_bytes,
        "host_bytes": c.host_bytes,
        "collectives": [
            {"kind": kind, "axes": list(axes), "network": network, "asynchronous": asynchronous, "count": count, "bytes": moved}
            for (kind, axes, network, asynchronous), (count, moved) in sorted(exchanged.items())
        ],
        "seconds": c.times and c.times.bounds | {"operations": c.times.operations, "bound": c.times.bound, "step": c.times.step},
        "involuntary_rematerializations": c.rematerialized,
        "loops_of_unknown_length": c.unknown_loops,
        "compile_seconds": c.compile_seconds,
    }


def known_memory(e: build.Experiment, name: str, args) -> dict[str, float]:
    """Bytes by class of what a step is given, and of the gradients."""
    params = device_bytes(e.shapes.params, e.shardings.params)
    if name != "train":
        arrays = [x for x in jax.tree.leaves(args) if isinstance(x, jax.ShapeDtypeStruct)]
        given = device_bytes(arrays, [x.sharding for x in arrays])
        own = device_bytes(e.own(e.shapes.params), e.own(e.shardings.params))
        return {"parameters": own, {"decode": "cache", "collect": "store"}.get(name, "batch"): given - own}
    batch = e.trained.example_batch
    rows = jax.sharding.NamedSharding(e.mesh, partition_spec(("batch",), e.rules))
    trained = [x for path, x in jax.tree_util.tree_leaves_with_path(e.shapes.params) if path_name(path) not in e.frozen]
    return {
        "parameters": params,
        "optimizer": device_bytes(e.shapes.opt_state, e.shardings.opt_state),
        "moving average": params if e.shapes.ema is not None else 0.0,
        "gradients": params * sum(x.size for x in trained) / sum(x.size for x in jax.tree.leaves(e.shapes.params)),
        "batch": device_bytes(batch, {key: rows for key in batch}),
    }


def largest(e: build.Experiment, most: int = 10) -> list[dict]:
    """The largest parameters on a device, and how they are split; what the optimizer keeps of them is split alike."""
    found: list[dict] = [
        {
            "name": path_name(path),
            "shape": list(x.shape),
            "axes": [[axis for axis in (a if isinstance(a, tuple) else (a,)) if axis and e.mesh.shape[axis] > 1] for a in sharding.spec],
            "bytes": device_bytes(x, sharding),
        }
        for (path, x), sharding in zip(jax.tree_util.tree_leaves_with_path(e.shapes.params), jax.tree.leaves(e.shardings.params))
    ]
    return sorted(found, key=lambda x: -x["bytes"])[:most]


def large_and_whole(e: build.Experiment, size: int = 2**26) -> list[str]:
    """What of the state has more than `size` bytes and lies on every device."""
    leaves = zip(jax.tree_util.tree_leaves_with_path(e.shapes), jax.tree.leaves(e.shardings))
    return [
        path_name(path) for (path, x), sharding in leaves if e.mesh.size > 1 and sharding.is_fully_replicated and device_bytes(x, sharding) > size
    ]


if __name__ == "__main__":
    run_command(main)
