import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from research.core.errors import UserError
from research.training.checkpoint import Checkpoints
from research.training.state import TrainState


def sharding(n=1, spec=PartitionSpec()):
    return NamedSharding(Mesh(np.array(jax.devices()[:n]), ("x",)), spec)


def make_state(step, ema=False, width=8):
    params = {"up": {"kernel": jnp.arange(4.0 * width).reshape(4, width) + step, "bias": jnp.full(width, float(step))}}
    return TrainState(jnp.int32(step), params, optax.adam(1.0).init(params), jax.tree.map(jnp.negative, params) if ema else None)


def shapes_and(where, **kwargs):
    shapes = jax.eval_shape(lambda: make_state(0, **kwargs))
    return shapes, jax.tree.map(lambda x: where if x.ndim == 2 else sharding(where.mesh.size), shapes)


def save(workdir, steps, losses=None, keep=2, mode="min", **kwargs):
    checkpoints = Checkpoints(workdir, keep, "validation/loss", mode)
    for step, loss in zip(steps, losses or [None] * len(steps)):
        checkpoints.save(make_state(step, **kwargs), {"next": 10 * step}, loss and {"validation/loss": loss, "validation/x": 0.0})
        checkpoints.wait()
    return checkpoints


@pytest.mark.short
@pytest.mark.parametrize("ema", [False, True])
def test_state_and_source_come_back_bit_for_bit_on_another_mesh(tmp_path, ema):
    save(tmp_path, [3], ema=ema).close()
    shapes, where = shapes_and(sharding(4, PartitionSpec("x", None)), ema=ema)
    state, source = Checkpoints(tmp_path).restore(shapes, where, {})
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), jax.device_get(make_state(3, ema=ema)))
    assert source == {"next": 30} and state.params["up"]["kernel"].addressable_shards[0].data.shape == (1, 8)
    assert type(state.opt_state) is type(make_state(3).opt_state)


def test_the_best_stays_over_a_restart(tmp_path):
    save(tmp_path, [1, 2, 3], [9.0, 1.0, 5.0]).close()
    assert save(tmp_path, [4, 5, 6], [6.0, 7.0, 8.0]).steps == [2, 5, 6]


@pytest.mark.parametrize("mode, best", [("min", 2), ("max", 1)])
def test_the_latest_and_the_best_are_kept(tmp_path, mode, best):
    checkpoints = save(tmp_path, [1, 2, 3, 4, 5], [9.0, 1.0, 5.0, None, 6.0], mode=mode)
    assert checkpoints.steps == [best, 4, 5] and checkpoints.best == best


def test_the_moving_average_is_what_one_uses(tmp_path):
    shapes, where = shapes_and(sharding())
    save(tmp_path / "a", [3], ema=True).close()
    save(tmp_path / "b", [3]).close()
    a, b = (Checkpoints(tmp_path / name, read_only=True).restore_params(shapes.params, where.params) for name in "ab")
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, -y), a, b)


def test_one_step_of_several_can_be_asked_for(tmp_path):
    save(tmp_path, [3, 4]).close()
    shapes, where = shapes_and(sharding())
    params = Checkpoints(tmp_path, read_only=True).restore_params(shapes.params, where.params, step=3)
    assert params["up"]["bias"][0] == 3
    with pytest.raises(UserError, match=r"no finished checkpoint at step 5; it has: \[3, 4\]"):
        Checkpoints(tmp_path, read_only=True).restore_params(shapes.params, where.params, step=5)


def test_parameters_must_match_strictly(tmp_path):
    save(tmp_path, [3]).close()
    there = Checkpoints(tmp_path, read_only=True)
    shapes, where = shapes_and(sharding(), width=6)
    with pytest.raises(UserError, match=r"up/bias is float32\[8\] there, float32\[6\] here; up/kernel"):
        there.restore_params(shapes.params, where.params)
    shapes, where = shapes_and(sharding())
    more, at = shapes.params | {"head": {"bias": jax.ShapeDtypeStruct((2,), "float32")}}, where.params | {"head": {"bias": sharding()}}
    with pytest.raises(UserError, match="head/bias is missing there"):
        there.restore_params(more, at)
    found = there.restore_params(more, at, allow_new="^head/")
    assert found["head"]["bias"] is None and found["up"]["bias"][0] == 3
    with pytest.raises(UserError, match="up/kernel is .* there, not in this model"):
        there.restore_params({"up": {"bias": shapes.params["up"]["bias"]}}, {"up": {"bias": sharding()}})


def test_a_state_of_other_code_is_not_called_unreadable(tmp_path):
    save(tmp_path, [3]).close()
    shapes, where = shapes_and(sharding())
    momentum = optax.sgd(1.0, 0.9).init
    other = shapes._replace(opt_state=jax.eval_shape(momentum, shapes.params))
    with pytest.raises(UserError, match="checkpoints/3/optimizer does not fit: .* Other code made this run"):
        Checkpoints(tmp_path).restore(other, where._replace(opt_state=jax.tree.map(lambda _: sharding(), other.opt_state)), {})


def test_an_unreadable_checkpoint_is_one_line_that_says_how_to_go_on(tmp_path):
    checkpoints = save(tmp_path, [3, 4])
    for path in (tmp_path / "checkpoints" / "4" / "params").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2])
    with pytest.raises(UserError, match="checkpoints/4 cannot be read .* use step 3"):
        checkpoints.restore(*shapes_and(sharding()), {})


def test_reading_makes_no_directory(tmp_path):
    shapes, where = shapes_and(sharding())
    with pytest.raises(UserError, match="no finished checkpoint"):
        Checkpoints(tmp_path / "none", read_only=True).restore_params(shapes.params, where.params)
    assert not (tmp_path / "none").exists()
