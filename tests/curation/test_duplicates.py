"""Documents that an earlier one is like."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from research.core.errors import UserError
from research.curation import ngrams
from research.curation.documents import Dropped
from research.curation.duplicates import Duplicates, ExactDuplicates, NearDuplicates, NearImages
from tests.curation import near_duplicates
from tests.curation.stages import after, texts

NEAR = NearDuplicates(ngram=3, threshold=0.75, bands=20, rows=5, seed=0)
VOCABULARY = [f"word{i}" for i in range(500)]


def gone(results) -> list[list[bool]]:
    return [[isinstance(result, Dropped) for result in part] for part in results]


def random_text(rng, size=60) -> list[str]:
    return rng.choice(VOCABULARY, size).tolist()


def with_edits(rng, words: list[str], edits: int) -> list[str]:
    words = list(words)
    for place in rng.choice(len(words), edits, replace=False):
        words[place] = "edited"
    return words


def test_the_first_copy_stays_wherever_the_others_are(tmp_path):
    first, second = texts("Some text.", "Another one.", "SOME  text"), texts("another, one!", "a third", name="e")
    results = after(ExactDuplicates(), tmp_path, first, second)
    assert gone(results) == [[False, False, True], [True, False]]
    assert results[0][0] is first[0]
    assert results[1][0] == Dropped("an earlier document is like it", first[1])


def test_documents_without_words_are_copies_of_each_other(tmp_path):
    assert gone(after(ExactDuplicates(), tmp_path, texts("...", "?", "word"))) == [[False, True, False]]


def test_near_duplicates_are_those_that_an_earlier_document_is_like(tmp_path):
    """Of random texts and copies with some edits: exactly those that comparing all with all finds, but for what hashes miss."""
    rng = np.random.default_rng(0)
    originals = [random_text(rng) for _ in range(60)]
    edited = [with_edits(rng, original, int(rng.integers(0, 6))) for original in originals]
    documents = texts(*(" ".join(words) for words in originals + edited))
    shingles = [ngrams.shingles(document["text"], 3) for document in documents]
    like = [any(ngrams.jaccard(shingles[i], shingles[j]) >= 0.75 for j in range(i)) for i in range(len(documents))]
    (found,) = gone(after(NEAR, tmp_path, documents))
    assert 20 < sum(like) < 60  # some of the edited ones are, some are not
    assert all(truth for truth, ours in zip(like, found) if ours)
    assert sum(found) >= 0.95 * sum(like)


def test_candidates_are_found_as_often_as_stated(tmp_path):
    """Few rows and bands, so that the probability lies in the middle: of pairs with a similarity of about 0.8."""
    kind = NearDuplicates(ngram=1, threshold=0.5, bands=3, rows=5, seed=0)
    rng = np.random.default_rng(1)
    pairs = []
    for _ in range(400):
        words = [f"w{i}" for i in rng.choice(10**6, 90, replace=False)]
        pairs.append((" ".join(words[:80]), " ".join(words[10:])))  # 70 of 90
    sketch = lambda text: kind.sketch({"text": text})
    share = lambda a, b: bool(np.isin(*kind.hashes([sketch(a), sketch(b)])).any())
    found = np.mean([share(a, b) for a, b in pairs])
    assert abs(found - kind.probability(70 / 90)) < 0.08
    assert 0.3 < kind.probability(70 / 90) < 0.8


def test_a_long_document_has_the_same_hashes_as_in_one_piece(monkeypatch):
    text = " ".join(f"w{i}" for i in range(1000))
    (whole,) = NEAR.hashes([NEAR.sketch({"text": text})])
    monkeypatch.setattr("research.curation.duplicates.SHINGLES", 7)
    (pieces,) = NEAR.hashes([NEAR.sketch({"text": text})])
    assert whole.tolist() == pieces.tolist()


def test_of_many_copies_all_but_the_first_go(tmp_path):
    """More than the number of earlier ones that a document is compared with."""
    rng = np.random.default_rng(2)
    words = random_text(rng)
    parts = [texts(*(" ".join(with_edits(rng, words, 1)) for _ in range(40)), name=str(n)) for n in range(2)]
    results = gone(after(NEAR, tmp_path, *parts))
    assert [sum(part) for part in results] == [39, 40]


def picture(shift: int, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    image = Image.new("L", (64, 64))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, w, h = rng.integers(0, 48, 4)
        draw.rectangle([x, y, x + w // 2, y + h // 2], fill=int(rng.integers(60, 240)))
    pixels = np.clip(np.asarray(image).astype(int) + shift, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_an_image_made_a_little_brighter_is_a_duplicate_and_another_is_not(tmp_path):
    images = [{"key": str(i), "image": picture(0, i)} for i in range(20)] + [{"key": f"{i}b", "image": picture(3, i)} for i in range(20)]
    assert gone(after(NearImages(distance=3), tmp_path, images)) == [[False] * 20 + [True] * 20]


def test_bits_that_differ_leave_one_part_the_same():
    kind = NearImages(distance=3)
    rng = np.random.default_rng(0)
    for _ in range(50):
        a = rng.random(64) < 0.5
        b = a.copy()
        b[rng.choice(64, 3, replace=False)] ^= True
        assert np.isin(*kind.hashes([a, b])).any()
        assert kind.alike(a, b)
    assert not kind.alike(a, ~a)


def test_a_kind_that_does_not_say_when_two_are_alike_cannot_be_made():
    class Half(Duplicates):
        def sketch(self, document):
            return document["text"]

        def hashes(self, sketches):
            yield from ()

    with pytest.raises(TypeError, match="abstract method '?alike"):
        Half()


@pytest.mark.parametrize("wrong", [dict(threshold=0.0), dict(threshold=1.5), dict(bands=0), dict(ngram=0)])
def test_parameters_without_sense_are_refused(wrong):
    with pytest.raises(UserError, match="near_duplicates"):
        NearDuplicates(**dict(ngram=5, threshold=0.8, bands=14, rows=8, seed=0) | wrong)


@pytest.mark.slow
def test_of_debians_descriptions_near_duplicates_are_found_and_nothing_else():
    documents = near_duplicates.sample(2000, seed=0)
    pairs = near_duplicates.similar_pairs(documents, 5, 0.75)
    like = {later for _, later, _ in pairs}
    found = near_duplicates.dropped(near_duplicates.KINDS["configs/data/debian.py"], documents)
    assert len(like) > 20
    assert len(found & like) >= 0.95 * len(like)
    assert len(found & like) >= 0.95 * len(found)
