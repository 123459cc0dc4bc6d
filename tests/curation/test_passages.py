"""Runs of words that came before."""

import numpy as np
import pytest

from research.core.errors import UserError
from research.curation.documents import Dropped
from research.curation.passages import RepeatedPassages, extent
from tests.curation.stages import after, texts


def words(seed: int, n: int) -> str:
    return " ".join(f"w{i}" for i in np.random.default_rng(seed).choice(10**6, n))


def test_a_passage_is_cut_out_of_the_later_document_with_what_stands_after_its_words(tmp_path):
    passage = words(0, 10)
    first, later = f"Before it. {passage}. After.", f"Other: {passage.upper()}! The rest, as it was."
    results = after(RepeatedPassages(words=10, whole_sentences=False), tmp_path, texts(first), texts(later, name="e"))
    assert results[0][0]["text"] == first
    assert results[1][0]["text"] == "Other: The rest, as it was."


def test_a_run_of_so_many_words_is_found_wherever_it_begins_and_one_word_less_is_not(tmp_path):
    first, later, left = [], [], []
    for size in (9, 8):
        for start in range(8):
            run, lead, lead_of_later = words(100 * size + start, size), words(200 + 10 * size + start, start), words(300 + 10 * size + start, 3)
            first.append(f"{lead} {run} x")
            later.append(f"{lead_of_later} {run} y")
            left.append(f"{lead_of_later} y" if size == 9 else later[-1])
    results = after(RepeatedPassages(words=9, whole_sentences=False), tmp_path, texts(*first), texts(*later, name="e"))
    assert [result["text"] for result in results[1]] == left


@pytest.mark.parametrize("left, right", [(0, 0), (3, 63), (70, 64), (500, 1000)])
def test_a_run_is_as_long_as_it_is(left, right):
    run, rng = np.arange(10_000, 10_000 + left + 1 + right, dtype=np.uint64), np.random.default_rng(left)
    a = np.concatenate([rng.integers(0, 100, 80).astype(np.uint64), run, rng.integers(0, 100, 90).astype(np.uint64)])
    b = np.concatenate([rng.integers(100, 200, 30).astype(np.uint64), run, rng.integers(100, 200, 5).astype(np.uint64)])
    assert extent(a, 80 + left, b, 30 + left) == (80, 80 + len(run))
    assert extent(run, left, run, left) == (0, len(run))  # up to both ends


def test_a_document_that_repeats_itself_keeps_the_first_time(tmp_path):
    passage = words(4, 12)
    ((result,),) = after(RepeatedPassages(words=10, whole_sentences=False), tmp_path, texts(f"{passage} and {passage} end"))
    assert result["text"] == f"{passage} and end"


def test_a_document_that_is_all_repeated_goes_and_unrepeated_ones_are_the_same_object(tmp_path):
    passage = words(5, 30)
    documents = texts(passage, passage + ".", words(6, 30), "short")
    (results,) = after(RepeatedPassages(words=10, whole_sentences=False), tmp_path, documents)
    assert results[1] == Dropped("all of it came before")
    assert [results[i] is documents[i] for i in (0, 2, 3)] == [True] * 3


def test_two_passages_of_one_document_are_both_cut(tmp_path):
    a, b = words(7, 10), words(8, 10)
    results = after(RepeatedPassages(words=10, whole_sentences=False), tmp_path, texts(a, b), texts(f"One {a} two {b} three."))
    assert results[1][0]["text"] == "One two three."


def test_of_whole_sentences_none_is_left_in_part(tmp_path):
    known = "It is a library for many things. It was written by many people. It is documented in a manual."
    later = f"This is the manual. {known.replace('in a manual', 'elsewhere')}"  # its last sentence begins like one that is known
    stage = RepeatedPassages(words=10, whole_sentences=True)
    results = after(stage, tmp_path, texts(known), texts(later))
    assert results[1][0]["text"] == "This is the manual. It is documented elsewhere."
    (tmp_path / "none").mkdir()
    within = texts("Nobody says that it is a library for many things it was written by many people who did so.")
    assert after(stage, tmp_path / "none", texts(known), within)[1][0] is within[0]  # no sentence of it is all in the run


def test_fewer_than_two_words_are_no_passage():
    with pytest.raises(UserError, match="repeated_passages.words is 1"):
        RepeatedPassages(words=1, whole_sentences=False)
