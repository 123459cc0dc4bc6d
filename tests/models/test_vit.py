import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import build, restore
from research.core import linen
from research.core.errors import UserError
from research.models.vit import Vit, patches_of, pixels, resize_positions, sincos, variant
from research.training.checkpoint import Checkpoints
from tests.tiny import tiny_config, vit_config

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1)).astype(np.uint8)
VARIANTS = {"class token": {}, "fixed": {"class_token": False, "positions": "sincos", "pool": "mean"}, "attention": {"pool": "attention"}}


@functools.partial(jax.jit, static_argnums=(0, 4))
def applied(model, params, images, index_BK=None, method="encode"):
    return linen.apply(model, params, None, {"image": images}, *([] if index_BK is None else [index_BK]), method=method)


def built(**changes):
    """A model of one layer with parameters none of which is zero."""
    model = Vit(vit_config(layers=1, **changes))
    shapes = jax.eval_shape(lambda inputs: linen.init(model, jax.random.key(0), inputs, method="embed"), model.inputs(1, 0))
    rng = np.random.default_rng(0)
    return model, jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), shapes)


@pytest.fixture(scope="module", params=VARIANTS)
def vit(request):
    return built(**VARIANTS[request.param])


@pytest.mark.parametrize(
    "name, classes, millions",
    [
        ("Ti/16", 1000, 5.7),  # arXiv 2012.12877, table 1
        ("S/16", 1000, 22.05),
        ("B/16", 1000, 86.6),  # arXiv 2010.11929, table 1, says 86, 307 and 632
        ("L/16", 1000, 304.3),
        ("H/14", 1000, 632),
        ("g/14", 0, 1011),  # arXiv 2106.04560, table 2
        ("G/14", 0, 1843),
        ("So400m/14", 0, 428),  # the image tower of SigLIP, arXiv 2303.15343
    ],
)
def test_models_have_the_published_number_of_parameters(name, classes, millions):
    siglip = {"class_token": False, "pool": "attention"} if name == "So400m/14" else {}
    model = Vit(vit_config(image_size=224, channels=3, **variant(name), **siglip))
    shapes = jax.eval_shape(lambda inputs: linen.init(model, jax.random.key(0), inputs, method="embed"), model.inputs(1, 0))
    size = sum(x.size for x in jax.tree.leaves(shapes)) + classes * (model.width + 1)
    assert size / 1e6 == pytest.approx(millions, rel=5e-3)


def test_patches_are_cut_row_by_row():
    image = np.random.default_rng(1).normal(size=(2, 6, 9, 3))
    patches = patches_of(jnp.asarray(image), 3)
    assert patches.shape == (2, 6, 27)
    for n in range(6):
        top, left = 3 * (n // 3), 3 * (n % 3)
        np.testing.assert_allclose(patches[:, n], image[:, top : top + 3, left : left + 3].reshape(2, -1), rtol=1e-6)


def test_pixels_lie_between_minus_one_and_one():
    np.testing.assert_allclose(pixels(np.array([0, 51, 255], np.uint8), vit_config()), [-1, -0.6, 1], rtol=1e-6)


def test_fixed_positions_are_sines_and_cosines_of_x_and_of_y():
    table = sincos((3, 3), 8, True)
    assert table.shape == (10, 8) and not table[0].any()
    for y in range(3):
        for x in range(3):
            expected = [*np.sin([x, x / 100]), *np.cos([x, x / 100]), *np.sin([y, y / 100]), *np.cos([y, y / 100])]
            np.testing.assert_allclose(table[1 + 3 * y + x], expected, rtol=1e-5, atol=1e-6)


def test_each_patch_is_embedded_at_its_place(vit):
    """Without a layer the hidden states are the norm of patch + position."""
    model, params = vit
    c = model.config
    blocks = params["encoder"]["blocks"]
    ends = {name: {**blocks[name], last: jax.tree.map(jnp.zeros_like, blocks[name][last])} for name, last in (("attention", "out"), ("mlp", "down"))}
    params = params | {"encoder": params["encoder"] | {"blocks": blocks | ends}}
    position = params["position"]["embedding"] if c.positions == "learned" else sincos((4, 4), 12, c.class_token)
    x = (IMAGES / 127.5 - 1).reshape(2, 4, 2, 4, 2).swapaxes(2, 3).reshape(2, 16, 4) @ params["patch"]["kernel"] + params["patch"]["bias"]
    if c.class_token:
        x = np.concatenate([np.broadcast_to(params["class_token"], (2, 1, 12)), x], axis=1)
    x = np.asarray(x + position, np.float64)
    norm = params["encoder"]["norm"]
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + c.norm_epsilon) * norm["scale"] + norm["bias"]
    np.testing.assert_allclose(applied(model, params, IMAGES), expected, rtol=1e-3, atol=1e-4)


def test_the_embedding_is_what_pool_says(vit):
    model, params = vit
    pooled = applied(model, params, IMAGES, None, "embed")
    if model.config.pool == "first":
        expected = applied(*vit, IMAGES)[:, 0]
    elif model.config.pool == "attention":
        expected = attention_pool(params["pooler"], applied(*vit, IMAGES))
    else:
        expected = applied(*vit, IMAGES).mean(1)
    np.testing.assert_allclose(pooled, expected, rtol=1e-3, atol=1e-4)


def attention_pool(p, x_BTD):
    """In NumPy, one head after another."""
    p, x_BTD = jax.tree.map(lambda x: np.asarray(x, np.float64), (p, x_BTD))
    out = np.zeros((2, 12))
    for b, x_TD in enumerate(x_BTD):
        for h in range(3):
            project = lambda name, x: x @ p[name]["kernel"][:, h] + p[name]["bias"][h]
            query, key, value = project("query", p["query_token"]), project("key", x_TD), project("value", x_TD)
            weights = np.exp(key @ query / 2)
            out[b] += weights / weights.sum() @ value @ p["out"]["kernel"][h]
    x = out + p["out"]["bias"]
    y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12) * p["mlp_norm"]["scale"] + p["mlp_norm"]["bias"]
    gelu = lambda z: np.asarray(jax.nn.gelu(z, approximate=False))
    return x + gelu(y @ p["mlp"]["up"]["kernel"] + p["mlp"]["up"]["bias"]) @ p["mlp"]["down"]["kernel"] + p["mlp"]["down"]["bias"]


def test_the_mean_is_that_of_patches_alone():
    vit = built(pool="mean")
    np.testing.assert_allclose(applied(*vit, IMAGES, None, "embed"), applied(*vit, IMAGES)[:, 1:].mean(1), rtol=1e-5, atol=1e-6)


def test_visible_patches_keep_their_places(vit):
    """All patches in another order are the same set of tokens, which a Transformer tells by their positions alone."""
    order_BN = jnp.stack([jax.random.permutation(jax.random.key(i), 16) for i in range(2)])
    first = int(vit[0].config.class_token)
    shuffled = applied(*vit, IMAGES, order_BN, "encode_visible")
    expected = jnp.take_along_axis(applied(*vit, IMAGES)[:, first:], order_BN[..., None], axis=1)
    np.testing.assert_allclose(shuffled[:, first:], expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(shuffled[:, :first], applied(*vit, IMAGES)[:, :first], rtol=1e-3, atol=1e-4)


def test_hidden_patches_are_not_seen(vit):
    index_BK = jnp.array([[0, 5, 10], [3, 2, 15]])
    images = np.array(IMAGES)
    images[0, 0, 2] += 1  # of patch 1
    images[1, 7, 7] += 1  # of patch 15
    before, after = (applied(*vit, x, index_BK, "encode_visible") for x in (IMAGES, images))
    assert before.shape == (2, 3 + vit[0].config.class_token, 12)
    assert np.array_equal(before[0], after[0]) and not np.allclose(before[1], after[1], rtol=1e-5)


@pytest.mark.parametrize("positions", ["learned", "sincos"])
def test_an_image_need_not_be_square(positions):
    """Of 4 x 6 pixels: two rows of three patches, each of which is at its own place."""
    model, params = built(image_size=4, image_width=6, class_token=False, pool="mean", positions=positions)
    assert model.inputs(2, 0)["image"].shape == (2, 4, 6, 1) and model.config.grid == (2, 3)
    images = np.array(IMAGES[:, :4, :6])
    changed, order_BN = images.copy(), np.tile([5, 0, 3], (2, 1))
    changed[:, 1, 4] += 1  # of patch 2, the last of the first row
    whole, same = (applied(model, params, x) for x in (images, changed))
    assert whole.shape == (2, 6, 12) and not np.allclose(whole, same, rtol=1e-5)
    seen, still = (applied(model, params, x, order_BN, "encode_visible") for x in (images, changed))
    np.testing.assert_array_equal(seen, still)
    np.testing.assert_allclose(applied(model, params, images, np.tile(np.arange(6), (2, 1)), "encode_visible"), whole, rtol=1e-4, atol=1e-5)
    if positions == "learned":
        assert params["position"]["embedding"].shape == (6, 12) and model.adapter("position/embedding", (16, 12)), "from a square"
        table = np.stack([np.mgrid[:4, :4][1].reshape(16)] * 12, -1).astype(np.float32)
        resized = np.asarray(model.adapter("position/embedding", (16, 12))(table)).reshape(2, 3, 12)
        np.testing.assert_allclose(resized[0], resized[1], atol=1e-5)
        assert (np.diff(resized[0, :, 0]) > 0.5).all(), "columns stay columns"


def cubic(values, at: float) -> float:
    """What cubic convolution with a = -3/4 finds between the values of a line (Keys, 1981, eq. 15), one neighbour at a time."""
    total, a = 0.0, -0.75
    for place in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
        x = abs(at - place)
        weight = 1 - (a + 3) * x**2 + (a + 2) * x**3 if x <= 1 else -4 * a + 8 * a * x - 5 * a * x**2 + a * x**3
        total += weight * values[min(max(place, 0), len(values) - 1)]
    return total


@pytest.mark.parametrize("class_token", [True, False])
def test_positions_resized_keep_the_plane(class_token):
    y, x = np.mgrid[:4, :4]
    table = np.stack([0 * x + 7.0, x, 10.0 * y], -1).reshape(16, 3)
    table = np.concatenate([[[-1, -2, -3]], table]) if class_token else table
    found = np.asarray(resize_positions(jnp.asarray(table), (4, 4), (8, 8), class_token))
    assert found.shape == (64 + class_token, 3)
    if class_token:
        assert found[0].tolist() == [-1, -2, -3]
    constant, across, down = np.moveaxis(found[int(class_token) :].reshape(8, 8, 3), -1, 0)
    np.testing.assert_allclose(constant, 7, rtol=1e-5)
    np.testing.assert_allclose(across, np.broadcast_to([cubic(range(4), (i + 0.5) / 2 - 0.5) for i in range(8)], (8, 8)), atol=1e-5)
    np.testing.assert_allclose(down, 10 * across.T, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(resize_positions(jnp.asarray(table), (4, 4), (4, 4), class_token), table, atol=1e-5)


def started(folder, image_size, begin=None, **changes):
    """The state that a run of a masked autoencoder in 4-pixel patches starts from; saved in `folder`."""
    model = dict(name="vit", norm="pre", image_size=image_size, channels=1, patch_size=4, width=16, pool="mean")
    objective = dict(name="masked_image", mask_rate=0.5, decoder_width=8, decoder_layers=1, decoder_heads=2)
    groups = {"model": model, "objective": objective, "data": {"source": "images"}}
    fields = {f"{group}__{name}": value for group, values in groups.items() for name, value in values.items()}
    config = tiny_config(**(fields | {"init__from": begin and str(begin)} | changes))
    e = build.experiment(config, devices=jax.devices()[: config.mesh.fsdp])
    checkpoints = Checkpoints(folder, best_metric="validation/loss")
    state = restore.starting_state(e, checkpoints, None)
    checkpoints.save(state, {}, None)
    checkpoints.close()
    return state


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """(folder, parameters) of a run on images of 8 pixels."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    return folder, started(folder, 8).params


def test_a_run_starts_from_one_of_another_image_size(small, tmp_path):
    folder, params = small
    large = started(tmp_path / "large", 16, folder, seed=1, mesh__fsdp=2, mesh__rules="fsdp").params
    expected = resize_positions(params["position"]["embedding"], (2, 2), (4, 4), True)
    np.testing.assert_allclose(large["position"]["embedding"], expected, rtol=1e-5, atol=1e-6)
    for name in ("patch", "class_token", "encoder", "decoder"):
        jax.tree.map(np.testing.assert_array_equal, large[name], params[name])
    assert ("fsdp", "context") in large["position"]["embedding"].sharding.spec


def test_a_model_adapts_nothing_but_positions_of_its_kind():
    model = Vit(vit_config())
    assert model.adapter("position/embedding", (1 + 9, 12)) and not model.adapter("position/embedding", (9, 12))
    assert not model.adapter("position/embedding", (1 + 9, 8)) and not model.adapter("patch/kernel", (1 + 9, 12))
    assert not model.adapter("position/embedding", (1, 12))


def test_another_shape_that_nothing_adapts_is_refused(small, tmp_path):
    with pytest.raises(UserError, match=r"patch/kernel is float32\[16, 16\] there, float32\[48, 16\] here"):
        started(tmp_path / "large", 16, small[0], model__channels=3)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"patch_size": 3}, "patch_size 3 does not divide the 8 pixels"),
        ({"patch_size": 0}, "patch_size 0"),
        ({"class_token": False}, "has no first token"),
        ({"pool": "last"}, "has no last token"),
        ({"positions": "rotary"}, "learned or sincos"),
        ({"attention_pattern": ("dense", "local")}, "all dense"),
        ({"positions": "sincos", "width": 6}, "multiple of 4"),
        ({"heads": 5}, "does not divide over model.heads"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        vit_config(**changes)


@pytest.mark.parametrize("name", ["B", "B/", "b/16", "XL/16", "B/0", "B/16/2", ""])
def test_an_unknown_variant_is_refused(name):
    with pytest.raises(UserError, match="name a size, one of Ti, S"):
        variant(name)
