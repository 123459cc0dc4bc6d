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
    means = dict(jax.device_get(means))
    terms = means.pop("loss")
    named = {"loss": loss_value(terms)} | ({name: term.value for name, term in terms.items()} if len(terms) > 1 else {})
    return {name: float(value) for name, value in (named | {name: mean.value for name, mean in means.items()}).items()}


def is_mean(x) -> bool:
    return isinstance(x, Mean)
