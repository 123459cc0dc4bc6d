"""The ways to turn a board into another on which the same is true."""

import jax
import jax.numpy as jnp

_TURNS = tuple(lambda x, k=k: jnp.rot90(x, k) for k in range(4))

# Functions of an array (H, W, ...). `reflection`: left and right change places.
SYMMETRIES = {
    "none": (lambda x: x,),
    "reflection": (lambda x: x, lambda x: x[:, ::-1]),
    "half_turn": (lambda x: x, lambda x: x[::-1, ::-1]),
    "dihedral": (*_TURNS, *(lambda x, turn=turn: turn(x[:, ::-1]) for turn in _TURNS)),
}


def transform(symmetry: str, which, arrays: dict):
    """`arrays` under the transformation number `which`, int32: the `image` (H, W, C), and of the others (A,) what belongs to cells or columns.

    Actions are the cells of the board row by row, then those that have no place, as passing; or else, where they are as many as the columns, these.
    """
    H, W, _ = arrays["image"].shape

    def moved(function):
        def of(x):
            if x.ndim == 3:
                return function(x)
            if len(x) == W:
                return function(x[None])[0]
            return jnp.concatenate([function(x[: H * W].reshape(H, W)).reshape(-1), x[H * W :]])

        return lambda arrays: {name: of(x) for name, x in arrays.items()}

    return jax.lax.switch(which, [moved(function) for function in SYMMETRIES[symmetry]], arrays)
