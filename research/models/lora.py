"""LoRA (Hu et al., arXiv 2106.09685): W + (alpha / rank) A B in place of a kernel W, as a pure transform of a parameter tree.

A is (inputs, rank), B (rank, outputs); inputs and outputs keep the dimensions that W has, and stacked layers have a pair each. No model knows of it.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from research.core.errors import UserError
from research.core.sharding import kernel_inputs


def adapted(logical_axes, pattern: str) -> dict:
    """{path: logical axes} of the kernels that match `pattern`. Raises UserError where there are none, or where one is no kernel."""
    flat = flatten_dict(logical_axes, sep="/")
    found = {name: axes for name, axes in flat.items() if re.search(pattern, name)}
    kernels = [name for name, axes in flat.items() if _inputs(axes) is not None]
    if not found:
        raise UserError(f"lora.pattern {pattern!r} matches no parameter: there are {', '.join(kernels[:3])}, ... ({len(kernels)} kernels in all).")
    if wrong := found.keys() - set(kernels):
        raise UserError(f"lora.pattern {pattern!r} matches {min(wrong)}, which is no kernel: there are {', '.join(kernels[:3])}, ...")
    return found


def axes(logical_axes, pattern: str):
    """The logical axes of what `init` makes."""
    pairs = {}
    for name, kernel in adapted(logical_axes, pattern).items():
        cut = _inputs(kernel)
        pairs[name] = {"a": (*kernel[:cut], "rank"), "b": (*_stack(kernel), "rank", *kernel[cut:])}
    return unflatten_dict(pairs, sep="/")


def init(rng, shapes, logical_axes, pattern: str, rank: int):
    """A pair {"a": (layers, inputs, rank), "b": (layers, rank, outputs)} at the path of each kernel that matches `pattern`, float32.

    A is normal with standard deviation 1 / sqrt(inputs), B zero: the first merged parameters are those of the base. `shapes` is the
    tree of the base, of arrays or ShapeDtypeStructs. Raises UserError as `adapted` does.
    """
    flat, pairs = flatten_dict(shapes, sep="/"), {}
    for i, (name, kernel) in enumerate(sorted(adapted(logical_axes, pattern).items())):
        cut, shape = _inputs(kernel), flat[name].shape
        fan_in = np.prod(shape[len(_stack(kernel)) : cut])
        a = jax.random.normal(jax.random.fold_in(rng, i), (*shape[:cut], rank)) * fan_in**-0.5
        pairs[name] = {"a": a, "b": jnp.zeros((*shape[: len(_stack(kernel))], rank, *shape[cut:]))}
    return unflatten_dict(pairs, sep="/")


def merge(base, pairs, alpha: float):
    """`base` with W + (alpha / rank) A B for each kernel W that has a pair: a tree like `base`."""
    merged, low_rank = flatten_dict(base, keep_empty_nodes=True, sep="/"), flatten_dict(pairs, sep="/")
    for name in (name.removesuffix("/a") for name in low_rank if name.endswith("/a")):
        kernel, a, b = merged[name], low_rank[f"{name}/a"], low_rank[f"{name}/b"]
        product = lambda a, b: jnp.tensordot(a, b, 1)
        stacked = a.ndim + b.ndim - 2 > kernel.ndim
        merged[name] = kernel + alpha / a.shape[-1] * (jax.vmap(product) if stacked else product)(a, b)
    return unflatten_dict(merged, sep="/")


def _stack(kernel) -> tuple:
    return kernel[:1] if kernel[:1] == ("layers",) else ()


def _inputs(kernel) -> int | None:
    """The dimension at which the outputs of a kernel begin; None for what is no kernel."""
    stack = len(_stack(kernel))
    inputs = kernel_inputs(kernel[stack:])
    return None if inputs is None else stack + inputs
