import re

import numpy as np
import pytest
from PIL import Image

from research.core.errors import UserError
from research.reports.contact_sheet import contact_sheet, grid, marked, page

COLUMNS, CAPTIONS = ("epoch 0", "epoch 1"), ("boot", "<b>sandal</b>")


@pytest.mark.parametrize(
    "original, variant, found",
    [
        ("the cat sat", "the cat sat", "the cat sat"),
        ("the cat sat", "the tom cat sat", "the <ins>tom</ins> cat sat"),
        ("the cat sat", "the sat", "the <del>cat</del> sat"),
        ("the cat sat", "the feline sat", "the <del>cat</del> <ins>feline</ins> sat"),
        ("a b c d e", "a [MASK] e", "a <del>b c d</del> <ins>[MASK]</ins> e"),
        ("a < b & c", "a < é & c", "a &lt; <del>b</del> <ins>é</ins> &amp; c"),
        ("", "new", "<ins>new</ins>"),
        ("gone", "", "<del>gone</del>"),
        ("", "", ""),
    ],
)
def test_words_that_came_and_went_are_marked(original, variant, found):
    assert marked(original, variant) == found


def test_texts_become_a_page_that_needs_nothing_beside_it(tmp_path):
    contact_sheet(["the cat sat", "a <b> dog"], [["the sat", "the cat"], ["a dog", "漢字 🙂"]], COLUMNS, CAPTIONS, tmp_path / "aug.html")
    found = (tmp_path / "aug.html").read_text(encoding="utf-8")
    assert found.startswith("<!doctype html>") and 'charset="utf-8"' in found and not re.search(r"(src|href)=|<script|@import|url\(", found)
    cells = re.findall(r"<td[^>]*>(.*)</td><td>(.*)</td></tr>", found)
    assert cells == [
        ("boot", "the cat sat"),
        ("epoch 0", "the <del>cat</del> sat"),
        ("epoch 1", "the cat <del>sat</del>"),
        ("&lt;b&gt;sandal&lt;/b&gt;", "a &lt;b&gt; dog"),
        ("epoch 0", "a <del>&lt;b&gt;</del> dog"),
        ("epoch 1", "<del>a &lt;b&gt; dog</del> <ins>漢字 🙂</ins>"),
    ]


@pytest.mark.parametrize("channels", [1, 3])
def test_images_stand_beside_what_became_of_them(channels, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 4, channels)).astype(np.uint8)  # (example, original and variants, H, W, C)
    figure = grid(images[:, 0], images[:, 1:], COLUMNS, CAPTIONS)
    shown = np.array([axis.get_images()[0].get_array() for axis in figure.axes]).reshape(2, 3, 5, 4, 3)
    np.testing.assert_array_equal(shown, np.broadcast_to(images, shown.shape))
    assert [axis.get_title() for axis in figure.axes] == ["original", *COLUMNS, "", "", ""]
    assert [axis.get_ylabel() for axis in figure.axes] == ["boot", "", "", "<b>sandal</b>", "", ""]
    contact_sheet(images[:, 0], images[:, 1:], COLUMNS, CAPTIONS, tmp_path / "aug.png")
    with Image.open(tmp_path / "aug.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    seen = {tuple(map(int, color)) for color in np.unique(pixels, axis=0)}
    assert {tuple(map(int, color)) for color in shown.reshape(-1, 3)} <= seen, "every pixel is there, in its colour"


def test_an_example_with_a_variant_too_few_is_refused():
    with pytest.raises(ValueError):
        page(["a"], [["b"]], COLUMNS, ("",))


@pytest.mark.parametrize("originals, name", [(["a"], "a.png"), ([np.zeros((2, 2, 1), np.uint8)], "a.html"), (["a"], "a")])
def test_a_file_of_the_other_kind_is_refused(originals, name, tmp_path):
    with pytest.raises(UserError, match="is a file that ends in "):
        contact_sheet(originals, [originals], ("epoch 0",), ("",), tmp_path / name)
    assert not list(tmp_path.iterdir())
