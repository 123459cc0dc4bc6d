"""Floating-point operations of a function, by a walk of its jaxpr: a scanned body counts as often as it runs, which XLA's own count does not see."""

import math

import jax
from jax.extend import core as jex

from research.compile.kernels import kernel_flops


def count_flops(function, *args, dense: bool = False) -> float:
    """Floating-point operations (a multiply-add is two) of the matrix products, convolutions and kernels of `function(*args)`, over all devices.

    `args` are arrays or ShapeDtypeStructs; nothing is computed. Element-wise work is left out, as is usual for model FLOPs. `dense`: kernels of attention
    count as the formula has it, as if they left out nothing that is masked.
    """
    function = function if hasattr(function, "trace") else jax.jit(function)
    return _count(function.trace(*args).jaxpr.jaxpr, "", dense)


def _count(jaxpr, path: str, dense: bool) -> float:
    return sum(_count_equation(equation, f"{path}/{equation.source_info.name_stack}", dense) for equation in jaxpr.eqns)


def _count_equation(equation, path: str, dense: bool) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        lhs, out = equation.invars[0].aval, equation.outvars[0].aval
        return 2.0 * math.prod(out.shape) * math.prod(lhs.shape[i] for i in contracted)
    if name == "conv_general_dilated":
        kernel, out = equation.invars[1].aval, equation.outvars[0].aval
        out_features = kernel.shape[params["dimension_numbers"].rhs_spec[0]]
        return 2.0 * math.prod(out.shape) * math.prod(kernel.shape) / out_features
    if name == "pallas_call":
        return kernel_flops(f"{path}/{params['name']}", [(str(x.aval.dtype), x.aval.shape) for x in equation.invars], dense)
    inner = [_count(jaxpr, path, dense) for value in params.values() for jaxpr in _jaxprs(value)]
    if name == "scan":
        return params["length"] * sum(inner)
    if name == "shard_map":  # inside, shapes are those of one device
        return sum(inner) * math.prod(params["mesh"].shape[axis] for axis in params[next(k for k in params if "manual" in k)])
    return sum(inner) / len(inner) if name == "cond" else sum(inner)  # branches are taken equally often


def _jaxprs(value):
    """The jaxprs in a parameter of an equation: itself, closed, or in a sequence (the branches of a cond)."""
    if isinstance(value, jex.ClosedJaxpr):
        yield value.jaxpr
    elif isinstance(value, jex.Jaxpr):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _jaxprs(item)
