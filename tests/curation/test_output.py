"""The data set that comes out."""

import io

import numpy as np
import pytest
from PIL import Image
from tensorflow_datasets.core import read_only_builder

from research.core.errors import UserError
from research.curation.output import Output


def png(color) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (3, 2), (color, 0, 0)).save(file, "PNG")
    return file.getvalue()


def output(folder, **more) -> Output:
    fields = dict(folder=folder / "mine" / "1.0.0", name="mine", shards=2, fields=("text", "image", "label", "score"), numbers=("score",), label="label")
    fields |= dict(classes=("bad", "good"), validation=0.2, test=0.1, split_by="key") | more
    fields["folder"].mkdir(parents=True, exist_ok=True)
    return Output(**fields)


def test_a_data_set_without_fields_is_refused(tmp_path):
    with pytest.raises(UserError, match="output.fields is empty"):
        output(tmp_path, fields=(), label=None)


def documents(count, start=0):
    return [
        {"key": f"k{i}", "text": f"é {i}", "image": png(i % 256), "label": ("bad", "good")[i % 2], "score": i / 2, "other": [1]} for i in range(start, start + count)
    ]


def test_text_image_label_and_number_come_back_from_three_splits(tmp_path):
    made = output(tmp_path)
    sizes = [made.write(shard, iter(documents(100, 100 * shard))) for shard in range(2)]
    made.finish(sizes, "A test.")
    builder = read_only_builder.builder_from_files("mine", data_dir=str(tmp_path))
    assert builder.info.features["label"].names == ["bad", "good"] and builder.info.features["score"].np_dtype == np.float32
    found = {}
    for split in ("train", "validation", "test"):
        source = builder.as_data_source(split=split)
        assert len(source) == sizes[0][split] + sizes[1][split]
        assert builder.info.splits[split].num_bytes == sum(path.stat().st_size for path in made.folder.glob(f"mine-{split}.*"))
        found[split] = {example["key"].decode(): example for example in source}
    assert 120 < len(found["train"]) < 160 and 20 < len(found["validation"]) < 60 and 8 < len(found["test"]) < 40
    everything = {key: example for split in found.values() for key, example in split.items()}
    assert len(everything) == 200  # none is in two
    assert everything["k7"]["text"].decode() == "é 7" and everything["k7"]["label"] == 1 and everything["k7"]["score"] == 3.5
    assert everything["k7"]["image"].shape == (2, 3, 3) and everything["k7"]["image"][0, 0].tolist() == [7, 0, 0]


def test_documents_with_the_same_value_stay_together(tmp_path):
    made = output(tmp_path, split_by="group")
    split = {group: {made.split_of({"key": str(i), "group": group}) for i in range(5)} for group in range(100)}
    assert all(len(splits) == 1 for splits in split.values())
    assert set().union(*split.values()) == {"train", "validation", "test"}


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("label", "fine", "the label 'fine' of the document k1 is none of bad, good"),
        ("label", 2, "the label 2 of the document k1 is none of bad, good"),
        ("score", "many", "score of the document k1 is no number"),
        ("text", 3, "text of the document k1 is '3', which is no text; numbers are named in fields.numbers"),
        ("image", "http://a.b/c.png", "image of the document k1 is 'http://a.b/c.png', which is no image"),
        ("text", None, "the document k1 has no 'text'; it has key, text, image, label, score, other"),
    ],
)
def test_what_does_not_fit_its_field_is_one_line(tmp_path, field, value, message):
    with pytest.raises(UserError, match=message):
        output(tmp_path).write(0, iter(documents(1) + [documents(2)[1] | {field: value}]))


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(validation=0.6, test=0.5), "together less than 1"),
        (dict(validation=-0.1), "together less than 1"),
        (dict(classes=()), "name its classes as output.classes"),
        (dict(fields=("text",)), "output.label_field is 'label', which output.fields has not"),
    ],
)
def test_outputs_that_cannot_be_are_refused(tmp_path, wrong, message):
    with pytest.raises(UserError, match=message):
        output(tmp_path, **wrong)
