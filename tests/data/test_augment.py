import numpy as np
import pytest
from PIL import Image

from research.core.errors import UserError
from research.data import augment
from research.data.augment import Augmentation


@pytest.fixture(params=["L", "RGB"])
def image(request):
    """A picture of no symmetry, of 20 by 16 pixels."""
    rng = np.random.default_rng(0)
    array = rng.integers(0, 256, (4, 5) + ((3,) if request.param == "RGB" else ())).astype(np.uint8)
    return Image.fromarray(array.repeat(4, 0).repeat(4, 1))


def pixels(image):
    return np.asarray(image).astype(int)


ALL = Augmentation(crop_area=0.3, flip=True, randaugment_layers=2, randaugment_magnitude=15, color_jitter=1.0)


def test_an_augmentation_depends_on_its_generator_alone(image):
    before = pixels(image)
    one, same, other = (ALL(image, 8, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert one.size == (8, 8) and one.mode == image.mode
    assert (pixels(one) == pixels(same)).all() and (pixels(one) != pixels(other)).any()
    assert (pixels(image) == before).all()


def test_without_augmentation_it_is_what_evaluation_sees(image):
    assert not Augmentation().changes and ALL.changes
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
        for i, operation in enumerate(augment.OPERATIONS):
            result = operation(image, strength, 1)
            assert result.size == image.size and result.mode == image.mode
            if (pixels(result) != pixels(image)).any():
                found.append(i)
    fixed = {0, 1, 2}
    assert set(changed[0]) <= fixed
    grey = {5} if image.mode == "L" else set()  # a grey image has no colour to change
    assert set(changed[1]) - fixed == set(range(14)) - fixed - grey


def test_randaugment_draws_all_operations(image, monkeypatch):
    drawn = []
    operations = tuple(lambda image, strength, sign, i=i: drawn.append((i, strength, sign)) or image for i in range(14))
    monkeypatch.setattr(augment, "OPERATIONS", operations)
    rng = np.random.default_rng(0)
    for _ in range(100):
        augment.randaugment(image, rng, 2, 15)
    assert len(drawn) == 200 and {i for i, _, _ in drawn} == set(range(14))
    assert {(strength, sign) for _, strength, sign in drawn} == {(0.5, 1), (0.5, -1)}


@pytest.mark.parametrize(
    "field, value", [("crop_area", 0.0), ("crop_area", 1.5), ("color_jitter", -1.0), ("randaugment_magnitude", 31), ("randaugment_layers", -1)]
)
def test_values_out_of_range_are_refused(field, value):
    with pytest.raises(UserError, match=f"data.{field} {value} "):
        Augmentation(**{field: value})
