"""Floating-point operations of a function, by a walk of its jaxpr: a scanned body counts as often as it runs, which XLA's own count does not see."""

import math

import jax
from jax.extend import core as jex


def count_flops(function, *args) -> float:
    """Floating-point operations (a multiply-add is two) of the matrix products and convolutions of `function(*args)`.

    `args` are arrays or ShapeDtypeStructs; nothing is computed. Element-wise work is left out, as is usual for model FLOPs.
    """
    return _count(jax.make_jaxpr(function)(*args).jaxpr)


def _count(jaxpr) -> float:
    return sum(_count_equation(equation) for equation in jaxpr.eqns)


def _count_equation(equation) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        lhs, out = equation.invars[0].aval, equation.outvars[0].aval
        return 2.0 * math.prod(out.shape) * math.prod(lhs.shape[i] for i in contracted)
    if name == "conv_general_dilated":
        kernel, out = equation.invars[1].aval, equation.outvars[0].aval
        out_features = kernel.shape[params["dimension_numbers"].rhs_spec[0]]
        return 2.0 * math.prod(out.shape) * math.prod(kernel.shape) / out_features
    inner = [_count(jaxpr) for value in params.values() for jaxpr in _jaxprs(value)]
    if name == "scan":
        return params["length"] * sum(inner)
    return max(inner, default=0.0) if name == "cond" else sum(inner)


def _jaxprs(value):
    """The jaxprs in a parameter of an equation: itself, closed, or in a sequence (the branches of a cond)."""
    if isinstance(value, jex.ClosedJaxpr):
        yield value.jaxpr
    elif isinstance(value, jex.Jaxpr):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _jaxprs(item)
