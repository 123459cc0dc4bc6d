"""How long a step takes at least (the roofline of Williams et al., 2009), and as the compiler has laid it out."""

import dataclasses

import numpy as np
from jax.sharding import Mesh

from research.compile.chips import Chip
from research.compile.collectives import Collective
from research.compile.operations import Operation


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds of one step on each device. compute: all FLOPs at the peak. memory: all HBM traffic at its peak. operations: each operation at the
    slower of the two, one after another. hidden, waited: collectives by (mesh axes, ICI or DCN), those that run beside the computation
    and those that it waits for.
    """

    compute: float
    memory: float
    operations: float
    hidden: dict[tuple[tuple[str, ...], str], float]
    waited: dict[tuple[tuple[str, ...], str], float]

    def network(self, which: str) -> float:
        """Over ICI or DCN. Collectives on one network take turns."""
        return sum(seconds for part in (self.hidden, self.waited) for (_, network), seconds in part.items() if network == which)

    @property
    def bounds(self) -> dict[str, float]:
        """What no schedule can beat: each resource, as if all others were free."""
        return {"compute": self.compute, "memory": self.memory, "ICI": self.network("ICI"), "DCN": self.network("DCN")}

    @property
    def bound(self) -> float:
        return max(self.bounds.values())

    @property
    def step(self) -> float:
        """As compiled: operations in turn, hidden collectives beside them, the others in between."""
        return max(self.operations, sum(self.hidden.values())) + sum(self.waited.values())


def times(operations: list[Operation], collectives: list[Collective], mesh: Mesh, chip: Chip) -> Times:
    compute = memory = in_turn = 0.0
    for o in operations:
        products, traffic = _seconds_of_products(o, chip), o.hbm / chip.hbm_bandwidth
        compute += o.times * products
        memory += o.times * traffic
        in_turn += o.times * max(products, traffic)
    hidden: dict[tuple[tuple[str, ...], str], float] = {}
    waited: dict[tuple[tuple[str, ...], str], float] = {}
    known: dict[tuple[tuple[str, ...], bool], float] = {}
    for c in collectives:
        if (c.axes, c.over_dcn) not in known:
            known[c.axes, c.over_dcn] = bandwidth(mesh, c.axes, chip, c.over_dcn)
        seconds = c.times * c.bytes / known[c.axes, c.over_dcn]
        if "all-to-all" in c.kind and not c.over_dcn:  # each byte crosses a quarter of the ring
            seconds *= max(1.0, np.prod([mesh.shape[axis] for axis in c.axes]) / 4)
        part, key = hidden if c.asynchronous else waited, (c.axes, "DCN" if c.over_dcn else "ICI")
        part[key] = part.get(key, 0.0) + seconds
    return Times(compute, memory, in_turn, hidden, waited)


def _seconds_of_products(o: Operation, chip: Chip) -> float:
    fast = {dtype: flops for dtype, flops in o.eight_bit.items() if dtype in chip.eight_bit}
    return (o.flops - sum(fast.values())) / chip.flops + sum(flops / chip.eight_bit[dtype] for dtype, flops in fast.items())


def bandwidth(mesh: Mesh, axes: tuple[str, ...], chip: Chip, over_dcn: bool = False) -> float:
    """Bytes/s at which a device sends to those along `axes`: over each dimension of the torus that these span, both ways round where it closes."""
    if over_dcn:
        return chip.dcn or float("nan")
    along = tuple(slice(None) if axis in axes else 0 for axis in mesh.axis_names)
    group, everywhere = _coordinates(mesh.devices[along]), _coordinates(mesh.devices)
    if group is None or everywhere is None:
        return chip.link
    links = 0
    for mine, all_of_them in zip(group.T, everywhere.T):
        if len(set(mine)) > 1:
            extent = len(set(all_of_them))
            links += 2 if len(set(mine)) == extent and extent % chip.ring == 0 else 1
    return links * chip.link if links else chip.core_link or chip.link


def _coordinates(devices) -> np.ndarray | None:
    """(devices, dimensions) int: where in the torus they are; None where devices have no place."""
    if not hasattr(devices.flat[0], "coords"):
        return None
    return np.array([device.coords for device in devices.flat])
