"""Evaluation: the training loss, deterministic, merged over batches."""

import jax

from research.core.types import Mean, loss_value


def evaluate(eval_step, params, batches) -> dict[str, float]:
    """The metrics of `params` over `batches` (placed on the devices): totals and counts added, divided once, on the host."""
    merged = None
    for batch in batches:
        means = eval_step(params, batch)
        merged = means if merged is None else jax.tree.map(Mean.__add__, merged, means, is_leaf=is_mean)
    return to_host(merged)


def to_host(means) -> dict[str, float]:
    """Means on the devices -> floats by name: `loss`, its terms where there are several, and the other metrics."""
    means = jax.device_get(means)
    parts = means["loss"] | means
    return {name: float(loss_value(means["loss"]) if name == "loss" else parts[name].value) for name in names(means)}


def names(means) -> list[str]:
    """What `to_host` calls its figures."""
    terms = list(means["loss"])
    return ["loss", *(terms if len(terms) > 1 else []), *(name for name in means if name != "loss")]


def is_mean(x) -> bool:
    return isinstance(x, Mean)
