"""What a compiled program moves and computes on one device, loops included: bytes of HBM, collectives by kind and mesh axis, FLOPs."""

import dataclasses
import math
import re
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from research.compile.hlo import Instruction, Program, Shape
from research.compile.kernels import kernel_flops

# What a device sends of V bytes in a ring of n. V: what comes out of an all-gather, what goes into the others.
SENT = {
    "all-gather": lambda n: (n - 1) / n,
    "reduce-scatter": lambda n: (n - 1) / n,
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1.0,
    "collective-broadcast": lambda n: 1.0,
}
SENT["ragged-all-to-all"] = SENT["all-to-all"]

# Names for what is there already, and the ends of what began earlier: nothing is read or written.
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "after-all", "partition-id", "replica-id",
    "opt-barrier", "domain", "add-dependency", "copy-done", "slice-done", "async-done", "async-update", "optimization-barrier", "iota", "broadcast",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Collective:
    kind: str
    axes: tuple[str, ...]  # of the mesh, along which devices exchange
    over_dcn: bool  # some of these devices are in other slices
    asynchronous: bool  # the compiler lets the device compute meanwhile
    bytes: float  # that a device sends each time
    times: float  # in a step
    where: str  # the operation of the model that it serves


def collectives(program: Program, mesh: Mesh) -> list[Collective]:
    """Every collective of the program. Raises ValueError for groups of devices written in a way unknown here."""
    found, seen = [], set()
    for computation, outer, times in program.runs():
        if across := re.search(r'_xla_megascale_transfer_type="(\w+)"', outer.attributes) if outer.opcode == "send" else None:
            found.append(_between_slices(outer, across[1].lower().replace("_", "-"), mesh, times))
        inner = [] if outer.opcode in ("call", "conditional", "while") else list(program.inside(outer))
        scattered = outer.opcode == "fusion" and "all-reduce-scatter" in (outer.named("calls") or "")  # how TPUs write a reduce-scatter
        for i in (outer, *inner):
            kind = i.opcode.removesuffix("-start")
            if kind not in SENT or i.opcode.endswith("-done"):
                continue
            if chain := re.search(r'chain_id="(\d+)"', i.attributes):  # one collective, spread over several fusions
                part = (computation, chain[1], i.named("channel_id"))
                if part in seen:
                    continue
                seen.add(part)
            kind = "reduce-scatter" if scattered and kind == "all-reduce" else kind
            groups = device_groups(i.attributes, mesh.size)
            axes, over_dcn = _span(groups, mesh)
            n = groups.shape[1]
            if n > 1:
                sent = SENT[kind](n) * _volume(program, computation if i is outer else None, i, kind)
                operation = re.search(r'op_name="([^"]*)"', i.attributes) or re.search(r'op_name="([^"]*)"', outer.attributes)
                found.append(Collective(kind, axes, over_dcn, _is_asynchronous(i), sent, times, operation[1] if operation else i.name))
    return found


def _between_slices(send: Instruction, kind: str, mesh: Mesh, times: float) -> Collective:
    """TPUs exchange with other slices by way of their hosts, while they compute."""
    slices = np.vectorize(lambda device: device.slice_index)(mesh.devices)
    axes = tuple(name for k, name in enumerate(mesh.axis_names) if (slices != slices.take([0], axis=k)).any())
    operation = re.search(r'op_name="([^"]*)"', send.attributes)
    sent = SENT[kind](int(slices.max()) + 1) * send.shapes[0].bytes
    return Collective(kind, axes, True, True, sent, times, operation[1] if operation else send.name)


def _is_asynchronous(i: Instruction) -> bool:
    return i.opcode.endswith("-start") or "chain_id=" in i.attributes or "async_collective_name=" in i.attributes


def _volume(program: Program, computation: str | None, i: Instruction, kind: str) -> float:
    shapes = i.shapes
    if i.opcode == "all-gather-start" or i.opcode == "collective-permute-start":
        shapes = shapes[len(shapes) // 2 :] if i.opcode == "all-gather-start" else shapes[:1]
    volume = sum(shape.bytes for shape in shapes)
    return volume * device_groups(i.attributes, 0).shape[1] if kind == "reduce-scatter" and i.opcode.startswith("reduce-scatter") else volume


def device_groups(attributes: str, devices: int) -> np.ndarray:
    """(groups, members) int: positions in the mesh of the devices that exchange with each other, as the attributes of a collective say."""
    if pairs := re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}", attributes):
        return np.array(re.findall(r"\{(\d+),(\d+)\}", pairs[1]), int).reshape(-1, 2)
    text = re.search(r"replica_groups=(mesh\[[^\]]*\](?:, device_ids=\([^\s]*\))? *\{[^}]*\}|\[[\d,]*\]<=\[[\d,]*\](?:T\([\d,]*\))?|\{(?:\{[\d,]*\},?)*\})", attributes)
    if text is None:
        raise ValueError(f"a collective names its devices in a way that is not known: {attributes[:200]}")
    text = text[1]
    if text.startswith("mesh"):  # mesh['a'=4,'b'=2] {'a'}, with device_ids=([2,4]T(1,0)) where these are in another order
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", text)}
        along = re.findall(r"'(\w+)'", text[text.rindex("{") :])
        order = [k for k, name in enumerate(sizes) if name not in along] + [list(sizes).index(name) for name in along]
        permuted = re.search(r"device_ids=\(([^\s]*)\)", text)
        ids = _permuted(permuted[1]) if permuted else np.arange(math.prod(sizes.values()))
        return ids.reshape(list(sizes.values())).transpose(order).reshape(-1, math.prod(sizes[name] for name in along))
    if text.startswith("["):  # [groups,members]<=[shape]T(permutation)
        shape, _, source = text.partition("<=")
        return _permuted(source).reshape([int(n) for n in re.findall(r"\d+", shape)])
    groups = re.findall(r"\{([\d,]+)\}", text[1:-1])
    return np.array([[int(n) for n in group.split(",")] for group in groups]) if groups else np.arange(devices)[None]


def _permuted(text: str) -> np.ndarray:
    """[4,2]T(1,0): 0 to 7 in rows of that shape, its dimensions permuted."""
    shape, permutation = re.match(r"\[([\d,]*)\](?:T\(([\d,]*)\))?$", text).groups()
    shape = [int(n) for n in shape.split(",")]
    ids = np.arange(math.prod(shape)).reshape(shape)
    return ids.transpose([int(n) for n in permutation.split(",")]) if permutation else ids


def _span(groups: np.ndarray, mesh: Mesh) -> tuple[tuple[str, ...], bool]:
    """The mesh axes along which the members of a group differ, and whether they lie in several slices."""
    places = np.array(np.unravel_index(groups, mesh.devices.shape))  # (axes, groups, members)
    varies = (places != places[:, :, :1]).any((1, 2))
    slices = np.array([getattr(device, "slice_index", 0) for device in mesh.devices.flat])[groups]
    return tuple(axis for axis, v in zip(mesh.axis_names, varies) if v), bool((slices != slices[:, :1]).any())


class Operation(NamedTuple):
    """On one device, each time. hbm, host: bytes read from and written to the memory of the device, and moved to and from that of the host."""

    flops: float
    hbm: float
    host: float
    times: float


def operations(program: Program) -> list[Operation]:
    """Every operation of the program outside fusions.

    FLOPs are those of matrix products, convolutions and kernels, a multiply-add being two; what several devices compute alike counts on each. A
    fusion reads its operands once and writes its results once; of an operand that it only slices the slice counts, of an update in place what it
    writes. What stays on the chip is free.
    """
    found = []
    for name, i, times in program.runs():
        computation = program.computations[name]
        flops = _product_flops(computation, i) + _kernel_flops(computation, i) + sum(_product_flops(inner, j) for inner in _fused(program, i) for j in inner.values())
        free = i.opcode in _FREE or i.opcode.endswith("-done")
        hbm, host = (0.0, 0.0) if free else (_hbm_bytes(program, computation, i), _host_bytes(computation, i))
        if flops or hbm or host:
            found.append(Operation(flops, hbm, host, times))
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
    return computation[i.operands[1]].shapes[0] if i.opcode == "dynamic-update-slice-start" else i.shapes[1 if i.opcode in ("copy-start", "slice-start") else -2]


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
    inputs, kernels, outputs = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", i.attributes).groups()
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
    groups = int((re.search(r"batch_group_count=(\d+)", i.attributes) or (0, 1))[1])  # the kernel's input features are those of one feature group already
    return 2.0 * out[outputs.index("b")] * out[outputs.index("f")] * kernel[kernels.index("i")] * pairs / groups
