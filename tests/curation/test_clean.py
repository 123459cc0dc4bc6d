import pickle

import pytest

from configs.data import base
from research.core.errors import UserError
from research.curation.clean import Fields, Html, Language, Unicode
from research.curation.documents import Dropped

PARAGRAPHS = (
    "The old bridge over the river was closed for repairs in the spring, and the people of both villages had to take the ferry for several months.",
    "Most of them did not mind. The crossing took ten minutes when the water was low, and there was always somebody to talk to on the way over.",
)
PAGE = f"""<html><head><title>The bridge | Valley News</title></head><body><nav><a href="/">Home</a> <a href="/about">About us</a></nav><article>
<h1>The bridge</h1><p>{PARAGRAPHS[0]}</p><p>{PARAGRAPHS[1]}</p><table><tr><th>Month</th><th>Passengers</th></tr><tr><td>April</td><td>1207</td></tr></table>
</article><div id="comments"><p>I never liked that ferry, it made me seasick each time.</p></div><footer>Imprint and cookies</footer></body></html>"""


def make(rule, group, **fields):
    return rule(**{**base.get_config()[group], **fields})


def document(text="A text.", **fields):
    return {"key": "0", "text": text, **fields}


@pytest.mark.parametrize("rule, group", [(Fields, "fields"), (Unicode, "unicode"), (Html, "html"), (Language, "language")])
def test_rules_travel_to_workers(rule, group):
    made = make(rule, group)
    sent = pickle.dumps(made)
    assert len(sent) < 1000 and pickle.loads(sent) == made
    assert pickle.loads(sent)(document(PAGE)) == made(document(PAGE))


@pytest.mark.parametrize("fields", [{}, {"title": None}, {"title": " \n"}, {"title": b""}])
def test_a_document_without_a_required_field_goes(fields):
    assert make(Fields, "fields", required=("text", "title"))(document(**fields)) == Dropped("title is missing")


@pytest.mark.parametrize("value", [0, False, "x", b"\0", []])
def test_a_required_field_may_hold_nothing_much(value):
    whole = document(title=value)
    assert make(Fields, "fields", required=("text", "title"))(whole) is whole


@pytest.mark.parametrize("text", [b"A text.", 7, ["A", "text"]])
def test_a_text_that_is_no_string_goes(text):
    assert make(Fields, "fields")(document(text)) == Dropped("text is no string")


def test_an_image_needs_no_text():
    image = {"key": "0", "image": b"\x89PNG"}
    assert make(Fields, "fields", required=("image",), max_characters=1)(image) is image
    assert make(Fields, "fields", required=("image",))(image | {"image": b""}) == Dropped("image is missing")


@pytest.mark.parametrize(
    "value, number",
    [("4.5", 4.5), (" 1,234.5 ", 1234.5), ("-3", -3.0), ("+.5", 0.5), ("1e-3", 0.001), ("1,234,567", 1234567.0), ("7.", 7.0), (2, 2), (2.5, 2.5)],
)
def test_numbers_are_mended(value, number):
    before = document(score=value)
    after = make(Fields, "fields", numbers=("score",))(before)
    assert after == before | {"score": number} and type(after["score"]) is type(number)
    assert (after is before) == (value is number) and before["score"] is value


@pytest.mark.parametrize("value", ["n/a", "", "1,23", "1_000", "nan", "inf", "1e999", ".", "-", "4.5 stars", None, True, float("nan"), [1]])
def test_what_is_no_finite_number_goes(value):
    assert make(Fields, "fields", numbers=("score",))(document(score=value)) == Dropped("score is no number")


def test_what_is_missing_gets_its_default():
    rule = make(Fields, "fields", required=("text", "lang"), numbers=("score",), defaults=(("lang", "en"), ("score", "0.5")))
    before = document(lang=" ")
    assert rule(before) == document(lang="en", score=0.5) and before == document(lang=" ")
    whole = document(lang="de", score=1.0)
    assert rule(whole) is whole


def test_a_text_with_too_many_characters_goes():
    rule = make(Fields, "fields", max_characters=3)
    assert rule(document("äöü"))["text"] == "äöü" and rule(document("abcd")) == Dropped("more characters than max_characters")


BROKEN = {
    "dÃ©jÃ  vu": "déjà vu",
    "The Mona Lisa doesnâ€™t have eyebrows.": "The Mona Lisa doesn’t have eyebrows.",
    "â€œquotedâ€\x9d â€” and dashed": "“quoted” — and dashed",
    "âœ” No problems": "✔ No problems",
    "Ð¿Ñ€Ð¸Ð²ÐµÑ‚, Ð¼Ð¸Ñ€": "привет, мир",
    "schÃƒÂ¶n": "schön",  # twice
    "æ—¥æœ¬èªž": "日本語",
    "fish &amp; chips": "fish & chips",
    "\ufeffA mark": "A mark",
    "\x1b[31mred\x1b[0m and \x07bell\x00": "red and bell",
    "one\r\ntwo\rthree\u2028four": "one\ntwo\nthree\nfour",
    "\ud83d\ude00": "😀",
    "fish &amp; chips\r1 < 2": "fish & chips\n1 < 2",  # seen as one line that has "<", HTML would stay
    "cafe\u0301": "café",
    "blanks  \t\nat ends\u00a0": "blanks\nat ends",
    "a\n\n\n\nb\n \n\nc": "a\n\nb\n\nc",
}


@pytest.mark.parametrize("broken, whole", BROKEN.items())
def test_broken_text_is_as_it_was_meant(broken, whole):
    before = document(broken)
    assert make(Unicode, "unicode")(before) == document(whole)
    assert before == document(broken)


CLEAN = '“Curly” and "straight" quotes, it’s naïve… ﬁne 10³ ＡＢ & 日本語、<b>&amp;</b>\n\n  indented\tline\n'


def test_clean_text_stays_the_same_document():
    whole, empty = document(CLEAN), document("")
    assert make(Unicode, "unicode")(whole) is whole and make(Unicode, "unicode")(empty) is empty


def test_compatible_characters_are_folded_where_asked():
    assert make(Unicode, "unicode", normalization="NFKC")(document("ﬁne 10³ ＡＢ"))["text"] == "fine 103 AB"


@pytest.mark.parametrize("form", ["NFC", "NFKC"])
def test_mended_text_stays_as_it_is(form):
    rule = make(Unicode, "unicode", normalization=form)
    for text in (*BROKEN, CLEAN, "".join(BROKEN), "\r".join(BROKEN), "\r".join(reversed(BROKEN)), "&amp;amp;lt;p&gt;\r&amp;amp;"):
        mended = rule(document(text))
        assert rule(mended) is mended


def test_an_unknown_normal_form_is_refused():
    with pytest.raises(UserError, match="unicode.normalization is 'nfc': give NFC, or NFKC"):
        make(Unicode, "unicode", normalization="nfc")


def test_the_main_text_of_a_page_is_kept_and_its_title():
    before = document(PAGE, url="https://example.org")
    after = make(Html, "html")(before)
    assert after == {"key": "0", "url": "https://example.org", "title": "The bridge", "text": "\n".join(["The bridge", *PARAGRAPHS])}
    assert before["text"] == PAGE and "title" not in before


def test_tables_of_a_page_are_kept_where_asked():
    assert "Passengers" in make(Html, "html", tables=True)(document(PAGE))["text"]


def test_precision_rather_loses_text():
    page = document(PAGE.replace("<p>Most", '<p class="bottom">Most'))
    assert [PARAGRAPHS[1] in make(Html, "html", precision=precision)(page)["text"] for precision in (True, False)] == [False, True]


def test_a_page_without_a_title_has_none():
    page = f"<html><body><article><p>{PARAGRAPHS[0]}</p><p>{PARAGRAPHS[1]}</p></article></body></html>"
    assert make(Html, "html")(document(page)) == document("\n".join(PARAGRAPHS))


@pytest.mark.parametrize("text, why", [("", "no HTML"), ("Just words.", "no HTML"), ("<html><body></body></html>", "no main text")])
def test_a_page_without_main_text_goes(text, why, capfd):
    assert make(Html, "html")(document(text)) == Dropped(why)
    assert capfd.readouterr() == ("", "")


GERMAN = "Die alte Brücke über den Fluss war im Frühling gesperrt, und die Leute aus beiden Dörfern mussten monatelang die Fähre nehmen."


def test_documents_have_their_language():
    rule = make(Language, "language", keep=("en", "de"))
    before = document(PARAGRAPHS[0])
    english = rule(before)
    assert english == before | {"language": "en"} and "language" not in before and rule(english) is english
    assert rule(document(GERMAN))["language"] == "de"


def test_other_languages_go():
    assert make(Language, "language")(document(GERMAN)) == Dropped("language not in keep")


def test_doubtful_languages_go():
    # The probability is that of a model of its own: what it is of this text is not ours to say, only that it is below 1.
    assert make(Language, "language", least=1.01)(document(PARAGRAPHS[0])) == Dropped("language less probable than least")
    assert isinstance(make(Language, "language")(document("")), Dropped)


def test_an_unknown_language_is_refused_with_near_ones():
    with pytest.raises(UserError, match="language.keep has 'eng', .* the nearest are en, "):
        make(Language, "language", keep=("de", "eng"))


def test_a_text_in_capitals_is_in_the_same_language():
    text = "The cat sat on the mat, and looked out of the window at the birds that were singing in the garden."
    assert make(Language, "language")(document(text.upper())) == document(text.upper(), language="en")


@pytest.mark.parametrize("wrong", [("a",), ("a", 1, 2), (1, "a"), "ab", 1])
def test_a_default_that_is_no_field_with_a_value_is_refused(wrong):
    with pytest.raises(UserError, match="fields.defaults has "):
        Fields(required=(), numbers=(), defaults=(("title", "untitled"), wrong), max_characters=None)
