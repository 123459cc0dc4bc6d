"""What passes count."""

import json

from research.curation.documents import Dropped
from research.curation.engine import done
from research.curation.passes import EXCERPT, KEPT, Pass, Tally, difference


def drop_short(document):
    return Dropped("short", {"key": "other", "text": "xyz"}) if len(document["text"]) < 4 else document


def shout(document):
    louder = document["text"].upper()
    return document if louder == document["text"] else document | {"text": louder}


def run(tmp_path, documents, effect=None, rules=(("drop_short", drop_short), ("shout", shout))):
    written = []

    def write(number, documents):
        written.extend(documents)
        return {"written": len(written)}

    Pass(tmp_path, lambda number: documents, effect, rules, write)(3)
    return written, json.loads(done(tmp_path, 3).read_text())


def test_each_rule_counts_what_it_is_given_and_what_it_leaves(tmp_path):
    written, counted = run(tmp_path, [{"key": "a", "text": "abc"}, {"key": "b", "text": "abcd"}, {"key": "c", "text": "ABCDE"}])
    assert written == [{"key": "b", "text": "ABCD"}, {"key": "c", "text": "ABCDE"}]
    first, second = counted["rules"]
    assert (first["documents_in"], first["documents_out"], first["characters_in"], first["characters_out"]) == (3, 2, 12, 9)
    assert first["why"] == {"short": 1}
    assert [(example["key"], example["why"], example["like"], example["text"]) for example in first["dropped"]] == [
        ("a", "short", {"key": "other", "text": "xyz"}, "abc")
    ]
    assert (second["documents_in"], second["documents_changed"]) == (2, 1)
    assert [(example["before"], example["after"]) for example in second["changed"]] == [("abcd", "ABCD")]
    assert counted["written"] == {"written": 2}


def test_the_effect_of_a_stage_comes_first_and_knows_the_place(tmp_path):
    effect = ("stage", lambda number: lambda place, document: Dropped("odd") if place.number % 2 else document)
    written, counted = run(tmp_path, [{"key": str(i), "text": f"text {i}"} for i in range(4)], effect)
    assert [document["key"] for document in written] == ["0", "2"]
    assert [rule["rule"] for rule in counted["rules"]] == ["stage", "drop_short", "shout"]
    assert counted["rules"][0]["why"] == {"odd": 2}


def test_the_same_ten_examples_are_kept_in_any_order():
    documents = [{"key": str(i), "text": "x" * i} for i in range(40)]
    found = []
    for order in (documents, documents[::-1]):
        tally = Tally("rule")
        for document in order:
            tally.count(document, Dropped("why"))
        found.append(tally.result()["dropped"])
    assert len(found[0]) == KEPT
    assert found[0] == found[1]
    assert [int(example["key"]) for example in found[0]] != list(range(KEPT))  # not just the first


def test_a_difference_is_shown_where_it_is():
    before = "a" * 1000 + "é" + "b" * 1000
    shown = difference(before, before.replace("é", "e"))
    assert "é" in shown[0] and "é" not in shown[1]
    assert max(map(len, shown)) <= EXCERPT
    assert difference("same", "same and more") == ("same", "same and more")


def test_keys_may_come_twice():
    tally = Tally("rule")
    for i in range(30):
        tally.count({"key": f"{i % 3}", "text": str(i)}, Dropped("why"))
    assert len(tally.result()["dropped"]) == KEPT


def test_what_a_rule_hides_is_not_among_the_examples(tmp_path):
    class Hide:
        secret = True

        def __call__(self, document):
            return document | {"text": document["text"].replace("secret", "<HIDDEN>")}

    _, counted = run(tmp_path, [{"key": "a", "text": "a secret here"}], rules=(("hide", Hide()),))
    assert [example["after"] for example in counted["rules"][0]["changed"]] == ["a <HIDDEN> here"]
    assert "secret" not in json.dumps(counted)
