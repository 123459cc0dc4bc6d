"""What a compiled program computes and moves on one device, loops included: FLOPs, bytes of its memory and of its host's."""

import math
import re
from typing import NamedTuple

import numpy as np

from research.compile.hlo import Instruction, Program, Shape
from research.compile.kernels import kernel_flops

# Names for what is there already, and the ends of what began earlier: nothing is read or written.
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "after-all", "partition-id", "replica-id",
    "opt-barrier", "domain", "add-dependency", "copy-done", "slice-done", "async-done", "async-update", "optimization-barrier",
}  # fmt: skip


_EIGHT_BIT = {"s8": "int8"} | dict.fromkeys(("f8e4m3fn", "f8e5m2"), "fp8")


class Operation(NamedTuple):
    """On one device, each time. hbm, host: bytes read from and written to the memory of the device, and moved to and from that of the host. eight_bit: of the
    FLOPs, those of products of eight-bit numbers, by dtype (int8, fp8)."""

    flops: float
    hbm: float
    host: float
    times: float
    eight_bit: dict[str, float]


def find_operations(program: Program) -> list[Operation]:
    """Every operation of the program outside fusions.

    FLOPs are those of matrix products, convolutions and kernels, a multiply-add being two; what several devices compute alike counts on each. A
    fusion reads its operands once and writes its results once; of an operand that it only slices the slice counts, of an update in place what it
    writes. What stays on the chip is free.
    """
    found = []
    for name, i, times in program.runs():
        computation = program.computations[name]
        flops = _kernel_flops(computation, i)
        eight_bit: dict[str, float] = {}
        for dtype, product in [_product(computation, i)] + [_product(inner, j) for inner in _fused(program, i) for j in inner.values()]:
            flops += product
            if product and dtype in _EIGHT_BIT:
                eight_bit[_EIGHT_BIT[dtype]] = eight_bit.get(_EIGHT_BIT[dtype], 0.0) + product
        free = i.opcode in _FREE or i.opcode.endswith("-done")
        hbm, host = (0.0, 0.0) if free else (_hbm_bytes(program, computation, i), _host_bytes(computation, i))
        if flops or hbm or host:
            found.append(Operation(flops, hbm, host, times, eight_bit))
    return found


def _hbm_bytes(program: Program, computation, i: Instruction) -> float:
    if i.opcode in ("dynamic-slice", "slice", "gather"):
        return 2 * _in_hbm(i.shapes)
    if i.opcode == "dynamic-update-slice":
        return 2 * _in_hbm(computation[i.operands[1]].shapes)
    if i.opcode in _MOVES:
        ends = (computation[i.operands[1 if "update" in i.opcode else 0]].shapes[0], i.shapes[1] if i.opcode == "copy-start" else i.shapes[-2])
        return sum(_moved(computation, i).bytes for end in ends if end.space == 0)
    if i.opcode == "fusion":
        return _fusion_bytes(program, computation, i)
    return sum(_in_hbm(computation[operand].shapes) for operand in i.operands if operand in computation) + _in_hbm(i.shapes)


_MOVES = ("copy-start", "slice-start", "dynamic-slice-start", "dynamic-update-slice-start")  # from one memory to another
_HOST = 5


def _moved(computation, i: Instruction) -> Shape:
    return (
        computation[i.operands[1]].shapes[0]
        if i.opcode == "dynamic-update-slice-start"
        else i.shapes[1 if i.opcode in ("copy-start", "slice-start") else -2]
    )


def _host_bytes(computation, i: Instruction) -> float:
    return _moved(computation, i).bytes if i.opcode in _MOVES and any(shape.space == _HOST for shape in i.shapes) else 0.0


def _in_hbm(shapes) -> float:
    return sum(shape.bytes for shape in shapes if shape.space == 0)


def _fusion_bytes(program: Program, computation, fusion: Instruction) -> float:
    """What a fusion reads of its operands and writes of its results, as far as these are in HBM."""
    inner = program.computations[fusion.named("calls")]
    total = sum(_written(program, inner, result) for result, shape in zip(_results(inner), fusion.shapes) if shape.space == 0)
    for parameter in (i for i in inner.values() if i.opcode == "parameter"):
        if computation[fusion.operands[int(parameter.literal)]].shapes[0].space == 0:
            total += _read(program, inner, parameter)
    return total


def _results(inner) -> list[Instruction]:
    root = next(i for i in inner.values() if i.root)
    return [inner[name] for name in root.operands] if root.opcode == "tuple" else [root]


def _written(program: Program, inner, result: Instruction) -> float:
    """Bytes of a result, or of the part that an update in place writes."""
    while result.opcode == "bitcast":
        result = inner[result.operands[0]]
    if result.opcode == "dynamic-update-slice":
        return inner[result.operands[1]].shapes[0].bytes
    if result.opcode == "fusion" and len(result.shapes) == 1:
        callee = program.computations[result.named("calls")]
        return _written(program, callee, _results(callee)[0])
    return sum(shape.bytes for shape in result.shapes)


def _read(program: Program, inner, value: Instruction) -> float:
    """Bytes of `value` that the computation `inner` needs: all of it, or only the slices that its users take."""
    whole, total = value.shapes[0].bytes, 0.0
    for user in inner.values():
        for position in (k for k, operand in enumerate(user.operands) if operand == value.name):
            if user.opcode in ("dynamic-slice", "slice", "gather") and position == 0:
                total += user.shapes[0].bytes
            elif user.opcode == "bitcast":
                total += _read(program, inner, user)
            elif user.opcode == "fusion":
                callee = program.computations[user.named("calls")]
                total += _read(program, callee, next(i for i in callee.values() if i.opcode == "parameter" and int(i.literal) == position))
            elif user.opcode != "dynamic-update-slice" or position != 0:  # what is updated in place is not read
                total += whole
    return min(total, whole)


def _kernel_flops(computation, i: Instruction) -> float:
    if i.opcode != "custom-call" or 'custom_call_target="tpu_custom_call"' not in i.attributes:
        return 0.0
    path = re.search(r'op_name="([^"]*)"', i.attributes)
    shapes = [computation[name].shapes[0] for name in i.operands]
    return kernel_flops(f"{path[1] if path else ''}/{i.name}", [(shape.dtype, shape.dims) for shape in shapes])


def _fused(program: Program, i: Instruction):
    """The computations of a fusion and of the fusions within it."""
    if i.opcode == "fusion":
        inner = program.computations[i.named("calls")]
        yield inner
        for other in inner.values():
            yield from _fused(program, other)


def _product(computation, i: Instruction) -> tuple[str | None, float]:
    """(dtype of its operands, FLOPs) of a matrix product or a convolution; FLOPs are 0 of all else."""
    flops = _product_flops(computation, i)
    return (computation[i.operands[0]].shapes[0].dtype if flops else None), flops


def _product_flops(computation, i: Instruction) -> float:
    if i.opcode == "dot":
        lhs = computation[i.operands[0]].shapes[0].dims
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", i.attributes)
        return 2.0 * math.prod(i.shapes[0].dims) * math.prod(lhs[int(d)] for d in contracted[1].split(",") if d) if contracted else 0.0
    if i.opcode == "convolution":
        lhs, kernel = (computation[operand].shapes[0].dims for operand in i.operands[:2])
        return _convolution_flops(i, lhs, kernel)
    return 0.0


def _convolution_flops(i: Instruction, lhs, kernel) -> float:
    """2 for each pair of an input and a kernel element that meet: padding and the holes of dilation meet nothing."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", i.attributes)
    assert labels is not None  # every convolution has them
    inputs, kernels, outputs = labels.groups()
    window = {key: value.split("x") for key, value in re.findall(r"(\w+)=([\d_x\-]+)", (re.search(r"window=\{([^}]*)\}", i.attributes) or [""])[0])}
    out = i.shapes[0].dims
    pairs = 1.0
    for d in range(len(outputs) - 2):
        spatial = lambda key, default: int(window[key][d]) if key in window else default
        size, stride = spatial("size", 1), spatial("stride", 1)
        lhs_dilation, rhs_dilation = spatial("lhs_dilate", 1), spatial("rhs_dilate", 1)
        low = int(window["pad"][d].split("_")[0]) if "pad" in window else 0
        at = np.arange(out[outputs.index(str(d))])[:, None] * stride + np.arange(size)[None] * rhs_dilation - low
        extent = (lhs[inputs.index(str(d))] - 1) * lhs_dilation + 1
        pairs *= int(((at >= 0) & (at < extent) & (at % lhs_dilation == 0)).sum())
    groups = int(
        (re.search(r"batch_group_count=(\d+)", i.attributes) or (0, 1))[1]
    )  # the kernel's input features are those of one feature group already
    return 2.0 * out[outputs.index("b")] * out[outputs.index("f")] * kernel[kernels.index("i")] * pairs / groups
