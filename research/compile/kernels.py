"""What kernels written by hand cost, which neither a walk of the jaxpr nor the compiler sees."""

import math
import re

# Matrix products of queries, keys, values or their gradients that a splash-attention kernel computes, by its name.
PRODUCTS = {"splash_mha_fwd": 2, "splash_mha_dq": 3, "splash_mha_dkv": 4}


def kernel_flops(path: str, operands: list[tuple[str, tuple[int, ...]]], dense: bool = False) -> float:
    """FLOPs of the kernel that `path` leads to, scopes and names joined by slashes; `operands` are the dtype and shape of each argument.

    Of attention those of the blocks it visits, as research/models/attention.py notes in the path; `dense`: those of all. Raises ValueError for a
    kernel of which nothing is known here.
    """
    name = next((name for name in PRODUCTS if name in path), None)
    if name is None:
        raise ValueError(f"no cost is known of the kernel {path}: give it one in research/compile/kernels.py.")
    queries, keys = [shape for dtype, shape in operands if dtype in ("bf16", "f32", "bfloat16", "float32")][:2]
    visited = re.search(r"visited_([\d.]+)", path)
    share = 1.0 if dense or visited is None else float(visited[1])
    return 2.0 * PRODUCTS[name] * math.prod(queries) * keys[-2] * share
