import pickle

import pytest

from configs.data import base
from research.core.errors import UserError
from research.curation.documents import Dropped
from research.curation.quality import C4, GopherQuality, GopherRepetition, WordList

PROSE = (
    "The old bridge over the river was closed for repairs in the spring, and the people of both villages had to take a ferry for several months.\n"
    "Most of them did not mind: the crossing took ten minutes when the water was low, and there was always somebody to talk to on board.\n"
    "By autumn it was open again. Nobody has said so aloud, but some of us still walk down to the landing in the evening."
)
GROUPS = {GopherQuality: "gopher_quality", GopherRepetition: "gopher_repetition", C4: "c4", WordList: "word_list"}


def make(rule, **fields):
    return rule(**{**base.get_config()[GROUPS[rule]], **fields})


def document(text):
    return {"key": "0", "text": text}


@pytest.mark.parametrize("rule", [GopherQuality, GopherRepetition, C4])
def test_prose_stays_the_same_document(rule):
    whole = document(PROSE)
    assert make(rule)(whole) is whole and pickle.loads(pickle.dumps(make(rule)))(whole) is whole


@pytest.mark.parametrize("text", ["", " \n\t\n"])
def test_a_text_without_words_is_no_prose(text):
    empty = document(text)
    assert make(GopherQuality, min_words=0)(empty) == Dropped("fewer words than min_words")
    assert make(C4)(empty) == Dropped("no line is left")
    assert make(GopherRepetition)(empty) is empty


LENIENT_QUALITY = {
    "min_words": 1,
    "min_mean_word_length": 0,
    "max_symbol_ratio": 9,
    "max_bullet_lines": 1,
    "max_ellipsis_lines": 1,
    "min_alphabetic_words": 0,
    "min_stop_words": 0,
}


@pytest.mark.parametrize(
    "limit, stays, goes, why",
    [
        ({"min_words": 5}, "the cat and the dog", "the cat and dog", "fewer words than min_words"),
        ({"max_words": 5}, "the cat and the dog", "the cat and the big dog", "more words than max_words"),
        ({"min_mean_word_length": 3.0}, "the and", "the an", "words shorter than min_mean_word_length"),
        ({"max_mean_word_length": 4.0}, "the éàüöß", "the andand", "words longer than max_mean_word_length"),
        ({"max_symbol_ratio": 0.5}, "a# #b c d", "a# ##b c d", "more hashes than max_symbol_ratio"),
        ({"max_symbol_ratio": 0.5}, "a... b… c d", "a... b…… c d", "more ellipses than max_symbol_ratio"),
        ({"max_symbol_ratio": 0.5}, "a... b… c# d#", "a### b c d", "more hashes than max_symbol_ratio"),  # each sign by itself
        ({"max_bullet_lines": 0.5}, " • a\n\n-1 b\n- c\nd", "• a\n* b\n- c\nd", "more lines with a bullet than max_bullet_lines"),
        ({"max_ellipsis_lines": 0.5}, "a... \n\nb…\nc\nd", "a...\nb…\nc…\nd", "more lines with an ellipsis than max_ellipsis_lines"),
        ({"min_alphabetic_words": 0.5}, "4th é 1 2", "4th _ 1 2", "fewer words with a letter than min_alphabetic_words"),
        ({"min_stop_words": 2}, "The cat, (AND) a dog", "the cat, the dog, a band", "fewer stop words than min_stop_words"),
    ],
)
def test_each_limit_of_quality_holds_by_itself(limit, stays, goes, why):
    rule, kept = make(GopherQuality, **{**LENIENT_QUALITY, **limit}), document(stays)
    assert rule(kept) is kept and rule(document(goes)) == Dropped(why)


def test_a_page_of_keywords_is_no_prose():
    assert make(GopherQuality)(document("cheap flights hotels car hire " * 20)) == Dropped("fewer stop words than min_stop_words")


LENIENT_REPETITION = {
    "duplicate_lines": 1,
    "duplicate_paragraphs": 1,
    "duplicate_line_characters": 1,
    "duplicate_paragraph_characters": 1,
    "top_ngrams": (),
    "duplicate_ngrams": (),
}


@pytest.mark.parametrize(
    "field, text, share, why",
    [
        ("duplicate_lines", "a\nb\n a\n\na ", 2 / 4, "more duplicates than duplicate_lines"),
        ("duplicate_line_characters", "one\nb\none\nöne", 3 / 13, "more characters in duplicates than duplicate_line_characters"),
        ("duplicate_paragraphs", "a\nb\n\nc\n \t\na\nb\n\n\nb", 1 / 4, "more duplicates than duplicate_paragraphs"),
        ("duplicate_paragraph_characters", "a\nb\n\nc\n\na\nb", 3 / 11, "more characters in duplicates than duplicate_paragraph_characters"),
    ],
)
def test_duplicate_lines_and_paragraphs_are_those_that_came_before(field, text, share, why):
    kept = document(text)
    assert make(GopherRepetition, **{**LENIENT_REPETITION, field: share})(kept) is kept
    assert make(GopherRepetition, **{**LENIENT_REPETITION, field: share - 1e-9})(kept) == Dropped(why)


@pytest.mark.parametrize(
    "n, text, share",
    [
        (2, "ab c d ab c", 8 / 11),
        (2, "ab  c d\nab\nc ", 9 / 13),  # of the text as it is
        (2, "a a a", 5 / 5),  # those in two n-grams count once
        (2, "a b c d", 0),
        (2, "aa b cccc d aa b cccc d", 8 / 23),  # the first of the most frequent
        (2, "one", 0),
        (3, "a b c a b c a b", 10 / 15),
        (4, "a b c d e a b c d", 14 / 17),
    ],
)
def test_the_top_ngram_has_all_its_occurrences(n, text, share):
    kept = document(text)
    assert make(GopherRepetition, **{**LENIENT_REPETITION, "top_ngrams": ((n, share),)})(kept) is kept
    why = f"more characters in one {n}-gram than top_ngrams"
    assert make(GopherRepetition, **{**LENIENT_REPETITION, "top_ngrams": ((9, 0), (n, share - 1e-9))})(kept) == Dropped(why)


@pytest.mark.parametrize(
    "n, text, share",
    [
        (5, "a b c d e f a b c d e f", 11 / 23),  # two that overlap: their characters count once
        (5, "a b c d e x a b c d e", 9 / 21),
        (5, "a b c d e x a b c d y", 0),
        (5, "a a a a a a", 9 / 11),  # it overlaps the one before
        (6, "a b c d e x a b c d e", 0),
        (10, "one two three", 0),
    ],
)
def test_duplicate_ngrams_are_those_that_came_before(n, text, share):
    kept = document(text)
    assert make(GopherRepetition, **{**LENIENT_REPETITION, "duplicate_ngrams": ((n, share),)})(kept) is kept
    why = f"more characters in duplicate {n}-grams than duplicate_ngrams"
    assert make(GopherRepetition, **{**LENIENT_REPETITION, "duplicate_ngrams": ((n, share - 1e-9),)})(kept) == Dropped(why)


def test_a_page_that_repeats_itself_goes_by_the_limits_of_gopher():
    assert make(GopherRepetition)(document("\n".join([PROSE, PROSE]))) == Dropped("more duplicates than duplicate_lines")
    assert make(GopherRepetition)(document(f"{PROSE} Buy now, buy now, buy now, {'buy now, ' * 20}")) == Dropped(
        "more characters in one 2-gram than top_ngrams"
    )
    cycle = " ".join(f"{word} in the evening at the landing by the river" for word in ("walk", "talk", "sit", "sing", "wait", "swim"))
    why = make(GopherRepetition, top_ngrams=())(document(f"{PROSE} {cycle}"))
    assert why == Dropped("more characters in duplicate 5-grams than duplicate_ngrams")


SENTENCES = "This is the first of the lines.\nHere is one more of them!\nIs there a third of them?"


@pytest.mark.parametrize(
    "line",
    [
        "A line without a full stop",
        "Four words are few.",
        "Please enable JavaScript to see this page.",
        "Read our Terms of Use before you go on.",
        "By staying here you accept our Cookie Policy.",
        "This site uses cookies to know who you are.",
        "",
    ],
)
def test_a_line_that_is_no_sentence_goes(line):
    before = document(f"{line}\n{SENTENCES}\n {line}")
    assert make(C4)(before) == document(SENTENCES) and before["text"] != SENTENCES


@pytest.mark.parametrize("end", [".", "!", "?", '."', ".”", ".'", ".’", "!»"])
def test_a_line_may_end_in_any_terminal_punctuation(end):
    whole = document(f"{SENTENCES}\nAnd a line of five words{end}")
    assert make(C4)(whole) is whole


@pytest.mark.parametrize(
    "field, line",
    [
        ("terminal_punctuation", "A line without a full stop"),
        ("javascript_lines", "Please enable JavaScript to see this page."),
        ("policy_lines", "Read our terms of use before you go on."),
        ("citations", "It was said [1] by many of us."),
        ("lorem_ipsum", "Then there was lorem ipsum for a page."),
        ("curly_brackets", "Then there was a { for a page."),
    ],
)
def test_what_c4_takes_stays_where_asked(field, line):
    whole = document(f"{SENTENCES}\n{line}")
    assert make(C4)(whole) is not whole
    assert make(C4, **{field: field != "terminal_punctuation"})(whole) is whole


def test_citations_go_before_lines_are_judged():
    text = f"{SENTENCES}\nThe bridge[12] was closed [citation needed] in the spring. [1]\nTwo [1] [2] [3] words."
    assert make(C4)(document(text)) == document(f"{SENTENCES}\nThe bridge was closed in the spring.")


@pytest.mark.parametrize(
    "text, why",
    [
        ("Menu\nHome\nAbout us", "no line is left"),
        (f"{SENTENCES}\nLorem ipsum dolor sit amet, they said.", "lorem ipsum"),
        (f"{SENTENCES}\nWrite an opening {{ before you go on.", "a curly bracket"),
        ("This is one of two sentences. This is the other one.", "fewer sentences than min_sentences"),
    ],
)
def test_a_page_without_enough_prose_goes(text, why):
    assert make(C4)(document(text)) == Dropped(why)


def test_sentences_are_counted_within_lines():
    whole = document(SENTENCES.replace("\n", " "))
    assert make(C4)(whole) is whole


def test_what_went_with_its_line_does_not_count_against_the_page():
    assert make(C4)(document(f"{SENTENCES}\nfunction() {{\nlorem ipsum")) == document(SENTENCES)


@pytest.fixture
def words(tmp_path):
    file = tmp_path / "words.txt"
    file.write_text("ass\n\n Blue Waffle \na$$\nstraße\n🖕\ns&m\n", encoding="utf-8")
    return file


@pytest.mark.parametrize("text", ["An ASS.", "a blue\nwaffle", "(Blue waffle)", "a$$ it is", "STRASSE", "go 🖕!", "S&M", "ass"])
def test_listed_words_and_phrases_are_found(words, text):
    assert make(WordList, file=str(words))(document(text)) == Dropped("more listed words than max_share")


@pytest.mark.parametrize("text", ["", "To assess a class.", "blue and waffle", "waffle blue", "a blue waffles", "a $ or $", "s and m", "Straßen"])
def test_they_are_whole_words(words, text):
    whole = document(text)
    assert make(WordList, file=str(words))(whole) is whole


def test_a_share_of_listed_words_may_stay(words):
    kept, goes = document("one, two; three ass: blue waffle six"), document("one, two; ass ass: blue waffle six")
    assert make(WordList, file=str(words), max_share=3 / 7)(kept) is kept
    assert make(WordList, file=str(words), max_share=3 / 7)(goes) == Dropped("more listed words than max_share")


def test_workers_need_no_file_of_words(words):
    sent = pickle.dumps(make(WordList, file=str(words)))
    words.unlink()
    assert isinstance(pickle.loads(sent)(document("An ass.")), Dropped)


def test_a_list_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(UserError, match="set word_list.file to a file"):
        make(WordList)
    with pytest.raises(UserError, match="word_list.file is .*none.txt, which cannot be read"):
        make(WordList, file=str(tmp_path / "none.txt"))
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(UserError, match="word_list.file is .*latin.txt, which cannot be read"):
        make(WordList, file=str(tmp_path / "latin.txt"))
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(UserError, match="word_list.file is .*empty.txt, which has no words"):
        make(WordList, file=str(tmp_path / "empty.txt"))


@pytest.mark.parametrize("field", ["top_ngrams", "duplicate_ngrams"])
@pytest.mark.parametrize("wrong", [(2,), (2, 0.1, 3), ("2", 0.1), (2, "a"), (0, 0.1), (2.5, 0.1), (True, 0.1), 2, "ab"])
def test_what_is_no_length_with_a_share_is_refused(field, wrong):
    with pytest.raises(UserError, match=f"gopher_repetition.{field} has "):
        make(GopherRepetition, **{**LENIENT_REPETITION, field: ((2, 1), wrong)})
