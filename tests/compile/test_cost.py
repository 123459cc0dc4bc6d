"""What is read out of compiled programs, against closed forms."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from research import build, preflight
from research.compile import chips, hlo, kernels, roofline
from research.compile.collectives import device_groups, find_collectives
from research.compile.cost import cost, device_bytes, out_of_memory
from research.compile.operations import find_operations
from research.core import sharding
from tests.tiny import tiny_config

ONES = {"pipeline": 1, "data": 1, "fsdp": 1, "context": 1, "tensor": 1}


def program_of(function, *args, **options):
    return hlo.parse(jax.jit(function, **options).lower(*args).compile().as_text())


def flops_of(program) -> float:
    return sum(o.times * o.flops for o in find_operations(program))


def shape(*dims):
    return jax.ShapeDtypeStruct(dims, "float32")


def test_a_dense_stack_has_the_closed_form():
    stack = lambda x, w: jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0]
    assert flops_of(program_of(stack, shape(64, 32), shape(7, 32, 32))) == 7 * 2 * 64 * 32 * 32


@pytest.mark.parametrize("kind, dtype", [("s8", "int8"), ("f8e4m3fn", "fp8"), ("f8e5m2", "fp8"), ("bf16", None)])
def test_products_of_eight_bit_numbers_take_their_own_time(kind, dtype):
    """A chip of 100 FLOP/s, at which int8 is twice as fast and fp8 is nothing apart."""
    line = "ROOT %out = f32[5,7] convolution(%a, %b), dim_labels=bf_io->bf"
    (o,) = find_operations(hlo.parse(f"ENTRY %main () -> f32[] {{\n  %a = {kind}[5,3] parameter(0)\n  %b = {kind}[3,7] parameter(1)\n  {line}\n}}\n"))
    assert o.flops == 2 * 5 * 3 * 7 and o.eight_bit == ({dtype: o.flops} if dtype else {})
    chip = chips.Chip(100.0, 1, 1e9, 1, 1, 1, None, eight_bit={"int8": 200.0})
    assert roofline.times([o], [], None, chip).compute == o.flops / (200 if dtype == "int8" else 100)


def test_a_product_reads_and_writes_each_array_once():
    program = program_of(jnp.matmul, shape(64, 128), shape(128, 256))
    assert sum(o.hbm for o in find_operations(program)) == 4 * (64 * 128 + 128 * 256 + 64 * 256)


def test_of_stacked_weights_a_round_reads_one_layer():
    stack = lambda x, w: jax.lax.scan(lambda x, w: (x @ w, None), x, w)[0]
    read = lambda layers: sum(o.times * o.hbm for o in find_operations(program_of(stack, shape(256, 256), shape(layers, 256, 256))))
    assert read(40) / read(20) == pytest.approx(2, rel=0.1)  # were all 40 layers read each time it would be 4


@pytest.mark.parametrize(
    "line, flops",
    [
        ("f32[5,7] convolution(%a, %b), dim_labels=bf_io->bf", 2 * 5 * 3 * 7),
        ("f32[2,5,7] convolution(%c, %d), window={size=2 stride=1 lhs_dilate=2}, dim_labels=0bf_0io->0bf", 2 * 2 * 5 * 3 * 7),  # a batched product
        ("f32[8,5,5,4] convolution(%e, %f), window={size=4x4 stride=4x4}, dim_labels=b01f_01io->b01f", 2 * 8 * 25 * 16 * 3 * 4),  # patches
    ],
)
def test_convolutions_as_tpus_write_products(line, flops):
    shapes = {"a": "f32[5,3]", "b": "f32[3,7]", "c": "f32[2,5,3]", "d": "f32[2,3,7]", "e": "f32[8,20,20,3]", "f": "f32[4,4,3,4]"}
    body = "\n".join(f"  %{name} = {of} parameter({k})" for k, (name, of) in enumerate(shapes.items()))
    assert flops_of(hlo.parse(f"ENTRY %main () -> f32[] {{\n{body}\n  ROOT %out = {line}\n}}\n")) == flops


@pytest.mark.parametrize(
    "text, groups",
    [
        ("replica_groups={{0,1},{2,3}}", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[4]", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[2,2]T(1,0)", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'a'}", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'a'}", [[0, 1], [2, 3]]),
        ("replica_groups={}", [[0, 1, 2, 3]]),
        ("source_target_pairs={{0,1},{3,2}}", [[0, 1], [3, 2]]),
    ],
)
def test_groups_of_devices(text, groups):
    np.testing.assert_array_equal(device_groups(f", channel_id=1, {text}, x=1", 4), groups)


def test_groups_written_in_an_unknown_way_are_an_error():
    with pytest.raises(ValueError, match="not known"):
        device_groups(", replica_groups=all", 4)


def sent(program, mesh):
    """{(kind, axes): bytes in a run}"""
    found = {}
    for c in find_collectives(program, mesh):
        found[c.kind, c.axes] = found.get((c.kind, c.axes), 0) + c.times * c.bytes
    return found


def test_collectives_send_what_the_formula_says():
    mesh = sharding.make_mesh(ONES | {"fsdp": 4, "tensor": 2})
    at = lambda x, *axes: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, P(*axes)))
    x, w = shape(64, 128), shape(5, 128, 128)
    stack = lambda x, w: jax.lax.scan(lambda x, w: (x @ jax.lax.with_sharding_constraint(w, NamedSharding(mesh, P())), None), x, w)[0]
    gathered = sent(program_of(stack, at(x, "fsdp"), at(w, None, "fsdp")), mesh)
    assert gathered == {("all-gather", ("fsdp",)): 5 * 128 * 128 * 4 * 3 / 4}
    total = sent(program_of(lambda x: x.sum(0), at(x, "fsdp")), mesh)
    assert total == {("all-reduce", ("fsdp",)): 128 * 4 * 2 * 3 / 4}


def train_cost(**changes):
    e = build.experiment(tiny_config(**changes))
    with e.in_force():
        return e, cost(e.train_step, (e.shapes, e.trained.example_batch), e.mesh, None)


@pytest.mark.slow
@pytest.mark.parametrize("tensor", [1, 2])
def test_scanned_and_unrolled_cost_the_same(tensor):
    model = {
        "model__layers": 6,
        "model__width": 32,
        "model__mlp_width": 128,
        "mesh__fsdp": 8 // tensor,
        "mesh__tensor": tensor,
        "data__batch_size": 32,
    }
    (_, scanned), (_, unrolled) = (train_cost(model__scan_layers=scan, **model) for scan in (True, False))
    assert scanned.flops == pytest.approx(unrolled.flops, rel=0.01)
    total = lambda c: sum(x.times * x.bytes for x in c.collectives)
    assert total(scanned) == pytest.approx(total(unrolled), rel=0.01) and total(scanned) > 0
    assert scanned.unknown_loops == 0


@pytest.mark.slow
def test_layers_of_a_scan_are_counted():
    (e, six), (_, three) = (train_cost(model__layers=n, mesh__fsdp=8, data__batch_size=32) for n in (6, 3))
    whole = preflight.count_flops(e.train_step, e.shapes, e.trained.example_batch)
    assert six.flops * 8 == pytest.approx(whole, rel=0.02)
    assert six.flops > 1.5 * three.flops


@pytest.mark.slow
def test_repeated_work_is_seen():
    """With no rule for `tensor` every device of it does the same."""
    _, split = train_cost(mesh__fsdp=4, mesh__tensor=2)
    _, repeated = train_cost(mesh__fsdp=4, mesh__tensor=2, mesh__rules="fsdp")
    assert repeated.flops > 1.5 * split.flops


def test_bytes_of_a_device():
    mesh = sharding.make_mesh(ONES | {"fsdp": 4, "tensor": 2})
    assert device_bytes({"x": shape(8, 6)}, {"x": NamedSharding(mesh, P("fsdp", "tensor"))}) == 8 * 6 * 4 / 8


def test_kernels_cost_what_they_visit():
    operands = [("s8", (1, 4, 4)), ("bf16", (6, 24, 2048, 128)), ("bf16", (6, 8, 2048, 128))]
    whole = 2 * 2 * 6 * 24 * 2048 * 2048 * 128
    assert kernels.kernel_flops("a/visited_0.6250/splash_mha_fwd", operands) == whole * 0.625
    assert kernels.kernel_flops("a/visited_0.6250/splash_mha_dkv", operands, dense=True) == 2 * whole
    with pytest.raises(ValueError, match="no cost is known of the kernel a/other"):
        kernels.kernel_flops("a/other", operands)


EARLY = "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (22.50G) exceeds available HBM (15.75G)."
LATE = """Ran out of memory in memory space hbm. Used 15.75G of 15.75G hbm. Exceeded hbm capacity by 3.11M.

Total hbm usage >= 16.00G:
    reserved        258.01M
    program          15.50G
    arguments       512.00M

  1. Size: 8.44G
     Operator: op_name="jit(train_step)/word.attend/dot_general"
     Shape: f32[44,1024,50304]{2,1,0:T(8,128)}
"""


def test_a_lack_of_memory_is_understood():
    early, late = out_of_memory(EARLY), out_of_memory(LATE)
    assert (early.needed, early.available) == (22.5 * 2**30, 15.75 * 2**30)
    assert (late.needed, late.available) == (16 * 2**30, 15.75 * 2**30)
    assert late.largest == [(8.44 * 2**30, "f32[44,1024,50304] jit(train_step)/word.attend/dot_general")]
    assert out_of_memory("INTERNAL: something else") is None


def test_a_loop_that_data_end_is_said_to_be_unknown():
    program = program_of(lambda x: jax.lax.while_loop(lambda x: x.sum() < 1e3, lambda x: x * 2, x), shape(4))
    loops = [(name, i) for name, i, _ in program.runs() if i.opcode == "while"]
    assert [program.trips(*loop) for loop in loops] == [None]


def test_a_collective_spread_over_fusions_counts_once():
    mesh = sharding.make_mesh(ONES | {"fsdp": 8})
    part = '%g{n} = f32[8,4] all-gather(%x), channel_id=3, replica_groups=[1,8]<=[8], dimensions={{0}}, frontend_attributes={{chain_id="1"}}'
    text = "ENTRY %main () -> f32[] {\n  %x = f32[1,4] parameter(0)\n" + "".join(f"  {part.format(n=n)}\n" for n in range(3)) + "}\n"
    (found,) = find_collectives(hlo.parse(text), mesh)
    assert dataclasses.astuple(found)[:4] == ("all-gather", ("fsdp",), False, True) and found.bytes == 8 * 4 * 4 * 7 / 8
