"""TPU slices as Google Cloud names them, and what stands behind a name.

Sizes and shapes: Google Cloud's pages "TPU v4", "TPU v5e", "TPU v5p", "TPU v6e" and "TPU7x" (docs.cloud.google.com/tpu/docs); runtimes: its "TPU runtime versions";
labels of GKE: its "Plan TPUs in GKE".
"""

import dataclasses
import re

from research.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class Family:
    """per_chip: what the number in a name counts of each chip. shapes: {chips: topology}. whole: chips at most that one host has by itself."""

    chip: str
    per_chip: int
    shapes: dict[int, str]
    whole: int
    runtime: str | None  # None: not to be had as a TPU VM
    gke: str


_FLAT = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
_DEEP = {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8", 256: "4x8x8", 512: "8x8x8", 1024: "8x8x16", 2048: "8x16x16"}
FAMILIES = {
    "v4": Family("v4", 2, _DEEP, 4, "tpu-ubuntu2204-base", "tpu-v4-podslice"),
    "v5litepod": Family("v5e", 1, _FLAT, 8, "v2-alpha-tpuv5-lite", "tpu-v5-lite-podslice"),
    "v5p": Family("v5p", 2, _DEEP | {768: "8x8x12", 1536: "8x12x16", 3072: "12x16x16", 6144: "16x16x24"}, 4, "v2-alpha-tpuv5", "tpu-v5p-slice"),
    "v6e": Family("v6e", 1, _FLAT, 8, "v2-alpha-tpuv6e", "tpu-v6e-slice"),
    "tpu7x": Family("tpu7x", 2, _DEEP, 4, None, "tpu7x"),
}


@dataclasses.dataclass(frozen=True)
class Slice:
    name: str
    family: Family
    chips: int

    @property
    def shape(self) -> str:
        return self.family.shapes[self.chips]

    @property
    def topology(self) -> str:
        """As research.preflight has it."""
        return f"{self.family.chip}:{self.shape}"

    @property
    def hosts(self) -> int:
        """Of four chips each, but of small flat slices."""
        return 1 if self.chips <= self.family.whole else self.chips // 4


def named(name: str | None) -> Slice:
    """`v5p-128`: 64 chips. Raises UserError, with what there is, for a slice that there is not."""
    if name is None:
        raise UserError("say the TPUs, --type=v5p-128 for instance.")
    found = re.fullmatch(r"(\w+)-(\d+)", name)
    if not found or found[1] not in FAMILIES:
        raise UserError(f"--type={name}: say {', '.join(f'{family}-N' for family in FAMILIES)}; v5p-128 for instance.")
    family, number = FAMILIES[found[1]], int(found[2])
    if number % family.per_chip or number // family.per_chip not in family.shapes:
        raise UserError(f"--type={name}: of {found[1]} there are {', '.join(f'{found[1]}-{chips * family.per_chip}' for chips in family.shapes)}.")
    return Slice(name, family, number // family.per_chip)
