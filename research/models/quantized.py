"""Matrix products in eight bits, by Qwix (extra `quantized`): twice as fast as in sixteen on chips that have them."""

import functools

from research.core.errors import UserError

try:
    import qwix
except ImportError:  # an extra
    qwix = None

# What operands are rounded to: activations and weights, then gradients, whose range is wider. int8 gradients are rounded at random, so that the error has mean 0
# (arXiv 2105.03536, section 4; arXiv 2209.05433, section 3, for the two kinds of fp8).
DTYPES = {"int8": ("int8", "int8", "uniform"), "fp8": ("float8_e4m3fn", "float8_e5m2", None)}


def check(dtype: str | None):
    """Raises UserError for a dtype that there is not, or where Qwix is not installed."""
    if dtype is not None and dtype not in DTYPES:
        raise UserError(f"model.matmul_dtype is {dtype!r}: choose one of {', '.join(DTYPES)}, or leave it out.")
    if dtype is not None and qwix is None:
        raise UserError("model.matmul_dtype is for Qwix, which is not installed: EXTRAS=test,quantized launch/local.sh does.")


def matmul(x, weight, inputs: int, dtype: str, training: bool):
    """The tensor product of x (..., *I) and weight (*I, *O) over the `inputs` dimensions I -> (..., *O) of x's dtype, both operands rounded to `dtype`, and
    in training those of the backward pass too.

    One scale, of the largest value, for each row and column. To be called in a Linen module, whose random stream "stochastic_rounding" int8 then draws on.
    """
    contracted = tuple(range(x.ndim - inputs, x.ndim)), tuple(range(inputs))
    return _provider(dtype, training).dot_general(x, weight, (contracted, ((), ()))).astype(x.dtype)


@functools.cache
def _provider(dtype: str, training: bool):
    forward, backward, rounding = DTYPES[dtype]
    gradients = {"bwd_qtype": backward, "bwd_stochastic_rounding": rounding} if training else {}
    return qwix.QtProvider([qwix.QtRule(weight_qtype=forward, act_qtype=forward, **gradients)])
