import json

import numpy as np
import pytest
from PIL import Image

from research.data import emoji
from research.data.emoji import Emoji
from research.data.images import Images
from research.data.records import Records


def entry(x, y, name, category):
    return {"unified": f"{x}-{y}", "name": name, "category": category, "sheet_x": x, "sheet_y": y}


def all_of(records):
    return [records[i] for i in range(len(records))]


def test_pictures_are_cut_from_the_sheet_and_laid_on_white(tmp_path, monkeypatch):
    """A sheet of two by two: each picture is clear but for one pixel in a corner; the borders are red."""
    sheet = np.zeros((68, 68, 4), np.uint8)
    sheet[:] = (255, 0, 0, 255)
    listing = [entry(x, y, f"NAME {x}: {y}-Ö’S", "Flags" if x else "Symbols") for x in (0, 1) for y in (0, 1)]
    for place in listing:
        x, y = (place[axis] * 34 + 1 for axis in ("sheet_x", "sheet_y"))
        sheet[y : y + 32, x : x + 32] = 0
        sheet[y, x] = (0, 0, 100 + place["sheet_x"] + 2 * place["sheet_y"], 255)
    Image.fromarray(sheet).save(tmp_path / "sheet.png")
    (tmp_path / "emoji.json").write_text(json.dumps(listing))
    monkeypatch.setattr(emoji, "package_members", lambda *_: [tmp_path / "sheet.png", tmp_path / "emoji.json"])
    monkeypatch.setattr(emoji, "is_held_out", lambda name: name.startswith("name 1"))
    builder = Emoji(data_dir=str(tmp_path / "tfds"), file_format="array_record")
    found = [(split, example) for split in ("train", "validation") for example in all_of(Records(builder, split, {}))]
    assert len(found) == 4
    for split, example in found:
        x, y = (int(digit) for digit in example["text"].decode()[5:8].split())
        assert example["text"].decode() == f"name {x} {y} ö’s" and split == ("validation" if x else "train")
        assert builder.info.features["label"].names[example["label"]] == ("Flags" if x else "Symbols")
        assert (example["image"][0, 0] == (0, 0, 100 + x + 2 * y)).all()
        assert (example["image"].reshape(-1, 3)[1:] == 255).all()


@pytest.mark.slow
def test_the_published_emoji(cache):
    builder = Emoji(data_dir=str(cache / "tfds"), file_format="array_record")
    train, validation = (Records(builder, split, {"image_field": ("image", "image")}) for split in ("train", "validation"))
    assert (len(train), len(validation)) == (1716, 195)
    names = [{example["text"] for example in all_of(split)} for split in (train, validation)]
    assert not names[0] & names[1] and b"guitar" in names[0] | names[1]
    means = [Images(train, "image", 32, 3, None).image(i, train[i], None).mean() for i in range(0, 1716, 50)]
    assert 100 < min(means) and max(means) < 255  # on white, and none is empty
