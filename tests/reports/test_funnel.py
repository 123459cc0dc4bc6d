"""What a manifest says, as a table, a picture and a page."""

import base64
import html
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from research.core.errors import UserError
from research.reports import funnel


def png() -> str:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def rule(name, documents_in, documents_out, **more):
    counts = dict(
        documents_in=documents_in,
        documents_out=documents_out,
        documents_changed=1,
        characters_in=10 * documents_in,
        characters_out=10 * documents_out,
    )
    return {"rule": name, **counts, "why": {}, "dropped": [], "changed": [], **more}


@pytest.fixture
def manifest():
    like = {"key": "a:1", "text": "the <first> one"}
    dropped = [{"key": "a:2", "why": "like it", "text": "a & copy", "like": like}, {"key": "a:3", "why": "like it", "image": png()}]
    changed = [{"key": "a:4", "before": "cafÃ©", "after": "café"}]
    rules = [rule("fields", 1000, 900, why={"text is missing": 60, "malformed": 40}), rule("near", 900, 450, dropped=dropped, changed=changed)]
    rules[1]["evaluation_sets"] = {"sst2:test:text": {"examples": 1821, "too_short": 240, "hit": 17}}
    made = {"name": "mine", "version": "1.0.0", "rules": rules, "splits": {"train": 400, "validation": 50}, "recipe": {"seed": 0}}
    return made | {"input": [{"name": "in.jsonl", "sha256": "12ab"}], "output": {"mine-train": "34cd"}, "versions": {"ftfy": "6.3.1"}}


def test_a_row_says_what_came_what_left_and_why_most_frequent_first(manifest):
    header, body = funnel.rows(manifest)
    assert dict(zip(header[:4], (cell.text for cell in body[0]))) == {"rule": "fields", "documents in": "1,000", "out": "900", "dropped": "100"}
    assert body[0][-1].text == "text is missing: 60; malformed: 40"


def test_the_page_needs_nothing_beside_it_and_shows_examples(manifest, tmp_path):
    funnel.write(manifest, tmp_path)
    page = (tmp_path / "index.html").read_text()
    for shown in (
        "400 for train, 50 for validation",
        "a & copy",
        "the <first> one",
        "like a:1",
        "cafÃ©",
        "café",
        "in.jsonl",
        "12ab",
        "34cd",
        "6.3.1",
    ):
        assert html.escape(shown) in page
    assert f'src="data:image/png;base64,{png()}"' in page
    assert "<first>" not in page and 'src="funnel' not in page
    assert page.count("data:image/png") == 2  # the plot is in it too


def test_the_page_says_how_many_examples_of_evaluation_sets_were_found(manifest, tmp_path):
    funnel.write(manifest, tmp_path)
    row = "".join(rf"<td[^>]*>{cell}</td>\s*" for cell in ("sst2:test:text", "1,821", "240", "17"))
    assert re.search(row, (tmp_path / "index.html").read_text())


def test_bars_are_as_long_as_what_is_left(manifest, tmp_path):
    """The second rule leaves less than half of the input: right of the middle its bar is grey, that of the first is dark."""
    funnel.funnel(manifest, tmp_path / "funnel.png")
    with Image.open(tmp_path / "funnel.png") as image:
        dark = np.all(np.abs(np.asarray(image.convert("RGB")).astype(int) - [0x31, 0x68, 0x8E]) < 12, axis=-1)
    rows = dark[:, : dark.shape[1] // 2].sum(1)
    bars = [length for before, length in zip(np.r_[0, rows], rows) if length > 50 and before <= 50]
    assert len(bars) == 3
    assert bars[1] / bars[0] == pytest.approx(0.9, abs=0.08) and bars[2] / bars[0] == pytest.approx(0.45, abs=0.08)


def test_a_manifest_that_cannot_be_read_is_named(manifest, tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert funnel.read_manifest(tmp_path) == manifest
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="manifest.json cannot be read"):
        funnel.read_manifest(tmp_path)
