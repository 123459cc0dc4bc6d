"""A compiled program, read from its text: which instructions run, and how often.

XLA's own cost analysis counts the body of a loop once, whatever its trip count: here it counts as often as it runs.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

BYTES = {"pred": 1, "token": 0, "opaque": 0} | {
    f"{kind}{bits}": bits / 8
    for kind, sizes in (("s", (2, 4, 8, 16, 32, 64)), ("u", (2, 4, 8, 16, 32, 64)), ("f", (16, 32, 64)), ("c", (64, 128)))
    for bits in sizes
}
BYTES |= {"bf16": 2, "f4e2m1fn": 0.5} | dict.fromkeys(
    ("f8e4m3", "f8e4m3fn", "f8e4m3fnuz", "f8e4m3b11fnuz", "f8e5m2", "f8e5m2fnuz", "f8e3m4", "f8e8m0fnu"), 1
)

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?")
_NAME = re.compile(r"%([\w.\-]+)")


@dataclasses.dataclass(frozen=True)
class Shape:
    dtype: str
    dims: tuple[int, ...]
    space: int  # of memory: 0 is the main one (HBM); TPUs have others on the chip, and 5 is the host's

    @property
    def bytes(self) -> float:
        return math.prod(self.dims) * BYTES[self.dtype]


@dataclasses.dataclass(frozen=True)
class Instruction:
    name: str
    opcode: str
    shapes: tuple[Shape, ...]  # of the result: several where it is a tuple
    operands: tuple[str, ...]  # names
    literal: str  # what stands in the parentheses
    attributes: str
    root: bool

    def named(self, attribute: str) -> str:
        """The computation that an attribute names; empty where it names none."""
        found = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.attributes)
        return found[1] if found else ""


Computation = dict[str, Instruction]  # by name, in the order in which they run


@dataclasses.dataclass(frozen=True)
class Program:
    computations: dict[str, Computation]
    entry: str

    def runs(self) -> Iterator[tuple[str, Instruction, float]]:
        """(computation, instruction, times it runs) of everything outside fusions, the branches of a conditional being taken equally often."""
        yield from self._runs(self.entry, 1.0)

    def _runs(self, name: str, times: float):
        for instruction in self.computations[name].values():
            yield name, instruction, times
            if instruction.opcode == "while":
                trips = self.trips(name, instruction)
                yield from self._runs(instruction.named("body"), times * (1 if trips is None else trips))
            elif instruction.opcode == "call":
                yield from self._runs(instruction.named("to_apply"), times)
            elif instruction.opcode == "conditional":
                branches = self.branches(instruction)
                for branch in branches:
                    yield from self._runs(branch, times / len(branches))

    def branches(self, conditional: Instruction) -> list[str]:
        listed = re.search(r"branch_computations=\{([^}]*)\}", conditional.attributes)
        if listed:
            return [name.strip().lstrip("%") for name in listed[1].split(",")]
        return [conditional.named("true_computation"), conditional.named("false_computation")]

    def inside(self, instruction: Instruction) -> Iterator[Instruction]:
        """The instructions of a fusion or an asynchronous call, and of those within it."""
        name = instruction.opcode in ("fusion", "async-start", "custom-call") and (
            instruction.named("calls") or instruction.named("called_computations")
        )
        for inner in self.computations[name].values() if name else ():
            yield inner
            yield from self.inside(inner)

    def trips(self, name: str, loop: Instruction) -> int | None:
        """How often a loop runs: as the compiler notes it, or from its counter's beginning, step and bound; None where data decide."""
        if noted := re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.attributes):
            return int(noted[1])
        condition, body = self.computations[loop.named("condition")], self.computations[loop.named("body")]
        test = next((i for i in [*condition.values(), *(j for i in condition.values() for j in self.inside(i))] if i.opcode == "compare"), None)
        counters = [int(i.attributes.partition("index=")[2].split(",")[0]) for i in condition.values() if i.opcode == "get-tuple-element"]
        bounds = [i for i in condition.values() if i.opcode == "constant"]
        if test is None or "direction=LT" not in test.attributes or len(counters) != 1 or len(bounds) != 1:
            return None
        initial = self.computations[name].get(loop.operands[0])
        first = initial is not None and initial.opcode == "tuple" and self._constant(self.computations[name], initial.operands[counters[0]])
        step = self._step(body, counters[0])
        if first is None or first is False or not step:
            return None
        return max(0, -(-(int(bounds[0].literal) - first) // step))

    def _constant(self, computation: Computation, name: str) -> int | None:
        instruction = computation[name]
        while instruction.opcode in ("copy", "bitcast", "copy-done", "copy-start"):
            instruction = computation[instruction.operands[0]]
        return int(instruction.literal) if instruction.opcode == "constant" else None

    def _step(self, body: Computation, counter: int) -> int | None:
        """What one round adds to the counter."""
        root = next(i for i in body.values() if i.root)
        if root.opcode != "tuple":
            return None
        update = body[root.operands[counter]]
        while update.opcode in ("copy", "bitcast"):
            update = body[update.operands[0]]
        inner = [i for i in self.inside(update) if i.opcode in ("add", "constant")] if update.opcode == "fusion" else []
        if [i.opcode for i in inner].count("add") == 1:
            found = [int(i.literal) for i in inner if i.opcode == "constant"] + [
                c for c in map(lambda n: self._constant(body, n), update.operands) if c is not None
            ]
        elif update.opcode == "add":
            found = [c for c in (self._constant(body, n) for n in update.operands) if c is not None]
        else:
            return None
        return found[0] if len(found) == 1 else None


def parse(text: str) -> Program:
    """The text of a scheduled HLO module (`compiled.as_text()`) as a Program."""
    computations: dict[str, Computation] = {}
    current: Computation | None = None
    pending: list[str] = []
    entry = ""
    for line in text.splitlines():
        if current is None:
            if begins := _COMPUTATION.match(line):
                current = computations[begins[2]] = {}
                entry = begins[2] if begins[1] else entry
        elif (ends := line == "}" or line.startswith("}, execution_thread")) or _INSTRUCTION.match(line):
            if pending:
                instruction = _instruction("\n".join(pending))
                current[instruction.name] = instruction
            current, pending = (None, []) if ends else (current, [line])
        else:  # the attributes of some kernels go on for lines
            pending.append(line)
    return Program(computations, entry)


def _instruction(text: str) -> Instruction:
    begins = _INSTRUCTION.match(text)
    assert begins is not None  # as `parse` has seen
    rest = text[begins.end() :]
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    shapes = tuple(map(_shape, _SHAPE.finditer(rest[:end])))
    opcode, _, rest = rest[end:].strip().partition("(")
    end = _closing("(" + rest, 0) - 1
    inner = rest[:end]
    return Instruction(begins[2], opcode, shapes, tuple(_NAME.findall(inner)), inner, rest[end + 1 :], bool(begins[1]))


def _shape(found) -> Shape:
    space = re.search(r"S\((\d+)\)", found[3] or "")
    return Shape(found[1], tuple(int(n) for n in found[2].split(",") if n), int(space[1]) if space else 0)


def _closing(text: str, start: int) -> int:
    """Where the parenthesis that opens at `start` closes."""
    depth = 0
    for found in re.compile(r"[()]").finditer(text, start):
        depth += 1 if found[0] == "(" else -1
        if not depth:
            return found.start()
    raise ValueError(f"no parenthesis closes in {text[:80]!r}")
