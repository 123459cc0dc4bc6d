import itertools

import numpy as np
import pytest
from PIL import Image

from research.core import config as config_lib
from research.core.errors import UserError
from research.data import augment
from research.data.augment import Augmentation
from tests.tiny import tiny_config


@pytest.fixture(params=["L", "RGB"])
def image(request):
    """A picture of no symmetry, of 20 by 16 pixels."""
    rng = np.random.default_rng(0)
    array = rng.integers(0, 256, (4, 5) + ((3,) if request.param == "RGB" else ())).astype(np.uint8)
    return Image.fromarray(array.repeat(4, 0).repeat(4, 1))


def pixels(image):
    return np.asarray(image).astype(int)


ALL = Augmentation(crop_area=0.3, flip=True, randaugment_layers=2, randaugment_magnitude=15, augmix_severity=3, color_jitter=1.0, erasing=0.5)


def test_an_augmentation_depends_on_its_generator_alone(image):
    before = pixels(image)
    one, same, other = (ALL(image, 8, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert one.size == (8, 8) and one.mode == image.mode
    assert (pixels(one) == pixels(same)).all() and (pixels(one) != pixels(other)).any()
    assert (pixels(image) == before).all()


def test_without_augmentation_it_is_what_evaluation_sees(image):
    assert not Augmentation().changes and ALL.changes and Augmentation(erasing=0.1).changes and Augmentation(augmix_severity=1).changes
    assert (pixels(Augmentation()(image, 16, None)) == pixels(augment.fit(image, 16))).all()


def test_the_largest_square_in_the_middle_is_fitted(image):
    assert (pixels(augment.fit(image, 16)) == pixels(image)[:, 2:18]).all()


def test_a_crop_has_the_area_and_shape_of_the_paper():
    """Where each pixel tells where it is, the corners of a crop tell what was cut out."""
    y, x = np.mgrid[:200, :250]
    image = Image.fromarray(np.stack([x, y, 0 * x], -1).astype(np.uint8))
    rng = np.random.default_rng(0)
    areas, aspects = [], []
    for _ in range(300):
        cut = pixels(augment.random_resized_crop(image, rng, 100, 0.25))
        width, height = (np.ptp(cut[:, :, 0]) + 1, np.ptp(cut[:, :, 1]) + 1)
        areas.append(width * height / (200 * 250))
        aspects.append(width / height)
    assert 0.23 < min(areas) < 0.3 and 0.85 < max(areas) <= 1 and 0.5 < np.mean(areas) < 0.65
    assert 0.72 < min(aspects) < 0.8 and 1.25 < max(aspects) < 1.38


def test_half_of_the_images_are_mirrored(image):
    mirrored, rng = pixels(image)[:, ::-1], np.random.default_rng(0)
    flips = [(pixels(augment.random_flip(image, rng)) == mirrored).all() for _ in range(400)]
    assert 0.42 < np.mean(flips) < 0.58


def test_hue_turns_by_a_third():
    red = Image.new("RGB", (1, 1), (250, 10, 10))
    assert np.abs(pixels(augment.turn_hue(red, 1 / 3))[0, 0] - (10, 250, 10)).max() <= 8
    assert np.abs(pixels(augment.turn_hue(red, -1 / 3))[0, 0] - (10, 10, 250)).max() <= 8


def test_color_is_left_alone_taken_away_or_moved_as_often_as_in_simclr():
    image, rng = Image.new("RGB", (2, 2), (180, 90, 40)), np.random.default_rng(0)
    seen = [pixels(augment.color_jitter(image, rng, 0.5)) for _ in range(1000)]
    assert 0.13 < np.mean([(x == pixels(image)).all() for x in seen]) < 0.19  # 0.2 * 0.8
    assert 0.17 < np.mean([np.ptp(x[0, 0]) == 0 for x in seen]) < 0.25


def test_jitter_is_no_stronger_than_asked():
    image, rng = Image.new("L", (2, 2), 100), np.random.default_rng(0)
    seen = [pixels(augment.color_jitter(image, rng, 0.25))[0, 0] for _ in range(500)]  # contrast leaves what is all alike
    assert 79 <= min(seen) < 85 and 115 < max(seen) <= 121


def test_each_operation_of_randaugment_grows_with_its_strength(image):
    """Identity, autocontrast and equalize have no strength; of strength 0 the others change nothing, of full strength all do."""
    changed = {strength: [] for strength in (0, 1)}
    for strength, found in changed.items():
        for name, operation in augment.OPERATIONS.items():
            result = operation(image, strength, 1)
            assert result.size == image.size and result.mode == image.mode
            if (pixels(result) != pixels(image)).any():
                found.append(name)
    fixed = {"identity", "autocontrast", "equalize"}
    assert set(changed[0]) <= fixed
    grey = {"color"} if image.mode == "L" else set()  # a grey image has no colour to change
    assert len(augment.OPERATIONS) == 14 and set(changed[1]) - fixed == set(augment.OPERATIONS) - fixed - grey


def test_randaugment_draws_all_operations(image, monkeypatch):
    drawn = recorded(monkeypatch)
    rng = np.random.default_rng(0)
    for _ in range(100):
        augment.randaugment(image, rng, 2, 15)
    assert len(drawn) == 200 and {name for name, _, _ in drawn} == set(augment.OPERATIONS)
    assert {(strength, sign) for _, strength, sign in drawn} == {(0.5, 1), (0.5, -1)}


def recorded(monkeypatch, result=lambda image: image):
    """A list of (name, strength, sign) of each operation from now on, all of which give `result`."""
    drawn = []
    operation = lambda name: lambda image, strength, sign: drawn.append((name, strength, sign)) or result(image)
    monkeypatch.setattr(augment, "OPERATIONS", {name: operation(name) for name in augment.OPERATIONS})
    return drawn


def test_augmix_draws_chains_of_one_to_three_of_its_operations(image, monkeypatch):
    drawn, rng, lengths = recorded(monkeypatch), np.random.default_rng(0), []
    for _ in range(300):
        before = len(drawn)
        assert (pixels(augment.augmix(image, rng, 1, 4)) == pixels(image)).all(), "of one and the same image the mixture is that"
        lengths.append(len(drawn) - before)
    assert np.bincount(lengths)[1:] == pytest.approx([100, 100, 100], abs=25)
    assert (
        {name for name, _, _ in drawn}
        == set(augment.AUGMIX)
        == set(augment.OPERATIONS) - {"identity", "color", "contrast", "brightness", "sharpness"}
    )
    strengths = [strength for _, strength, _ in drawn]
    assert 0 <= min(strengths) < 0.01 and 0.39 < max(strengths) <= 0.4 and np.mean(strengths) == pytest.approx(0.2, abs=0.01)


def test_augmix_mixes_the_image_with_a_mixture_of_its_chains(monkeypatch):
    """The image is black, and of two chains one ends white: then what comes is its weight, uniform, times what is not of the image, uniform too."""
    black, white, rng = Image.new("L", (1, 1), 0), Image.new("L", (1, 1), 255), np.random.default_rng(0)
    ends = itertools.cycle((white, black.copy()))
    recorded(monkeypatch, lambda image: next(ends) if image is black else image)
    seen = np.array([pixels(augment.augmix(black, rng, 2, 3))[0, 0] for _ in range(2000)]) / 255
    below = lambda x: x * (1 - np.log(x))  # how often the product of two uniform numbers is less than x
    assert [np.mean(seen < x) for x in (0.1, 0.3, 0.5, 0.8)] == pytest.approx([below(x) for x in (0.1, 0.3, 0.5, 0.8)], abs=0.03)


def test_an_erased_rectangle_has_the_area_and_shape_of_the_paper():
    """On white, which noise is not but once in 256^3."""
    image, rng, areas, aspects, corners = Image.new("RGB", (200, 100), "white"), np.random.default_rng(0), [], [], []
    for _ in range(400):
        erased = (pixels(augment.random_erasing(image, rng, 1.0)) < 255).any(-1)
        rows, columns = np.flatnonzero(erased.any(1)), np.flatnonzero(erased.any(0))
        assert erased[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean() > 0.999, "a rectangle"
        areas.append(len(rows) * len(columns) / 20_000)
        aspects.append(len(rows) / len(columns))
        corners.append((rows[0], columns[0]))
    assert 0.018 < min(areas) < 0.03 and 0.33 < max(areas) < 0.41 and 0.28 < min(aspects) < 0.4 and 2.5 < max(aspects) < 3.5
    assert np.ptp(corners, axis=0) == pytest.approx([90, 180], abs=12), "anywhere"


def test_images_are_erased_at_the_rate_asked_for_with_noise_of_their_mode(image):
    rng, before = np.random.default_rng(0), pixels(image)
    seen = [pixels(augment.random_erasing(image, rng, 0.25)) for _ in range(800)]
    assert np.mean([(x != before).any() for x in seen]) == pytest.approx(0.25, abs=0.04) and seen[0].shape == before.shape
    noise = pixels(augment.random_erasing(Image.new(image.mode, (400, 400)), rng, 1.0))
    values = noise[noise > 0]
    assert values.max() == 255 and values.mean() == pytest.approx(128, abs=3)
    assert augment.random_erasing(Image.new("L", (1, 1)), rng, 1.0).size == (1, 1), "of one pixel too"


@pytest.mark.parametrize(
    "field, value",
    [
        ("crop_area", 0.0),
        ("crop_area", 1.5),
        ("color_jitter", -1.0),
        ("randaugment_magnitude", 31),
        ("randaugment_magnitude", -1),
        ("randaugment_layers", -1),
        ("augmix_severity", 10.5),
        ("augmix_severity", -1.0),
        ("augmix_width", 0),
        ("erasing", 1.5),
    ],
)
def test_values_out_of_range_are_refused(field, value):
    with pytest.raises(UserError, match=f"config.data.{field} is {value}: it must "):
        config_lib.check_fields(tiny_config(**{f"data__{field}": value}))
