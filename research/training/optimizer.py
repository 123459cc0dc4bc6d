"""Optimizers and learning-rate schedules by name, from Optax."""

import os
import re

import jax
import jax.numpy as jnp
import optax

from research.core.config import changed
from research.core.errors import UserError
from research.core.sharding import kernel_inputs, path_name
from research.training.rounding import bfloat16_moments


def make_schedule(name: str, learning_rate: float, steps: int, warmup_steps: int, decay_steps: int | None, final_fraction: float):
    """step -> learning rate: linear warm-up to `learning_rate`, then by name

    warmup_cosine, warmup_linear: down to final_fraction * learning_rate at `steps`;
    inverse_sqrt: learning_rate * sqrt(warmup_steps / step) (arXiv 1706.03762, section 5.3);
    warmup_stable_decay: constant, then linear down over the last `decay_steps` (arXiv 2404.06395);
    constant.
    """
    rest, final = steps - warmup_steps, final_fraction * learning_rate
    if rest <= 0:
        raise UserError(f"optimizer.warmup_steps {warmup_steps} leaves nothing of run.steps {steps}: lower it.")
    if name == "warmup_cosine":
        after = optax.cosine_decay_schedule(learning_rate, rest, final_fraction)
    elif name == "warmup_linear":
        after = optax.linear_schedule(learning_rate, final, rest)
    elif name == "inverse_sqrt":
        offset = max(warmup_steps, 1)
        after = lambda step: learning_rate * jnp.sqrt(offset / (offset + step))
    elif name == "warmup_stable_decay":
        decay = rest if decay_steps is None else decay_steps
        if not 0 < decay <= rest:
            raise UserError(f"optimizer.decay_steps {decay} must lie in 1..{rest}, the steps after warm-up.")
        after = optax.linear_schedule(learning_rate, final, decay, transition_begin=rest - decay)
    elif name == "constant":
        after = optax.constant_schedule(learning_rate)
    else:
        known = "warmup_cosine, warmup_linear, inverse_sqrt, warmup_stable_decay, constant"
        raise UserError(f"optimizer.schedule is {name!r}: choose one of {known}.")
    return optax.join_schedules([optax.linear_schedule(0.0, learning_rate, warmup_steps), after], [warmup_steps]) if warmup_steps else after


def decayed(optimizer, rate, weight_decay: float, mask) -> optax.GradientTransformation:
    """`optimizer` with decoupled weight decay, rate * weight_decay * parameter, where its own is not or cannot be masked."""
    return optax.chain(optimizer, optax.add_decayed_weights(lambda step: -weight_decay * rate(step), mask))


# Each takes (schedule, the config's `optimizer` group, decay mask, Muon's dimensions). Names and defaults are Optax's.
OPTIMIZERS = {
    "adamw": lambda rate, c, mask, _: optax.adamw(rate, c.b1, c.b2, c.epsilon, mu_dtype=c.moment_dtype, weight_decay=c.weight_decay, mask=mask),
    "lamb": lambda rate, c, mask, _: optax.lamb(rate, c.b1, c.b2, c.epsilon, weight_decay=c.weight_decay, mask=mask),
    "lion": lambda rate, c, mask, _: optax.lion(rate, c.b1, c.b2, mu_dtype=c.moment_dtype, weight_decay=c.weight_decay, mask=mask),
    "adafactor": lambda rate, c, mask, _: decayed(optax.adafactor(rate), rate, c.weight_decay, mask),
    "sgd": lambda rate, c, mask, _: decayed(
        optax.sgd(rate, c.momentum or None, nesterov=c.nesterov, accumulator_dtype=c.moment_dtype), rate, c.weight_decay, mask
    ),
    "muon": lambda rate, c, mask, dimensions: decayed(
        optax.contrib.muon(
            rate,
            beta=c.momentum,
            nesterov=c.nesterov,
            adam_b1=c.b1,
            adam_b2=c.b2,
            mu_dtype=c.moment_dtype,
            consistent_rms=0.2,  # updates as large as Adam's, so that one learning rate serves both (arXiv 2502.16982)
            muon_weight_dimension_numbers=dimensions,
        ),
        rate,
        c.weight_decay,
        mask,
    ),
}


def make_optimizer(config, schedule, logical_axes) -> optax.GradientTransformation:
    """The optimizer that `config` (the config's `optimizer` group) names.

    `logical_axes` are those of the parameters that are trained. Weight decay spares those whose path matches `no_decay`. Statistics
    over a tensor (LAMB's trust ratio, Adafactor's clipping, Muon's orthogonal factor) are those of one layer: stacked layers are updated
    under `vmap`.
    """
    if config.name not in OPTIMIZERS:
        raise UserError(f"optimizer.name is {config.name!r}: choose one of {', '.join(OPTIMIZERS)}.")

    if config.moment_dtype not in (None, "float32", "bfloat16"):
        raise UserError(f"optimizer.moment_dtype is {config.moment_dtype!r}: choose float32 or bfloat16.")
    if config.moment_dtype is not None and config.name not in ("adamw", "lion", "sgd", "muon"):
        raise UserError(f"optimizer.moment_dtype: the moments of {config.name} have the dtype of the parameters; leave it out.")
    if config.stochastic_rounding:
        if config.moment_dtype != "bfloat16":
            raise UserError("optimizer.stochastic_rounding is of moments that are kept in bfloat16: set optimizer.moment_dtype=bfloat16 too.")
        exact = changed(config, {"moment_dtype": None, "stochastic_rounding": False})
        return bfloat16_moments(make_optimizer(exact, schedule, logical_axes))

    def decays(params):
        return jax.tree_util.tree_map_with_path(lambda path, _: not (config.no_decay and re.search(config.no_decay, path_name(path))), params)

    def dimensions(params):
        return jax.tree_util.tree_map_with_path(lambda path, _: muon[path_name(path)], params)

    named_axes = jax.tree_util.tree_leaves_with_path(logical_axes, is_leaf=lambda x: isinstance(x, tuple))
    muon = {path_name(path): muon_dimensions(axes) for path, axes in named_axes}
    update = each_layer(OPTIMIZERS[config.name](schedule, config, decays, dimensions), logical_axes)
    if config.layer_decay is not None:
        update = optax.chain(update, decay_by_layer(config.layer_decay, config.below_layers, logical_axes))
    return update if config.clip_norm is None else optax.chain(optax.clip_by_global_norm(config.clip_norm), update)


def decay_by_layer(decay: float, below: str, logical_axes) -> optax.GradientTransformation:
    """Layer-wise learning-rate decay (arXiv 1801.06146, section 3.2, per layer as in arXiv 2003.10555 and arXiv 2106.08254).

    Of L layers the update of layer l = 1..L is multiplied by decay^(L + 1 - l), that of what matches `below` by decay^(L + 1), that of all
    else, as a head, by 1. Where there are several stacks, as in two towers, a parameter goes by the one that shares most of its path, the deepest where
    several do, as in an encoder with a shallow decoder.
    Raises UserError where no parameter is of a layer.
    """
    axes_of = {path_name(path): axes for path, axes in jax.tree_util.tree_leaves_with_path(logical_axes, is_leaf=lambda x: isinstance(x, tuple))}
    stacks = [name for name, axes in axes_of.items() if axes[:1] == ("layers",)]
    if not stacks:
        raise UserError("optimizer.layer_decay is set, and no parameter that is trained belongs to a layer: leave it out.")

    def shared(name, other):
        return len(os.path.commonprefix([name.split("/"), other.split("/")]))

    def scaled(updates, params):
        depth = {path_name(path): x.shape[0] for path, x in jax.tree_util.tree_leaves_with_path(updates) if path_name(path) in stacks}

        def scale(path, update):
            name = path_name(path)
            if name in depth:
                rate_L = decay ** jnp.arange(depth[name], 0, -1, dtype=update.dtype)
                return update * rate_L.reshape(-1, *(1,) * (update.ndim - 1))
            if below and re.search(below, name):
                return update * decay ** (depth[max(stacks, key=lambda stack: (shared(name, stack), depth[stack]))] + 1)
            return update

        return jax.tree_util.tree_map_with_path(scale, updates)

    return optax.stateless(scaled)


def frozen_names(logical_axes, pattern: str | None, always: frozenset[str] = frozenset()) -> frozenset[str]:
    """The paths of the parameters that are not trained: those that match `pattern`, and those `always` so.

    Raises UserError for a pattern that matches no parameter, or leaves none to train.
    """
    names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(logical_axes, is_leaf=lambda x: isinstance(x, tuple))]
    found = always | {name for name in names if pattern and re.search(pattern, name)}
    if pattern and not any(re.search(pattern, name) for name in names):
        raise UserError(f"optimizer.frozen {pattern!r} matches no parameter: they are {', '.join(names[:3])}, ... ({len(names)} in all).")
    if found.issuperset(names):
        raise UserError(f"optimizer.frozen {pattern!r} freezes every parameter: nothing is left to train.")
    return frozenset(found)


def each_layer(optimizer: optax.GradientTransformation, logical_axes) -> optax.GradientTransformation:
    """`optimizer`, seeing one layer at a time of the parameters whose first logical axis is `layers`."""

    def label(axes):
        return "stacked" if axes[:1] == ("layers",) else "single"

    labels = jax.tree.map(label, logical_axes, is_leaf=lambda x: isinstance(x, tuple))

    def of_depth(tree, depth):
        return jax.tree.map(lambda x: x if x.shape[0] == depth else optax.MaskedNode(), tree)

    def depths(tree):  # an encoder and its decoder, say: what has 12 layers is not mapped together with what has 8
        return sorted({x.shape[0] for x in jax.tree.leaves(tree)})

    def init(params):
        return {str(depth): jax.vmap(optimizer.init)(of_depth(params, depth)) for depth in depths(params)}

    def update(updates, state, params):
        new, missing = {}, lambda x: isinstance(x, optax.MaskedNode)
        for depth in depths(updates):
            own, new[str(depth)] = jax.vmap(optimizer.update)(of_depth(updates, depth), state[str(depth)], of_depth(params, depth))
            updates = jax.tree.map(lambda old, x: old if missing(x) else x, updates, own, is_leaf=missing)
        return updates, new

    return optax.partition({"stacked": optax.GradientTransformation(init, update), "single": optimizer}, labels)


def muon_dimensions(axes):
    """The inputs and outputs of a hidden layer's kernel, as one layer has it, for Muon to orthogonalise; None, and so Adam, for all else."""
    inputs = kernel_inputs(axes[1:])
    if axes[:1] != ("layers",) or inputs is None:
        return None
    return optax.contrib.MuonDimensionNumbers(tuple(range(inputs)), tuple(range(inputs, len(axes) - 1)))
