"""What is counted of documents at a rule."""

import base64
import io
import random

import pytest
from PIL import Image

from research.curation.documents import Dropped
from research.curation.tally import EXCERPT, KEPT, THUMBNAIL, Tally, added, told


def dropped(documents, **more) -> dict:
    tally = Tally("rule")
    for document in documents:
        tally.count(document, Dropped("why", **more))
    return tally.result()


def texts(count):
    return [{"key": str(i), "text": "x" * i} for i in range(count)]


def test_the_same_ten_examples_are_told_whoever_counted():
    documents = texts(60)
    whole = told(dropped(documents))
    for seed in range(5):
        rng, left = random.Random(seed), documents[:]
        rng.shuffle(left)
        parts = [dropped(left[i::3]) for i in range(3)]
        assert told(added(added(parts[0], parts[1]), parts[2])) == whole
    assert len(whole["dropped"]) == KEPT
    assert [int(example["key"]) for example in whole["dropped"]] != list(range(KEPT))  # not just the first
    assert (whole["documents_in"], whole["documents_out"], whole["why"]) == (60, 0, {"why": 60})


def test_keys_may_come_twice():
    assert len(dropped([{"key": f"{i % 3}", "text": str(i)} for i in range(30)])["dropped"]) == KEPT


def test_a_document_that_only_got_a_field_is_not_changed():
    tally, document = Tally("rule"), {"key": "a", "text": "b"}
    tally.count(document, document | {"language": "en"})
    assert (tally.result()["documents_changed"], tally.result()["changed"]) == (0, [])
    tally.count(document, document | {"text": "c"})
    assert tally.result()["documents_changed"] == 1


def test_a_difference_is_shown_where_it_is():
    tally, before = Tally("rule"), "a" * 1000 + "é" + "b" * 1000
    tally.count({"key": "k", "text": before}, {"key": "k", "text": before.replace("é", "e")})
    (example,) = tally.result()["changed"]
    assert "é" in example["before"] and "é" not in example["after"] and "e" in example["after"]
    assert len(example["before"]) == len(example["after"]) == EXCERPT


def test_excerpts_are_short_and_images_small():
    file = io.BytesIO()
    Image.new("L", (400, 200)).save(file, "PNG")
    ((example,), like) = (dropped([{"key": "k", "text": "x" * 999, "image": file.getvalue()}])["dropped"], {"key": "e", "text": "y" * 999})
    assert len(example["text"]) == EXCERPT
    with Image.open(io.BytesIO(base64.b64decode(example["image"]))) as image:
        assert image.size == (THUMBNAIL, THUMBNAIL // 2)
    (example,) = dropped([{"key": "k", "text": "x", "image": None}], like=like)["dropped"]
    assert example["like"] == {"key": "e", "text": "y" * EXCERPT}


def test_seconds_add_up_and_are_not_told():
    a, b = dropped(texts(1)), dropped(texts(2))
    assert added(a | {"seconds": 1.5}, b | {"seconds": 2.0})["seconds"] == pytest.approx(3.5)
    assert "seconds" not in told(a)
