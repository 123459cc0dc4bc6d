import jax
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from research.core import sharding
from research.core.errors import UserError

ONES = {"pipeline": 1, "data": 1, "fsdp": 1, "context": 1, "tensor": 1}

SHARED = ("fsdp", "context")


def test_one_size_may_be_what_is_left():
    assert dict(sharding.make_mesh(ONES | {"fsdp": -1, "tensor": 2}).shape) == {"pipeline": 1, "data": 1, "fsdp": 4, "context": 1, "tensor": 2}


@pytest.mark.parametrize(
    "sizes, message", [({"tensor": 3}, "8 devices"), ({"fsdp": -1, "tensor": 3}, "8 devices"), ({"fsdp": -1, "data": -1}, "at most one")]
)
def test_a_mesh_that_does_not_divide_is_refused(sizes, message):
    with pytest.raises(UserError, match=message):
        sharding.make_mesh(ONES | sizes)


@pytest.mark.parametrize(
    "preset, axes, spec",
    [
        ("dp", ("embed", "heads", "head_dim"), P(None, None, None)),
        ("fsdp", ("embed", "heads", "head_dim"), P(SHARED, None, None)),
        ("tp", ("embed", "heads", "head_dim"), P(None, "tensor", None)),
        ("fsdp_tp", ("layers", "embed", "mlp"), P("pipeline", SHARED, "tensor")),
        ("fsdp_tp", ("vocab", "embed"), P("tensor", SHARED)),
        ("fsdp_tp", ("batch", "sequence", "embed"), P(("pipeline", "data", "fsdp"), "context", None)),  # the batch has taken fsdp
        ("fsdp_tp", ("layers", "batch", "sequence", "embed"), P("pipeline", ("data", "fsdp"), "context", None)),  # what the stages work on
        ("fsdp_tp", (None, "embed"), P(None, SHARED)),
    ],
)
def test_presets(preset, axes, spec):
    assert sharding.partition_spec(axes, sharding.make_rules(preset)) == spec


def test_an_axis_without_a_rule_raises():
    with pytest.raises(UserError, match="'experts'.*extra_rules"):
        sharding.partition_spec(("experts", "embed"), sharding.make_rules("fsdp"))


def test_extra_rules_go_first():
    rules = sharding.make_rules("fsdp", (("embed", "tensor"),))
    assert sharding.partition_spec(("embed", "mlp"), rules) == P("tensor", None)


def test_an_extra_rule_of_none_keeps_a_dimension_whole():
    assert sharding.partition_spec(("embed", "mlp"), sharding.make_rules("fsdp", (("embed", None),))) == P(None, None)


def test_an_extra_rule_to_no_mesh_axis_is_refused():
    with pytest.raises(UserError, match="'fdsp': the mesh has pipeline, data, fsdp"):
        sharding.make_rules("fsdp", (("embed", "fdsp"),))


@pytest.mark.parametrize("rules", [("embed", "fsdp"), (("embed",),), (["embed", "fsdp"],)])
def test_a_rule_that_is_no_pair_is_refused(rules):
    with pytest.raises(UserError, match="a tuple of pairs"):
        sharding.make_rules("fsdp", rules)


def test_a_parameter_that_does_not_name_its_axes_is_refused():
    mesh, shape = sharding.make_mesh(ONES | {"fsdp": 8}), {"a": {"kernel": jax.ShapeDtypeStruct((4, 4), "float32")}}
    with pytest.raises(UserError, match=r"a/kernel of shape \(4, 4\) names the axes \(\)"):
        sharding.param_shardings(mesh, sharding.make_rules("fsdp"), {"a": {"kernel": ()}}, shape)


class Pod:
    """The sharding of a process whose devices lie apart on the mesh, as on a TPU pod."""

    def addressable_devices_indices_map(self, shape):
        return {"d0": (slice(0, 2),), "d1": (slice(8, 10),), "d2": (slice(0, 2),)}


def test_rows_of_a_process_may_lie_apart():
    assert sharding.process_rows(Pod(), 16) == [0, 1, 8, 9]


def test_an_unknown_preset_is_refused():
    with pytest.raises(UserError, match="dp, fsdp, tp, fsdp_tp"):
        sharding.make_rules("zero")


def test_a_dimension_that_does_not_divide_is_named_with_the_numbers():
    mesh = sharding.make_mesh(ONES | {"tensor": 8})
    shapes = {"query": {"kernel": jax.ShapeDtypeStruct((16, 12, 4), "float32")}}
    with pytest.raises(UserError, match=r"query/kernel has 12 heads.*split in 8"):
        sharding.param_shardings(mesh, sharding.make_rules("tp"), {"query": {"kernel": ("embed", "heads", "head_dim")}}, shapes)


def test_a_batch_that_does_not_divide_is_refused_with_the_numbers():
    with pytest.raises(UserError, match="batch_size 12 .* 8 shards"):
        sharding.batch_sharding(sharding.make_mesh(ONES | {"fsdp": 8}), sharding.make_rules("dp"), 12)


def test_placed_rows_keep_their_order():
    mesh = sharding.make_mesh(ONES | {"data": 2, "fsdp": 4})
    where = sharding.batch_sharding(mesh, sharding.make_rules("dp"), 16)
    assert sharding.process_rows(where, 16) == list(range(16))
    rows = np.arange(32).reshape(16, 2)
    placed = sharding.place_batch({"x": rows}, where, 16)["x"]
    np.testing.assert_array_equal(placed, rows)
    assert placed.addressable_shards[0].data.shape == (2, 2)


@pytest.mark.parametrize("sizes, sequence, stream", [({"fsdp": 8}, 1, 1), ({"fsdp": 4, "context": 2}, 2, 2), ({"fsdp": 2, "context": 2, "tensor": 2}, 2, 4)])
def test_in_how_many_parts_an_axis_lies(sizes, sequence, stream):
    assert sharding.parts("sequence") == 1  # where nothing is split
    mesh = sharding.make_mesh(ONES | sizes)
    with jax.set_mesh(mesh), nn.logical_axis_rules(sharding.make_rules("fsdp_tp")):
        assert [sharding.parts(axis) for axis in ("batch", "sequence", "stream", "embed")] == [sizes["fsdp"], sequence, stream, 8 // sizes.get("tensor", 1)]
