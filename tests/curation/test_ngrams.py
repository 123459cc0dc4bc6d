"""Runs of words as numbers."""

import numpy as np

from research.curation import ngrams


def test_words_have_no_case_no_punctuation_and_one_form():
    assert ngrams.words("The  ﬁrst, “Straße”!") == ngrams.words("the first strasse")


def test_words_are_where_the_text_has_them():
    """What is cut by number of word is found in the text itself: ½ is one word, though it has three characters once folded."""
    text = "½ cup… of x²y"
    assert len(ngrams.words(text)) == len(ngrams.WORD.findall(text)) == len(ngrams.word_hashes(text))


def test_equal_runs_have_equal_hashes_and_others_do_not():
    windows = ngrams.windows(ngrams.word_hashes("a b c d a b c e b a c d"), 3)
    assert len(windows) == 10
    assert windows[0] == windows[4]  # a b c
    assert len(set(windows.tolist())) == 9  # b a c is none of the others


def test_a_short_text_is_one_shingle_and_an_empty_one_none():
    assert len(ngrams.shingles("two words", 5)) == 1
    assert len(ngrams.shingles("...", 5)) == 0
    assert len(ngrams.shingles("a b c d e f", 5)) == 2


def test_jaccard_is_that_of_the_sets_of_ngrams():
    a, b = "one two three four five six seven", "one two three four five six eight"
    sets = [{tuple(ngrams.words(text)[i : i + 3]) for i in range(5)} for text in (a, b)]
    assert ngrams.jaccard(*(ngrams.shingles(text, 3) for text in (a, b))) == len(sets[0] & sets[1]) / len(sets[0] | sets[1])
    assert ngrams.jaccard(*[np.zeros(0, np.uint64)] * 2) == 1


def test_what_a_table_has_is_found_at_both_of_its_ends():
    table = np.array([3, 5, 9], np.uint64)
    assert ngrams.known(np.array([3, 4, 9, 10, 0], np.uint64), table).tolist() == [True, False, True, False, False]
    assert ngrams.known(np.array([3], np.uint64), table[:0]).tolist() == [False]


def test_hashes_are_the_same_in_every_process():
    assert ngrams.digest(b"lodestar") == 7210982353478442659
    assert ngrams.windows(ngrams.word_hashes("a b c"), 2).tolist() == [964747649153115538, 8957805322333820256]
