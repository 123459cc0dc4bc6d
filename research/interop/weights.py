"""Weight maps: which tensor of a Hugging Face checkpoint a parameter of ours is, and how the one is laid out as the other.

A map is a list of `Row`s. Layers are stacked here and apart there; a kernel is (inputs, outputs) here, with heads as a dimension, and
(outputs, inputs) there. Tensors are read one by one, each straight into its shards: no host ever holds a model twice.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from research.core.errors import UserError


class Layout(NamedTuple):
    """One layer's tensor there -> ours of a given shape, and back."""

    ours: Callable  # (theirs, shape of ours) -> array
    theirs: Callable  # ours -> array


class Row(NamedTuple):
    """A parameter of ours, by its path, and the tensor it is there, whose name has {} for the layer where ours is stacked.

    `part` says which of how many equal parts, along the last dimension of what `layout` gives, ours is, where theirs holds several. Where
    `head` is False, the name gets the prefix that models with a head have.
    """

    ours: str
    theirs: str
    layout: Layout
    part: tuple[int, int] | None = None
    head: bool = False


SAME = Layout(lambda x, shape: x.reshape(shape), lambda x: x)
TABLE = Layout(lambda x, shape: x.reshape(x.shape[-2:]), lambda x: x[None])  # one for all of a batch there
VECTOR = Layout(lambda x, shape: x.reshape(shape), lambda x: x.reshape(-1))  # a bias, with heads as a dimension here


def dense(inputs: int = 1) -> Layout:
    """torch.nn.Linear's kernel; ours begins with so many dimensions of inputs."""
    return Layout(lambda x, shape: x.T.reshape(shape), lambda x: _matrix(x, inputs).T)


def conv1d(inputs: int = 1) -> Layout:
    """The kernel of GPT-2's Conv1D, which is (inputs, outputs) there too."""
    return Layout(lambda x, shape: x.reshape(shape), lambda x: _matrix(x, inputs))


def patch(size: int, channels: int) -> Layout:
    """The kernel of a convolution of patches, (D, C, P, P) there, (P * P * C, D) here."""
    back = lambda x: x.reshape(size, size, channels, -1).transpose(3, 2, 0, 1)
    return Layout(lambda x, shape: x.transpose(2, 3, 1, 0).reshape(shape), back)


def shifted(rows: int) -> Layout:
    """A table that has so many rows more there, at its beginning, which mean nothing."""
    return Layout(lambda x, shape: x[rows:], lambda x: np.concatenate([np.zeros((rows, x.shape[1]), x.dtype), x]))


def _matrix(x, inputs: int):
    return x.reshape(int(np.prod(x.shape[:inputs])), -1)


def linear(ours: str, theirs: str, inputs: int = 1, bias: bool = True, **row) -> list[Row]:
    """The rows of a linear map."""
    rows = [Row(f"{ours}/kernel", f"{theirs}.weight", dense(inputs), **row)]
    return rows + ([Row(f"{ours}/bias", f"{theirs}.bias", VECTOR, **row)] if bias else [])


def norm(ours: str, theirs: str, bias: bool = True, **row) -> list[Row]:
    """The rows of a layer norm, or of an RMS norm, which has no bias."""
    rows = [Row(f"{ours}/scale", f"{theirs}.weight", SAME, **row)]
    return rows + ([Row(f"{ours}/bias", f"{theirs}.bias", SAME, **row)] if bias else [])


def load(tensors, rows: list[Row], shapes, shardings, allow_new: str | None, ignored: str = r"$^", adapter=lambda name, shape: None):
    """Parameters of `shapes` and `shardings` from `tensors` (research/interop/directory.py), float32; None for those that are new.

    Args:
      allow_new: a pattern of paths of ours; where it matches, a tensor may be missing there, of another shape, or not wanted here.
      ignored: a pattern of names of theirs that mean nothing to us.
      adapter: (path, stored shape) -> the function that makes a stored array of another shape fit, or None.
    Raises:
      UserError: a tensor that is missing, of another shape or not wanted, by name.
    """
    wanted, placed = flatten_dict(shapes, sep="/"), flatten_dict(shardings, sep="/")
    if allow_new and not any(re.search(allow_new, name) for name in [*wanted, *tensors, *(row.ours for row in rows)]):
        raise UserError(f"init.allow_new {allow_new!r} matches no parameter, here or there: leave it out, or name one such as {min(wanted)}.")
    known = {row.ours: row for row in rows}
    excused = lambda path: bool(allow_new and re.search(allow_new, path))
    if without := [path for path in wanted if path not in known and not excused(path)]:
        raise UserError(f"{tensors.where} is of a model without {', '.join(without[:3])}: name what may be new in init.allow_new.")
    problems = {path: _problem(tensors, known.get(path), path, leaf.shape, adapter) for path, leaf in wanted.items()}
    wrong = [problem for path, problem in problems.items() if problem and not excused(path)]
    wrong += _surplus(tensors, list(known.values()), wanted, excused, ignored)
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UserError(f"{tensors.where} does not fit: {'; '.join(wrong[:3])}{more}. What may differ, config.init.allow_new names by pattern.")
    found = {path: None if problems[path] else _read(tensors, known[path], leaf, placed[path], adapter) for path, leaf in wanted.items()}
    return unflatten_dict(found, sep="/")


def _problem(tensors, row: Row | None, path: str, shape, adapter) -> str | None:
    """Why a parameter of `shape` cannot be read, if so. Reads nothing."""
    if row is None:
        return f"{path} has no counterpart there"
    names = names_of(row, shape)
    if missing := [name for name in names if name not in tensors]:
        return f"{missing[0]} is missing"
    differ = [name for name in names if tensors.shape(name) != _their_shape(row, shape)]
    if not differ or _adapted(tensors, row, adapter):
        return None
    return f"{differ[0]} is {list(tensors.shape(differ[0]))}, {path} wants {list(_their_shape(row, shape))}"


def _adapted(tensors, row: Row, adapter):
    """What makes a table of another size fit, if anything does."""
    return adapter(row.ours, tensors.shape(row.theirs)[-2:]) if row.layout is TABLE else None


def _read(tensors, row: Row, leaf, sharding, adapter):
    """A parameter, each part straight into its place."""
    if "{}" not in row.theirs and tensors.shape(row.theirs) != _their_shape(row, leaf.shape):
        return jax.jit(_adapted(tensors, row, adapter), out_shardings=sharding)(TABLE.ours(tensors.read(row.theirs), None))
    return jax.make_array_from_callback(leaf.shape, sharding, lambda index: _shard(tensors, row, leaf.shape, index).astype(leaf.dtype))


def _shard(tensors, row: Row, shape, index) -> np.ndarray:
    """The part `index` of a parameter; of a stacked one its layers, one after the other."""
    read = lambda name: row.layout.ours(_part(tensors.read(name), row.part), _one(row, shape))
    if "{}" not in row.theirs:
        return read(row.theirs)[index]
    return np.stack([read(name)[index[1:]] for name in names_of(row, shape)[index[0]]])


def _one(row: Row, shape):
    """Of a parameter of `shape` that of one layer."""
    return shape[1:] if "{}" in row.theirs else shape


def names_of(row: Row, shape) -> list[str]:
    """Of a parameter of `shape` the tensors it is there: one for each layer where it is stacked."""
    return [row.theirs.format(layer) for layer in range(shape[0])] if "{}" in row.theirs else [row.theirs]


def _part(x, part):
    return x if part is None else np.split(x, part[1], axis=-1)[part[0]]


def _their_shape(row: Row, shape) -> tuple[int, ...]:
    shape = row.layout.theirs(np.zeros(_one(row, shape), np.bool_)).shape
    return (*shape[:-1], shape[-1] * row.part[1]) if row.part else shape


def _surplus(tensors, rows: list[Row], wanted, excused, ignored: str) -> list[str]:
    """What is there and not wanted, in words."""
    used, known = set(), {}
    for row in rows:
        layers = next((leaf.shape[0] for path, leaf in wanted.items() if path == row.ours and "{}" in row.theirs), 0)
        used |= {row.theirs.format(layer) for layer in range(layers)} | ({row.theirs} if row.ours in wanted else set())
        known[re.compile(re.escape(row.theirs).replace(r"\{\}", r"\d+") + "$")] = row.ours
    wrong = []
    for name in tensors:
        if name in used or re.search(ignored, name):
            continue
        path = next((path for pattern, path in known.items() if pattern.match(name)), name)
        if not excused(path):
            wrong.append(f"{name} is there, not in this model")
    return wrong


def export(params, rows: list[Row], prefix: str) -> dict[str, np.ndarray]:
    """{name: array} of what a directory holds, backbone names with `prefix`. Raises UserError for a parameter that has no place there."""
    flat, known = flatten_dict(params, sep="/"), {row.ours: row for row in rows}
    if without := [path for path in flat if path not in known]:
        raise UserError(f"{', '.join(without[:3])}: the format has no place for {'it' if len(without) == 1 else 'them'}.")
    found: dict[str, np.ndarray] = {}
    parts: dict[str, dict[int, np.ndarray]] = {}
    for path, x in flat.items():
        row, x = known[path], np.asarray(x)
        layers = x if "{}" in row.theirs else [x]
        for name, one in zip(names_of(row, x.shape), layers, strict=True):
            name, laid_out = ("" if row.head else prefix) + name, row.layout.theirs(one)
            if row.part is None:
                found[name] = laid_out.copy(order="C")
            else:
                parts.setdefault(name, {})[row.part[0]] = laid_out
    return found | {name: np.concatenate([of[i] for i in sorted(of)], axis=-1) for name, of in parts.items()}
