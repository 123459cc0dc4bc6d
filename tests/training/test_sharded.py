"""The same step on one device and on eight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from research import build
from research.core import sharding
from research.core.errors import UserError
from research.models.layers import Embedding
from research.training.evaluate import to_host
from research.training.optimizer import make_optimizer
from research.training.state import TrainState, state_shardings
from tests.objectives.test_masked_lm import V, make_batch
from tests.tiny import tiny_config

MESHES = {
    "dp": {"fsdp": 8},
    "fsdp": {"fsdp": 8},
    "tp": {"fsdp": 2, "tensor": 4},
    "fsdp_tp": {"fsdp": 4, "tensor": 2},
    "fsdp_tp/data": {"data": 2, "fsdp": 2, "tensor": 2},
    "fsdp_tp/context": {"fsdp": 2, "context": 2, "tensor": 2},
    "fsdp_tp/context alone": {"fsdp": 1, "context": 8},
    "fsdp_tp/tensor alone": {"fsdp": 2, "tensor": 4},
    "fsdp_tp/data and fsdp": {"data": 2, "fsdp": 4},
    "fsdp_tp/data and context": {"data": 4, "fsdp": 1, "context": 2},
    "fsdp_tp/data and tensor": {"data": 4, "fsdp": 1, "tensor": 2},
    "fsdp_tp/fsdp and context": {"fsdp": 4, "context": 2},
    "fsdp_tp/context and tensor": {"fsdp": 1, "context": 4, "tensor": 2},
}
STAGES = {
    "fsdp_tp/pipeline and tensor": {"pipeline": 2, "fsdp": 2, "tensor": 2},
    "dp/pipeline": {"pipeline": 2, "fsdp": 4},
    "fsdp_tp/pipeline and fsdp": {"pipeline": 2, "fsdp": 4},
    "fsdp_tp/pipeline and data": {"pipeline": 2, "data": 4, "fsdp": 1},
    "fsdp_tp/pipeline and context": {"pipeline": 2, "fsdp": 1, "context": 4},
    "fsdp_tp/pipeline and all": {"pipeline": 2, "fsdp": 1, "context": 2, "tensor": 2},
}
QUICK = ("fsdp_tp", "fsdp_tp/context", "fsdp_tp/pipeline and tensor")
SLOW = ("tp", "fsdp_tp/data", "fsdp_tp/context and tensor", "fsdp_tp/pipeline and all")  # the others, with fewer axes, are long


def marks(name):
    return () if name in QUICK else pytest.mark.slow if name in SLOW else (pytest.mark.slow, pytest.mark.long)


def experiment(name="", **changes):
    mesh = {f"mesh__{axis}": size for axis, size in (MESHES | STAGES).get(name, {"fsdp": 1}).items()}
    rules = {"mesh__rules": name.split("/")[0]} if name else {}
    config = tiny_config(**{"model__dropout": 0.1} | mesh | rules | changes)
    return build.experiment(config, V, None if name else jax.devices()[:1])


def two_steps(e):
    """(losses, parameters) after two steps on real shapes, and the metrics of an evaluation."""
    state = jax.jit(e.init, out_shardings=e.shardings)()
    losses = []
    with e.in_force():
        for seed in range(2):
            state, means = e.train_step(state, e.place(make_batch(16, seed=seed), 16))
            losses.append(to_host(means))
        validation = to_host(e.eval_step(state.params, e.place(make_batch(16, seed=5), 16)))
    return losses + [validation], state


@pytest.fixture(scope="module")
def on_one_device():
    return {k: two_steps(experiment(optimizer__accumulate=k)) for k in (1, 2)}


@pytest.mark.short
@pytest.mark.parametrize(
    "name, accumulate", [pytest.param(name, 1, marks=marks(name)) for name in MESHES] + [pytest.param("fsdp_tp", 2, marks=pytest.mark.slow)]
)
def test_one_device_equals_eight(on_one_device, name, accumulate, capfd):
    losses, state = two_steps(experiment(name, optimizer__accumulate=accumulate))
    expected_losses, expected = on_one_device[accumulate]
    for found, wanted in zip(losses, expected_losses):
        assert found == pytest.approx(wanted, rel=2e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5), jax.device_get(state.params), jax.device_get(expected.params))
    assert "Involuntary full rematerialization" not in capfd.readouterr().err


IN_STAGES = {"model__dropout": 0.0, "model__microbatches": 4, "model__remat": "projections"}


@pytest.fixture(scope="module")
def in_one_stage():
    return two_steps(experiment(**IN_STAGES))


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in STAGES])
def test_stages_equal_one_device(in_one_stage, name, capfd):
    """With four microbatches of four rows, kept and computed again: losses and parameters."""
    losses, state = two_steps(experiment(name, **IN_STAGES))
    expected_losses, expected = in_one_stage
    for found, wanted in zip(losses, expected_losses):
        assert found == pytest.approx(wanted, rel=2e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5), jax.device_get(state.params), jax.device_get(expected.params))
    kernel = state.params["encoder"]["blocks"]["mlp"]["up"]["kernel"]
    assert kernel.addressable_shards[0].data.shape[0] == 1, "a stage has its own layers alone"
    assert "Involuntary full rematerialization" not in capfd.readouterr().err


def test_what_stages_drop_differs_by_microbatch():
    """Rows that are alike, one in each microbatch."""
    e = experiment("dp/pipeline", model__dropout=0.5, model__attention_dropout=0.0, model__microbatches=4)
    params = jax.jit(e.init, out_shardings=e.shardings)().params
    batch = {name: np.repeat(x[:1], 16, 0) for name, x in make_batch(16).items()}
    inputs = {name: batch[name] for name in ("tokens", "token_types")} | {"mask": batch["tokens"] > 0}

    @jax.jit
    def encode(params, inputs, rng):
        x_BTD = jnp.ones((16, 32, 16))  # past the embeddings, which have dropout of their own
        encoder = e.objective.model.clone(deterministic=rng is None)
        transformer = lambda model: model.encoder(x_BTD)[0]
        return encoder.apply({"params": params}, method=transformer, rngs={} if rng is None else {"dropout": rng})

    with e.in_force():
        same, dropped = encode(params, inputs, None), encode(params, inputs, jax.random.key(0))
    np.testing.assert_allclose(same, np.repeat(same[:1], 16, 0), rtol=1e-5)
    alike = [(i, j) for i in range(16) for j in range(i) if np.allclose(dropped[i], dropped[j])]
    assert alike == []


@pytest.mark.parametrize(
    "mesh, message",
    [({"pipeline": 2, "fsdp": 4}, "16, does not divide into model.microbatches=3 over the 4 shards"), ({"pipeline": 8}, "2 layers.*split in 8")],
)
def test_stages_that_do_not_divide_are_refused(mesh, message):
    with pytest.raises(UserError, match=message):
        build.experiment(tiny_config(model__microbatches=3 if "fsdp" in mesh else 1, **{f"mesh__{axis}": size for axis, size in mesh.items()}), V)


GPT = {
    "model__name": "gpt",
    "model__norm": "pre",
    "objective__name": "causal_lm",
    "model__attention_pattern": ("dense", "local"),
    "model__attention_window": 5,
}


def packed(seed: int):
    """Sixteen rows of three documents and padding."""
    draw = np.random.default_rng(seed)
    segments = np.repeat([[1, 2, 3, 0]], [11, 4, 14, 3], axis=1).repeat(16, 0).astype(np.int32)
    return {"tokens": draw.integers(5, 64, (16, 32)).astype(np.int32), "segments": segments, "valid": np.ones(16, bool)}


def packed_pairs(seed: int):
    """Sixteen rows of two pairs, the second absent from some."""
    one, two = (make_batch(16, 32, seed) for seed in (2 * seed, 2 * seed + 1))
    join = lambda name: np.concatenate([one[name], two[name]], 1)
    used = join("tokens") > 0
    order = np.argsort(~used, axis=1, kind="stable")
    in_order = lambda x: np.take_along_axis(x, order, 1)[:, :64]
    segments = np.where(used, np.repeat([[1, 2]], 32, axis=1), 0).astype(np.int32)
    return {
        "tokens": in_order(join("tokens")),
        "token_types": in_order(join("token_types")),
        "segments": in_order(segments),
        "is_next": np.stack([one["is_next"], two["is_next"], np.full(16, -1, np.int32)], 1),
        "valid": np.ones(16, bool),
    }


@pytest.mark.slow
def test_an_encoder_on_packed_pairs_equals_one_device():
    found = []
    for where in ("", "fsdp_tp/context"):
        e = experiment(where, objective__pairs_per_row=3, model__max_length=64, data__length=64)
        state = jax.jit(e.init, out_shardings=e.shardings)()
        with e.in_force():
            state, means = e.train_step(state, e.place(packed_pairs(0), 16))
            state, more = e.train_step(state, e.place(packed_pairs(1), 16))
        found.append((to_host(means), to_host(more)))
    for alone, split in zip(*found):
        assert split == pytest.approx(alone, rel=2e-5)


def two_decoder_steps(name="", **changes):
    """The metrics of two steps on packed rows."""
    e = experiment(name, **{"model__dropout": 0.0, "model__microbatches": 2} | GPT | changes)
    state, found = jax.jit(e.init, out_shardings=e.shardings)(), []
    with e.in_force():
        for seed in range(2):
            state, means = e.train_step(state, e.place(packed(seed), 16))
            found.append(to_host(means))
    return found


@pytest.fixture(scope="module")
def decoder_alone():
    return two_decoder_steps()


@pytest.mark.slow
def test_splash_in_stages_equals_xla_on_one_device(decoder_alone):
    """Within a stage the kernel is split by rows, heads and queries."""
    for split, alone in zip(two_decoder_steps("fsdp_tp/pipeline and all", model__attention="splash"), decoder_alone):
        assert split == pytest.approx(alone, rel=2e-5)


@pytest.mark.parametrize(
    "name, chunks",
    [
        pytest.param("fsdp_tp", 1, marks=pytest.mark.slow),
        ("fsdp_tp/context", 4),
        pytest.param("fsdp_tp/pipeline and tensor", 1, marks=pytest.mark.slow),
    ],
)
def test_a_decoder_on_packed_rows_equals_one_device(decoder_alone, name, chunks):
    for split, alone in zip(two_decoder_steps(name, objective__loss_chunks=chunks), decoder_alone):
        assert split == pytest.approx(alone, rel=2e-5)


@pytest.mark.slow
def test_the_compiler_s_warning_would_be_seen(capfd, monkeypatch):
    """What the test above looks for is what the partitioner does say where the word table is left split both ways."""
    monkeypatch.setattr(Embedding, "table_VD", property(lambda self: self.embedding))
    e = experiment("fsdp_tp/context")
    with e.in_force():
        e.train_step.lower(e.shapes, e.objective.example_batch).compile()
    assert "Involuntary full rematerialization" in capfd.readouterr().err


def test_state_is_split_as_the_rules_say():
    e = experiment("fsdp_tp")
    state = jax.jit(e.init, out_shardings=e.shardings)()
    parts = lambda x: x.size // x.addressable_shards[0].data.size
    assert parts(state.params["encoder"]["blocks"]["attention"]["query"]["kernel"]) == 8
    assert parts(state.params["word"]["embedding"]) == 8 and parts(state.params["masked_lm"]["bias"]) == 2
    big = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.size >= 256]
    assert big and all(parts(leaf) >= 4 for leaf in big), "moments lie as their parameters do"


def test_statistics_that_lost_a_dimension_keep_the_rest_of_the_sharding():
    """Adafactor's rows and columns of a kernel large enough to be factored; a scalar is whole."""
    shapes = {"kernel": jax.ShapeDtypeStruct((256, 512), "float32"), "temperature": jax.ShapeDtypeStruct((), "float32")}
    axes = {"kernel": ("embed", "mlp"), "temperature": ()}
    mesh = sharding.make_mesh({"pipeline": 1, "data": 1, "fsdp": 4, "context": 1, "tensor": 2})
    adafactor = make_optimizer(tiny_config(optimizer__name="adafactor").optimizer, lambda step: 0.1, axes)
    whole = TrainState(jax.ShapeDtypeStruct((), "int32"), shapes, jax.eval_shape(adafactor.init, shapes))
    placed = state_shardings(whole, axes, mesh, sharding.make_rules("fsdp_tp"))
    specs = {(leaf.shape, at.spec) for leaf, at in zip(jax.tree.leaves(whole.opt_state), jax.tree.leaves(placed.opt_state)) if leaf.size > 1}
    assert specs == {((256,), P(("fsdp", "context"))), ((512,), P("tensor"))}


@pytest.mark.parametrize("optimizer", [pytest.param("adafactor", marks=pytest.mark.slow), pytest.param("muon", marks=pytest.mark.slow)])
def test_state_of_other_shapes_than_the_parameters_is_split_too(optimizer):
    e = experiment("fsdp_tp", optimizer__name=optimizer, optimizer__clip_norm=None)
    found, _ = two_steps(e)
    alone, _ = two_steps(experiment(optimizer__name=optimizer, optimizer__clip_norm=None))
    assert [step["loss"] for step in found] == pytest.approx([step["loss"] for step in alone], rel=1e-4)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"mesh__tensor": 8}, "has 4 heads.*split in 8"),
        ({"mesh__fsdp": 8, "data__batch_size": 12}, "batch_size 12.*8 shards"),
        ({"mesh__fsdp": 8, "data__eval_batch_size": 12}, "eval_batch_size 12.*8 shards"),
        ({"mesh__fsdp": 8, "optimizer__accumulate": 4}, "batch_size 16.*accumulate=4.*8 shards"),
        ({"mesh__fsdp": 3}, "8 devices"),
        ({"mesh__fsdp": 8, "data__length": 64}, "64 is longer than the 32 positions"),
        ({"mesh__fsdp": 8, "model__name": "brt"}, "model.name is 'brt'"),
        ({"mesh__fsdp": 8, "objective__name": "no.module:Thing"}, "no.module:Thing"),
        ({"mesh__fsdp": 8, "mesh__rules": "zero"}, "mesh.rules"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_done(changes, message):
    with pytest.raises(UserError, match=message):
        build.experiment(tiny_config(**changes))


def test_a_tokenizer_larger_than_the_model_is_refused():
    with pytest.raises(UserError, match="64 tokens.*vocab_size is 48"):
        build.objective(tiny_config(model__vocab_size=48), V)
