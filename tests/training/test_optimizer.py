import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from research.core.errors import UserError
from research.training.optimizer import OPTIMIZERS, each_layer, frozen_names, make_optimizer, make_schedule, muon_dimensions
from research.training.rounding import bfloat16_moments, stochastic_round
from tests.tiny import tiny_config

PARAMS = {
    "blocks": {
        "up": {"kernel": jax.random.normal(jax.random.key(0), (3, 4, 6)) * jnp.array([1.0, 5.0, 25.0])[:, None, None], "bias": jnp.ones((3, 6))}
    },
    "word": {"embedding": jax.random.normal(jax.random.key(1), (8, 4))},
}
AXES = {"blocks": {"up": {"kernel": ("layers", "embed", "mlp"), "bias": ("layers", "mlp")}}, "word": {"embedding": ("vocab", "embed")}}
GRADS = jax.tree.map(lambda x: jnp.cos(3 * x), PARAMS)


def config(**changes):
    c = ConfigDict(tiny_config().optimizer.to_dict())
    c.clip_norm = None
    c.update(changes)
    return c


def updates(optimizer, grads=GRADS, steps=1, params=PARAMS):
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for _ in range(steps):
        found, state = update(grads, state, params)
    return found


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_lowers_a_loss(name):
    optimizer = make_optimizer(config(name=name, weight_decay=0.0), optax.constant_schedule(0.03), AXES)
    loss = lambda params: sum(jnp.mean(leaf**2) for leaf in jax.tree.leaves(params))

    @jax.jit
    def step(params, state):
        found, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, found), state

    start = params = jax.tree.map(jnp.cos, PARAMS)
    state = optimizer.init(params)
    for _ in range(100):
        params, state = step(params, state)
    assert loss(params) < 0.5 * loss(start)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_stacked_layer_is_updated_as_it_would_be_alone(name):
    """LAMB's trust ratio, Adafactor's clipping and Muon's orthogonal factor are those of one layer."""
    stacked = updates(make_optimizer(config(name=name), optax.constant_schedule(0.1), AXES), steps=3)
    for layer in range(3):
        one = lambda tree: {"up": jax.tree.map(lambda x: x[layer : layer + 1], tree["blocks"]["up"])}
        alone = updates(make_optimizer(config(name=name), optax.constant_schedule(0.1), {"up": AXES["blocks"]["up"]}), one(GRADS), 3, one(PARAMS))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-6), one(stacked), alone)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_stacks_of_different_depths_are_updated_apart(name):
    both = lambda tree: {"encoder": tree["blocks"], "decoder": jax.tree.map(lambda x: x[:2], tree["blocks"])}
    axes = {"encoder": AXES["blocks"], "decoder": AXES["blocks"]}
    found = updates(make_optimizer(config(name=name), optax.constant_schedule(0.1), axes), both(GRADS), 2, both(PARAMS))
    alone = updates(make_optimizer(config(name=name), optax.constant_schedule(0.1), AXES), steps=2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-6), found, both(alone))


def test_lamb_without_the_split_would_mix_layers():
    mixed = updates(optax.lamb(0.1, weight_decay=0.0))
    split = updates(each_layer(optax.lamb(0.1, weight_decay=0.0), AXES))
    assert not np.allclose(mixed["blocks"]["up"]["kernel"], split["blocks"]["up"]["kernel"], rtol=0.05)


@pytest.mark.parametrize("name", ["adamw", "lion", "sgd", "adafactor", "muon"])
def test_weight_decay_is_times_the_learning_rate_and_spares_biases_and_scales(name):
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    found = updates(make_optimizer(config(name=name, weight_decay=0.5), optax.constant_schedule(0.1), AXES), grads=zeros)
    assert (found["blocks"]["up"]["bias"] == 0).all()
    np.testing.assert_allclose(found["word"]["embedding"], -0.05 * PARAMS["word"]["embedding"], rtol=1e-5)
    np.testing.assert_allclose(found["blocks"]["up"]["kernel"], -0.05 * PARAMS["blocks"]["up"]["kernel"], rtol=1e-5)


def test_clipping_is_by_the_global_norm():
    found = updates(make_optimizer(config(name="sgd", momentum=0.0, weight_decay=0.0, clip_norm=0.5), optax.constant_schedule(1.0), AXES))
    assert float(optax.global_norm(found)) == pytest.approx(0.5, rel=1e-5)
    direction = jax.tree.map(lambda g: -0.5 * g / optax.global_norm(GRADS), GRADS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, direction)


def test_adamw_against_its_formula():
    """Decoupled weight decay (arXiv 1711.05101, algorithm 2), second step, one number."""
    optimizer = make_optimizer(
        config(b1=0.9, b2=0.99, epsilon=1e-6, weight_decay=0.1), optax.constant_schedule(0.01), {"w": {"kernel": ("embed", "mlp")}}
    )
    params = {"w": {"kernel": jnp.array([[2.0]])}}
    state, theta, m, v = optimizer.init(params), 2.0, 0.0, 0.0
    for t, g in enumerate((0.5, -0.2), start=1):
        found, state = optimizer.update({"w": {"kernel": jnp.array([[g]])}}, state, params)
        params = optax.apply_updates(params, found)
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
        theta -= 0.01 * (m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.99**t)) + 1e-6) + 0.1 * theta)
    assert float(params["w"]["kernel"][0, 0]) == pytest.approx(theta, rel=1e-5)


@pytest.mark.parametrize(
    "axes, inputs, outputs",
    [
        (("layers", "embed", "heads", "head_dim"), (0,), (1, 2)),
        (("layers", "heads", "head_dim", "embed"), (0, 1), (2,)),
        (("layers", "mlp", "embed"), (0,), (1,)),
    ],
)
def test_muon_flattens_a_kernel_to_inputs_and_outputs(axes, inputs, outputs):
    dimensions = muon_dimensions(axes)
    assert (dimensions.reduction_axis, dimensions.output_axis) == (inputs, outputs)


@pytest.mark.parametrize(
    "axes",
    [("vocab", "embed"), ("layers", "embed"), ("layers", "heads", "head_dim"), ("embed", None), (None, "embed"), ("layers", "embed", "rank")],
)
def test_muon_leaves_the_rest_to_adam(axes):
    assert muon_dimensions(axes) is None


@pytest.mark.parametrize(
    "name, values",
    [
        ("warmup_cosine", {0: 0.0, 5: 0.5, 10: 1.0, 60: 0.55, 110: 0.1}),
        ("warmup_linear", {0: 0.0, 5: 0.5, 10: 1.0, 60: 0.55, 110: 0.1}),
        ("inverse_sqrt", {5: 0.5, 10: 1.0, 40: 0.5, 90: 1 / 3}),
        ("warmup_stable_decay", {5: 0.5, 10: 1.0, 90: 1.0, 100: 0.55, 110: 0.1}),
        ("constant", {5: 0.5, 10: 1.0, 110: 1.0}),
    ],
)
def test_schedules(name, values):
    schedule = make_schedule(name, 1.0, steps=110, warmup_steps=10, decay_steps=20, final_fraction=0.1)
    for step, value in values.items():
        assert float(schedule(step)) == pytest.approx(value, abs=1e-6), step


def test_no_warmup_starts_at_the_top():
    assert float(make_schedule("warmup_cosine", 1.0, 10, 0, None, 0.0)(0)) == 1.0


@pytest.mark.parametrize(
    "name, steps, warmup, decay, message",
    [("step", 10, 1, None, "warmup_cosine, "), ("constant", 10, 10, None, "warmup_steps 10"), ("warmup_stable_decay", 10, 1, 10, "decay_steps 10")],
)
def test_a_wrong_schedule_is_refused(name, steps, warmup, decay, message):
    with pytest.raises(UserError, match=message):
        make_schedule(name, 1.0, steps, warmup, decay, 0.0)


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(UserError, match="adamw, lamb, lion"):
        make_optimizer(config(name="adam"), optax.constant_schedule(0.1), AXES)


def test_an_empty_pattern_spares_nothing():
    decayed = lambda pattern: updates(make_optimizer(config(name="sgd", weight_decay=0.5, no_decay=pattern), lambda step: 0.1, AXES))
    jax.tree.map(np.testing.assert_array_equal, decayed(""), decayed("no parameter"))
    assert not np.array_equal(decayed("")["blocks"]["up"]["bias"], decayed("bias$")["blocks"]["up"]["bias"])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_layer_decay_scales_the_whole_update(name):
    """Three layers and a decay of 1/2: the last layer has 1/2, the first 1/8, what is under it 1/16, the head all."""
    head = {"head": {"kernel": jnp.cos(jnp.arange(8.0)).reshape(4, 2)}}
    axes, params, grads = AXES | {"head": {"kernel": ("embed", None)}}, PARAMS | head, GRADS | head

    def found(layer_decay):
        optimizer = make_optimizer(config(name=name, weight_decay=0.3, layer_decay=layer_decay), optax.constant_schedule(0.1), axes)
        return updates(optimizer, grads, 2, params)

    plain, scaled = found(None), found(0.5)
    for leaf in ("kernel", "bias"):
        for layer, rate in enumerate((0.125, 0.25, 0.5)):
            one = lambda tree: tree["blocks"]["up"][leaf][layer]
            assert np.any(one(plain)), (leaf, layer)
            np.testing.assert_allclose(one(scaled), rate * one(plain), rtol=1e-5)
    np.testing.assert_allclose(scaled["word"]["embedding"], 0.0625 * plain["word"]["embedding"], rtol=1e-5)
    np.testing.assert_array_equal(scaled["head"]["kernel"], plain["head"]["kernel"])


def test_layer_decay_goes_by_the_stack_a_parameter_belongs_to():
    axes = {tower: {"word": {"embedding": (None,)}, "blocks": {"bias": ("layers",)}} for tower in ("first", "second")}
    axes |= {"projection": {"bias": (None,)}, "encoder": {"norm": {"scale": (None,)}}, "patch": {"bias": (None,)}}
    sizes = {"first": 1, "second": 3}
    params = {tower: {"word": {"embedding": jnp.ones(1)}, "blocks": {"bias": jnp.ones(n)}} for tower, n in sizes.items()}
    params |= {"projection": {"bias": jnp.ones(1)}, "encoder": {"norm": {"scale": jnp.ones(1)}}, "patch": {"bias": jnp.ones(1)}}
    optimizer = make_optimizer(config(name="sgd", momentum=0.0, weight_decay=0.0, layer_decay=0.5), optax.constant_schedule(-1.0), axes)
    found = updates(optimizer, params, params=params)
    assert found["first"]["blocks"]["bias"].tolist() == [0.5] and found["second"]["blocks"]["bias"].tolist() == [0.125, 0.25, 0.5]
    assert float(found["first"]["word"]["embedding"][0]) == 0.25 and float(found["second"]["word"]["embedding"][0]) == 0.0625
    assert float(found["patch"]["bias"][0]) == 0.0625, "it shares no more with the one than with the other: the deepest"
    assert float(found["projection"]["bias"][0]) == float(found["encoder"]["norm"]["scale"][0]) == 1.0


def test_layer_decay_without_layers_is_refused():
    with pytest.raises(UserError, match="no parameter that is trained belongs to a layer"):
        make_optimizer(config(layer_decay=0.5), optax.constant_schedule(0.1), {"word": AXES["word"]})


def test_what_is_frozen():
    assert frozen_names(AXES, "^blocks/") == {"blocks/up/kernel", "blocks/up/bias"}
    assert frozen_names(AXES, "bias$", frozenset({"word/embedding"})) == {"blocks/up/bias", "word/embedding"}
    assert frozen_names(AXES, None) == frozen_names(AXES, "") == frozenset()


@pytest.mark.parametrize(
    "pattern, always, message",
    [
        ("^head/", (), "'\\^head/' matches no parameter: they are blocks/up/bias"),
        (".", (), "freezes every parameter"),
        ("^blocks/", ("word/embedding",), "freezes every parameter"),
    ],
)
def test_freezing_nothing_or_all_is_refused(pattern, always, message):
    with pytest.raises(UserError, match=message):
        frozen_names(AXES, pattern, frozenset(always))


@pytest.mark.parametrize("name", ["adamw", "lion", "sgd", "muon"])
def test_moments_may_be_bfloat16(name):
    low, full = (make_optimizer(config(name=name, moment_dtype=dtype), optax.constant_schedule(0.1), AXES) for dtype in ("bfloat16", None))
    floats = lambda optimizer: [x for x in jax.tree.leaves(optimizer.init(PARAMS)) if jnp.issubdtype(x.dtype, jnp.floating)]
    size = lambda optimizer: sum(x.nbytes for x in floats(optimizer))
    assert size(low) < size(full) and {str(x.dtype) for x in floats(full)} == {"float32"}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0.1, atol=0.01), updates(low, steps=3), updates(full, steps=3))


@pytest.mark.parametrize("name", ["adamw", "lion", "sgd", "muon"])
def test_moments_rounded_at_random_take_half_the_room(name):
    low, full = (
        make_optimizer(config(name=name, **changes), optax.constant_schedule(0.1), AXES)
        for changes in ({"moment_dtype": "bfloat16", "stochastic_rounding": True}, {})
    )
    shapes = {x.shape for x in jax.tree.leaves(PARAMS)}
    moments = [x for x in jax.tree.leaves(low.init(PARAMS)) if jnp.issubdtype(x.dtype, jnp.floating) and x.shape in shapes]
    assert moments and {str(x.dtype) for x in moments} == {"bfloat16"}
    gradients, state, exact = jax.tree.map(jnp.ones_like, PARAMS), low.init(PARAMS), full.init(PARAMS)
    for i in range(3):
        found, state = low.update(gradients, state, PARAMS, rng=jax.random.key(i))
        wanted, exact = full.update(gradients, exact, PARAMS)
    assert jax.tree.map(lambda x: x.dtype, state) == jax.tree.map(lambda x: x.dtype, low.init(PARAMS))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0.05, atol=0.01), found, wanted)


def test_what_is_too_small_for_bfloat16_is_not_lost_when_rounded_at_random():
    """Gradients fall from 1 to 0: the second moment, 0.999 times what it was at each step, must fall too."""
    gradients = {"kernel": jnp.ones((256,))}
    adam = optax.scale_by_adam(b2=0.999)

    def second_moment(optimizer, **extra):
        state = optimizer.init(gradients)
        state = jax.tree_util.tree_map_with_path(lambda path, x: jnp.ones_like(x) if getattr(path[0], "name", "") == "nu" else x, state)
        for i in range(200):
            key = {"rng": jax.random.key(i)} if extra else {}
            _, state = optimizer.update(jax.tree.map(jnp.zeros_like, gradients), state, gradients, **key)
            if not extra:
                state = state._replace(nu=jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(x.dtype), state.nu))
        return np.asarray(state.nu["kernel"], np.float32)

    expected = 0.999**200
    assert (second_moment(adam) == 1).all(), "rounded to the nearest it stands still"
    found = second_moment(bfloat16_moments(adam), rng=True)
    assert found.mean() == pytest.approx(expected, rel=0.01) and found.std() > 0


def test_rounding_at_random_gives_a_neighbour_and_the_right_mean():
    x = jnp.concatenate([jnp.array([0.0, 1.0, -1.0, jnp.inf, -jnp.inf, jnp.nan, 3e38]), jax.random.normal(jax.random.key(0), (50,))])
    drawn = np.stack([np.asarray(stochastic_round(x, jax.random.key(i)), np.float64) for i in range(400)])
    exact, finite = np.asarray(x, np.float64), np.isfinite(x)
    assert (drawn[:, :5] == exact[:5]).all() and np.isnan(drawn[:, 5]).all()
    step = 2.0 ** (np.floor(np.log2(np.abs(exact[7:]))) - 7)
    assert (np.abs(drawn[:, 7:] - exact[7:]) < step).all()
    assert (np.abs(drawn[:, 7:].mean(0) - exact[7:]) < 0.15 * step).all() and finite.sum() == 54


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"moment_dtype": "int8"}, "choose float32 or bfloat16"),
        ({"name": "lamb", "moment_dtype": "bfloat16"}, "leave it out"),
        ({"stochastic_rounding": True}, "set optimizer.moment_dtype=bfloat16"),
    ],
)
def test_moments_of_another_dtype_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        make_optimizer(config(**changes), optax.constant_schedule(0.1), AXES)
