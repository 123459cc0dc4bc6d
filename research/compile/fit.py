"""Which layout of a config fits, and which of those that fit is the fastest."""

import dataclasses
from collections.abc import Callable, Iterator

from research.core.errors import UserError

# Policies of rematerialization from the one that computes least again to the one that keeps least.
POLICIES = ("none", "matmuls", "projections", "attention", "full")


@dataclasses.dataclass(frozen=True)
class Trial:
    """A layout, as fields of the config and their values, and what the train step takes with it; None where the config cannot be laid out so."""

    fields: dict
    step: dict | None  # as `measured` of research/preflight.py has it

    @property
    def needed(self) -> float:
        return sum(self.step["memory"].values()) if self.step else float("inf")

    @property
    def seconds(self) -> float:
        return self.step["seconds"]["step"] if self.step and self.step["fits"] else float("inf")


def try_layout(measure: Callable[[dict], dict], fields: dict) -> Trial:
    """`measure` takes fields of the config and their values, and raises UserError where these cannot go together."""
    try:
        return Trial(fields, measure(fields))
    except UserError:
        return Trial(fields, None)


def search(config, devices: int, slices: int, measure) -> Iterator[Trial]:
    """Trials, the fastest that fits among them: microbatches, as few as will do; all splits of the mesh with the thriftiest policy; of the two fastest of
    these each policy, from the fastest on, until one fits."""
    accumulate = config.optimizer.accumulate
    while accumulate <= config.data.batch_size:
        microbatches = {"optimizer.accumulate": accumulate}
        tried = []
        for split in splits(config, devices, slices):
            tried.append(try_layout(measure, split | microbatches | remat(config, POLICIES[-1])))
            yield tried[-1]
        fitting = sorted((trial for trial in tried if trial.seconds < float("inf")), key=lambda trial: trial.seconds)
        for best in fitting[:2]:
            for policy in POLICIES[:-1]:
                trial = try_layout(measure, best.fields | remat(config, policy))
                yield trial
                if trial.seconds < float("inf"):
                    break
        if fitting:
            return
        accumulate *= 2


def splits(config, devices: int, slices: int) -> Iterator[dict]:
    """Meshes over so many devices: from slice to slice only `data`, or the stages of the config's `pipeline` where they divide over them; then as much `fsdp` as
    `tensor`, up to 16, and the config's `context` leave."""
    mesh = config.mesh
    data = 1 if mesh.pipeline % slices == 0 else slices
    for tensor in (1, 2, 4, 8, 16):
        fsdp, rest = divmod(devices, mesh.pipeline * data * tensor * mesh.context)
        if fsdp and not rest:
            yield {"mesh.data": data, "mesh.fsdp": fsdp, "mesh.tensor": tensor}


def remat(config, policy: str) -> dict:
    """The policy, for the model or, where it is of two towers, for both."""
    groups = ("model.first", "model.second") if config.model.name == "two_tower" else ("model",)
    return {f"{group}.remat": policy for group in groups}


def remedies(config, devices: int, slices: int, measure) -> list[Trial]:
    """Of what makes a step smaller, one change at a time, the three after which it needs least."""
    changes = [remat(config, "full"), {"optimizer.accumulate": 2 * config.optimizer.accumulate}]
    if config.model.dropout and config.model.attention_dropout is None:
        changes.append({"model.attention_dropout": 0.0})  # on TPUs attention's weights then need not be in memory
    if config.objective.name == "causal_lm":
        changes.append({"objective.loss_chunks": 8 * config.objective.loss_chunks})
    changes += [split for split in splits(config, devices, slices) if split["mesh.tensor"] == 2 * config.mesh.tensor]
    return sorted((try_layout(measure, change) for change in changes), key=lambda trial: trial.needed)[:3]
