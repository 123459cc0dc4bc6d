import io
import sys

import numpy as np
import pytest
from PIL import Image

from research import build, tables
from research.core.errors import UserError
from research.data import images
from research.data.corpus import Corpus
from tests.tiny import tiny_config
from tests.tiny_images import COLORS, SHAPES, png

WHITE = 255


def config(**changes):
    model = {"model__name": "vit", "model__patch_size": 4, "model__image_size": 8, "model__channels": 3}
    given = {"data__name": "tests.tiny_images:TinyImages", "data__length": 16} | model
    return tiny_config(**(given | changes))


def examples(source, split="train", training=True, vocab_size=None, **changes):
    c = config(**changes)
    return tables.SOURCES[source](c, Corpus(c, tables.DATASETS, vocab_size, None), split, c.data.length, training)


def test_labelled_images_are_read_without_tensorflow(cache):
    found = examples("labelled_images", "validation", training=False)
    assert len(found) == 18 and "tensorflow" not in sys.modules
    assert found.manifest == {"images": "tiny_images/1.0.0:validation", "number_of_images": 18, "augmentation": None, "labels": list(COLORS)}
    for i in range(18):
        example = found.example(i, np.random.default_rng(0))
        assert example["image"].shape == (8, 8, 3) and example["image"].dtype == np.uint8 and example["label"].dtype == np.int32
        darkest = example["image"].reshape(-1, 3)[example["image"].sum(-1).argmin()]
        assert darkest.argmax() == example["label"]  # the label is the colour


def test_a_stored_image_is_the_bytes_of_its_file(cache):
    c = config()
    record = Corpus(c, tables.DATASETS, None, None).records("train", image_field="image")[0]
    assert record["image"].startswith(b"\x89PNG")


def test_a_data_set_prepared_elsewhere_is_read_by_its_tfds_name(cache):
    """As cifar10 or imagenet2012 is: only the folder it was prepared in is known here, and its images are files."""
    ours = examples("labelled_images", training=False)
    read = examples("labelled_images", training=False, data__name="tiny_images", data__dir=str(cache / "tfds"))
    assert len(read) == len(ours) == 48 and read.manifest == ours.manifest
    for i in range(48):
        one, other = ours.example(i, None), read.example(i, None)
        assert one["label"] == other["label"] and (one["image"] == other["image"]).all()


def test_only_training_is_augmented(cache):
    changes = {"data__crop_area": 0.3, "data__flip": True}
    draw = lambda found, seed: found.example(0, np.random.default_rng(seed))["image"]
    training, evaluation = (examples("labelled_images", training=training, **changes) for training in (True, False))
    assert (draw(training, 0) == draw(training, 0)).all() and (draw(training, 0) != draw(training, 1)).any()
    assert (draw(evaluation, 0) == draw(evaluation, 1)).all()
    assert training.manifest["augmentation"]["crop_area"] == 0.3


def test_grey_models_see_grey(cache):
    image = examples("labelled_images", training=False, model__channels=1).example(0, None)["image"]
    assert image.shape == (8, 8, 1)
    with pytest.raises(UserError, match="model.channels is 2"):
        examples("labelled_images", model__channels=2)


def test_two_views_differ_in_training_and_evaluation_and_are_the_same_each_time(cache):
    changes = {"data__crop_area": 0.3, "data__color_jitter": 0.5}
    for training in (True, False):
        found = examples("image_views", training=training, **changes)
        one, again = (found.example(3, np.random.default_rng(7)) for _ in range(2))
        assert one.keys() == {"first/image", "second/image"} and one["first/image"].shape == (8, 8, 3)
        assert all((one[name] == again[name]).all() for name in one) and (one["first/image"] != one["second/image"]).any()
    with pytest.raises(UserError, match="two views of an image would be the same"):
        examples("image_views")


def test_images_have_their_texts(cache):
    tower = {"name": "vit", "image_size": 6, "patch_size": 3, "channels": 1}
    c = config(model__name="two_tower", **{f"model__first__{name}": value for name, value in tower.items()})
    corpus = Corpus(c, tables.DATASETS, 64, None)
    found = tables.SOURCES["image_text"](c, corpus, "train", 16, False)
    texts = set()
    for i in range(len(found)):
        example = found.example(i, None)
        assert example["first/image"].shape == (6, 6, 1)  # as the first tower takes it
        tokens, mask = example["second/tokens"], example["second/mask"]
        assert tokens.shape == mask.shape == example["second/token_types"].shape == (16,) and tokens.dtype == np.int32 and mask.dtype == bool
        assert (tokens[~mask] == corpus.vocabulary.pad).all()
        assert (tokens[mask][0], tokens[mask][-1]) == (corpus.vocabulary.cls, corpus.vocabulary.sep)
        texts.add(corpus.tokenizer.decode(tokens[mask].tolist()))
    assert texts == {f"a {color} {shape}" for color in COLORS for shape in SHAPES}
    turned = config(model__name="two_tower", **{f"model__second__{name}": value for name, value in tower.items()})
    other = tables.SOURCES["image_text"](turned, corpus, "train", 16, False).example(0, None)
    np.testing.assert_array_equal(other["second/image"], found.example(0, None)["first/image"])
    np.testing.assert_array_equal(other["first/tokens"], found.example(0, None)["second/tokens"])


def test_the_towers_must_match_the_source(cache):
    tower = {"name": "vit", "image_size": 8, "patch_size": 4, "channels": 3}
    both = {f"model__{view}__{name}": value for view in ("first", "second") for name, value in tower.items()}
    changes = {"data__crop_area": 0.5, "model__name": "two_tower"} | both
    assert examples("image_views", **changes).example(0, np.random.default_rng(0))["second/image"].shape == (8, 8, 3)
    with pytest.raises(UserError, match="gives images of one size, the model takes 8 x 8 of 3 channels and 12 x 12 of 3 channels"):
        examples("image_views", **changes | {"model__second__image_size": 12})
    for unfit in (changes, {}):
        with pytest.raises(UserError, match="image_text is for two towers, of which one takes images and one text"):
            examples("image_text", data__source="image_text", **unfit)


def test_a_long_text_keeps_the_token_that_ends_it(cache):
    c = config()
    corpus = Corpus(c, tables.DATASETS, 64, None)
    pictures = tables.images_of(c, corpus, "train", False, text_field="text")
    whole, short = (images.ImageText(pictures, "text", corpus.tokenizer, corpus.vocabulary, length).example(0, None) for length in (16, 4))
    assert whole["second/mask"].sum() == 5 and short["second/mask"].all()
    assert (short["second/tokens"][:3] == whole["second/tokens"][:3]).all() and short["second/tokens"][3] == corpus.vocabulary.sep


def test_texts_want_an_objective_of_text(cache):
    with pytest.raises(UserError, match="data.source=image_text gives text"):
        tower = {"name": "vit", "image_size": 8, "patch_size": 4}
        examples(
            "image_text", data__source="image_text", model__name="two_tower", **{f"model__first__{name}": value for name, value in tower.items()}
        )


def test_a_feature_that_is_not_there_is_named(cache):
    with pytest.raises(UserError, match="data.image_field is 'picture'.*image"):
        examples("labelled_images", data__image_field="picture")


def test_a_file_that_is_cut_off_is_named(tmp_path):
    whole = png(np.random.default_rng(0).integers(0, 256, (20, 20, 3)).astype(np.uint8))
    path = tmp_path / "a.png"
    path.write_bytes(whole)
    assert images.read_image(path, 8, 3).shape == (8, 8, 3)
    for damaged in (whole[: len(whole) // 2], whole[:10], b"", b"no image"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="a.png cannot be decoded"):
            images.read_image(path, 8, 3)
    with pytest.raises(UserError, match="there is no image .*b.png"):
        images.read_image(tmp_path / "b.png", 8, 3)


@pytest.mark.parametrize(
    "mode, color, grey", [("L", 77, 77), ("RGB", (200, 100, 50), 124), ("CMYK", (0, 0, 0, 0), WHITE), ("1", 1, WHITE), ("P", 0, 0)]
)
def test_every_mode_becomes_what_the_model_takes(mode, color, grey):
    file = io.BytesIO()
    Image.new(mode, (4, 4), color).save(file, "TIFF")
    for channels in (1, 3):
        found = images.to_array(images.decode(file.getvalue(), channels, "it"))
        assert found.shape == (4, 4, channels) and found.dtype == np.uint8
        if channels == 1 or mode != "RGB":
            assert (found == grey).all()


def test_what_is_transparent_is_white():
    for mode, clear in (("RGBA", (9, 9, 9, 0)), ("LA", (9, 0))):
        file = io.BytesIO()
        Image.new(mode, (4, 4), clear).save(file, "PNG")
        assert (images.to_array(images.decode(file.getvalue(), 3, "it")) == WHITE).all()


def test_arrays_of_another_kind_are_refused():
    for array in (np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4), np.uint8)):
        with pytest.raises(UserError, match="image 3 of x is .*height, width"):
            images.decode(array, 3, "image 3 of x")
    file = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(file, "PNG")
    with pytest.raises(UserError, match="more than 8 bits"):
        images.decode(file.getvalue(), 1, "it")


def test_as_many_classes_as_the_data_has(cache, monkeypatch):
    c = config(objective__name="tests.data.test_images:Counting", objective__classes=4)
    corpus = Corpus(c, tables.DATASETS, None, None)
    with pytest.raises(UserError, match="TinyImages has 3 labels .red, green, blue.*classes is 4"):
        build.check_classes(c, corpus)
    build.check_classes(config(objective__name="tests.data.test_images:Counting", objective__classes=3), corpus)
    build.check_classes(config(objective__classes=4), corpus)  # an objective without classes


@build.dataclasses.dataclass(frozen=True)
class Counting:
    classes: int
