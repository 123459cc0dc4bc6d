"""Moments of an optimizer in bfloat16, rounded at random, so that what is too small to change them is not lost."""

import itertools

import jax
import jax.numpy as jnp
import optax

MOMENTS = ("mu", "nu", "trace")  # the fields of Optax's states that hold moments


def bfloat16_moments(optimizer: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """`optimizer`, which computes in float32, with its moments kept in bfloat16 from step to step.

    Its `update` takes a key, `rng`. A moving average moves by 1 - b of what it is to move: with b2 = 0.999 less than the 2^-8 by which neighbours in bfloat16
    differ, so that rounded to the nearest it would stand still. Rounded up or down at random, with the probabilities that make the mean exact, it does not
    (arXiv 2010.06192, section 3).
    """

    def cast(state, to):
        """`to` of each moment and its number."""
        number = itertools.count()
        is_moment = lambda path: any(getattr(key, "name", None) in MOMENTS for key in path)
        return jax.tree_util.tree_map_with_path(lambda path, x: to(x, next(number)) if is_moment(path) else x, state)

    def init(params):
        return cast(optimizer.init(params), lambda x, _: x.astype(jnp.bfloat16))

    def update(updates, state, params=None, *, rng):
        updates, state = optimizer.update(updates, cast(state, lambda x, _: x.astype(jnp.float32)), params)
        return updates, cast(state, lambda x, i: stochastic_round(x, jax.random.fold_in(rng, i)))

    return optax.GradientTransformationExtraArgs(init, update)


def stochastic_round(x, rng):
    """x float32 -> bfloat16: one of the two neighbours, the nearer the likelier, so that the mean is x. What is not finite stays so."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    # bfloat16 is the upper half of float32: what is added carries into it as often as the lower half is large.
    carried = (bits + jax.random.bits(rng, x.shape, jnp.uint16)) & jnp.uint32(0xFFFF0000)
    return jnp.where(jnp.isfinite(x), jax.lax.bitcast_convert_type(carried, jnp.float32), x).astype(jnp.bfloat16)
