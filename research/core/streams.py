"""All randomness of a run: fold_in(fold_in(key(seed), step), stream). No key is kept anywhere."""

import jax

STREAMS = ("init", "loss", "rounding", "collect", "sample", "match")  # the place in this row is part of what a seed means


def stream(seed: int, step, name: str) -> jax.Array:
    """The key of one use of randomness at one step."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), STREAMS.index(name))
