"""What a step costs, from its compiled program: memory by class, operations, collectives, time."""

import contextlib
import dataclasses
import os
import re
import tempfile
import time

import jax
from jax.sharding import Mesh, NamedSharding

from research.compile import hlo, roofline
from research.compile.chips import Chip
from research.compile.collectives import Collective, find_collectives
from research.compile.operations import find_operations


class OutOfMemory(Exception):
    """The compiler finds no room. `needed` and `available`: bytes of one device, arguments included; `largest`: (bytes, what) of the largest allocations."""

    def __init__(self, needed: float, available: float, largest: list[tuple[float, str]]):
        super().__init__(f"{needed / 2**30:.2f} GiB of {available / 2**30:.2f}")
        self.needed, self.available, self.largest = needed, available, largest


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one run on one device. `memory`: peak bytes, arguments included. `rematerialized`: tensors that the partitioner replicates for want of a better way."""

    compile_seconds: float
    memory: float
    flops: float
    hbm_bytes: float
    host_bytes: float  # to and from its memory
    collectives: tuple[Collective, ...]
    times: roofline.Times | None  # None for a chip that is not in the table
    rematerialized: int
    unknown_loops: int  # whose length data decide: they count once


def cost(step, args, mesh: Mesh, chip: Chip | None) -> Cost:
    """Compiles `step` (jitted) for `args` (of arrays or ShapeDtypeStructs) and reads the program. Raises OutOfMemory."""
    start = time.perf_counter()
    with _stderr() as said:
        try:
            compiled = step.lower(*args).compile()
        except jax.errors.JaxRuntimeError as e:
            if found := out_of_memory(str(e)):
                raise found from None
            raise
        rematerialized = said().count("Involuntary full rematerialization")
    seconds = time.perf_counter() - start
    program = hlo.parse(compiled.as_text())
    operations, collectives = find_operations(program), find_collectives(program, mesh)
    flops, hbm, host = (sum(o.times * getattr(o, what) for o in operations) for what in ("flops", "hbm", "host"))
    m = compiled.memory_analysis()
    memory = m.argument_size_in_bytes + m.temp_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes
    if mesh.devices.flat[0].platform == "tpu":  # which counts what its temporaries share; elsewhere the peak is of something else
        memory = m.peak_memory_in_bytes
    return Cost(
        seconds,
        memory,
        flops,
        hbm,
        host,
        tuple(collectives),
        None if chip is None else roofline.times(operations, collectives, mesh, chip),
        rematerialized,
        sum(i.opcode == "while" and program.trips(name, i) is None for name, i, _ in program.runs()),
    )


def device_bytes(shapes, shardings) -> float:
    """Bytes that a tree of arrays takes on one device."""

    def of(shape, sharding: NamedSharding):
        return jax.ShapeDtypeStruct(sharding.shard_shape(shape.shape), shape.dtype)

    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(jax.tree.map(of, shapes, shardings)))


def out_of_memory(message: str) -> OutOfMemory | None:
    """What XLA says of a program too large for its device; None for any other error."""
    sizes = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    size = lambda text: float(text.rstrip("KMGT")) * sizes[text.lstrip("0123456789.")]
    if early := re.search(r"memory required for HLO temporaries \(([\d.]+[KMGT]?)\) exceeds available HBM \(([\d.]+[KMGT]?)\)", message):
        return OutOfMemory(size(early[1]), size(early[2]), [])
    if late := re.search(r"Used ([\d.]+[KMGT]?) of ([\d.]+[KMGT]?) hbm", message):
        parts = [size(found) for found in re.findall(r"^ +(?:program|arguments) +([\d.]+[KMGT]?)", message, re.MULTILINE)]
        largest = re.findall(r"\d+\. Size: ([\d.]+[KMGT]?)\n(?: +Operator: op_name=\"([^\"]*)\"\n)? +Shape: (\S+?)[{\n]", message)
        return OutOfMemory(max(size(late[1]), sum(parts)), size(late[2]), [(size(n), f"{shape} {name}".strip()) for n, name, shape in largest])
    return None


@contextlib.contextmanager
def _stderr():
    """What the compiler writes to the process's stderr, as a function () -> str; shown to no one unless compiling fails."""
    with tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)

        def said():
            file.seek(0)
            return file.read().decode(errors="replace")

        try:
            yield said
        except Exception as e:
            if not isinstance(e, OutOfMemory):
                os.write(kept, said().encode())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
