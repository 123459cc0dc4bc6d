"""What the devices of a compiled program send each other, by kind and mesh axis, loops included."""

import dataclasses
import math
import re

import numpy as np
from jax.sharding import Mesh

from research.compile.hlo import Instruction, Program

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
SENT["one-to-one"] = SENT["collective-permute"]  # as TPUs call it between slices


@dataclasses.dataclass(frozen=True)
class Collective:
    kind: str
    axes: tuple[str, ...]  # of the mesh, along which devices exchange
    over_dcn: bool  # some of these devices are in other slices
    asynchronous: bool  # the compiler lets the device compute meanwhile
    bytes: float  # that a device sends each time
    times: float  # in a step


def find_collectives(program: Program, mesh: Mesh) -> list[Collective]:
    """Every collective of the program. Raises ValueError for groups of devices written in a way unknown here."""
    found, seen = [], set()
    for computation, outer, times in program.runs():
        if across := re.search(r'_xla_megascale_transfer_type="(\w+)"', outer.attributes) if outer.opcode == "send" else None:
            found.append(_between_slices(outer, across[1].lower().replace("_", "-"), mesh, times))
        inner = [] if outer.opcode in ("call", "conditional", "while") else list(program.inside(outer))
        scattered = outer.opcode == "fusion" and "all-reduce-scatter" in outer.named("calls")  # how TPUs write a reduce-scatter
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
                found.append(Collective(kind, axes, over_dcn, _is_asynchronous(i), SENT[kind](n) * _volume(i, n), times))
    return found


def _between_slices(send: Instruction, kind: str, mesh: Mesh, times: float) -> Collective:
    """TPUs exchange with other slices by way of their hosts, while they compute."""
    slices = np.vectorize(lambda device: device.slice_index)(mesh.devices)
    axes = tuple(name for k, name in enumerate(mesh.axis_names) if (slices != slices.take([0], axis=k)).any())
    return Collective(kind, axes, True, True, SENT[kind](int(slices.max()) + 1) * send.shapes[0].bytes, times)


def _is_asynchronous(i: Instruction) -> bool:
    return i.opcode.endswith("-start") or "chain_id=" in i.attributes or "async_collective_name=" in i.attributes


def _volume(i: Instruction, n: int) -> float:
    """V of SENT."""
    shapes = i.shapes
    if i.opcode == "all-gather-start":  # (operands, results)
        shapes = shapes[len(shapes) // 2 :]
    elif i.opcode == "collective-permute-start":  # (operand, result, what it is known by)
        shapes = shapes[:1]
    elif i.opcode.startswith("reduce-scatter"):
        return n * sum(shape.bytes for shape in shapes)
    return sum(shape.bytes for shape in shapes)


def device_groups(attributes: str, devices: int) -> np.ndarray:
    """(groups, members) int: positions in the mesh of the devices that exchange with each other, as the attributes of a collective say."""
    if pairs := re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}", attributes):
        return np.array(re.findall(r"\{(\d+),(\d+)\}", pairs[1]), int).reshape(-1, 2)
    found = re.search(
        r"replica_groups=(mesh\[[^\]]*\](?:, device_ids=\([^\s]*\))? *\{[^}]*\}|\[[\d,]*\]<=\[[\d,]*\](?:T\([\d,]*\))?|\{(?:\{[\d,]*\},?)*\})",
        attributes,
    )
    if found is None:
        raise ValueError(f"a collective names its devices in a way that is not known: {attributes[:200]}")
    text = found[1]
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
    found = re.match(r"\[([\d,]*)\](?:T\(([\d,]*)\))?$", text)
    assert found is not None  # XLA writes it so
    shape, permutation = [int(n) for n in found[1].split(",")], found[2]
    ids = np.arange(math.prod(shape)).reshape(shape)
    return ids.transpose([int(n) for n in permutation.split(",")]) if permutation else ids


def _span(groups: np.ndarray, mesh: Mesh) -> tuple[tuple[str, ...], bool]:
    """The mesh axes along which the members of a group differ, and whether they lie in several slices."""
    places = np.array(np.unravel_index(groups, mesh.devices.shape))  # (axes, groups, members)
    varies = (places != places[:, :, :1]).any((1, 2))
    slices = np.array([getattr(device, "slice_index", 0) for device in mesh.devices.flat])[groups]
    return tuple(axis for axis, v in zip(mesh.axis_names, varies) if v), bool((slices != slices[:, :1]).any())
