"""What passes count."""

import json
import time

import pytest

from research.core.errors import UserError
from research.curation.documents import Dropped
from research.curation.engine import done
from research.curation.passes import Pass


def drop_short(document):
    return Dropped("short", {"key": "other", "text": "xyz"}) if len(document["text"]) < 4 else document


def shout(document):
    louder = document["text"].upper()
    return document if louder == document["text"] else document | {"text": louder}


def run(tmp_path, documents, effect=None, rules=(("drop_short", drop_short), ("shout", shout)), then=None, hide=str):
    written = []

    def write(number, documents):
        written.extend(documents)
        return {"written": len(written)}

    Pass(tmp_path, lambda number: documents, effect, rules, then, hide, write)(3)
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


class Reads:
    def __init__(self, what):
        self.needs = what

    def __call__(self, document):
        return document


def test_a_rule_is_given_no_document_without_what_it_reads(tmp_path):
    message = "the rule reads reads the image of documents, and a has none: put the rule `fields` before it"
    for more in (dict(rules=(("reads", Reads("image")),)), dict(rules=(), then=("reads", Reads("image")))):
        with pytest.raises(UserError, match=message):
            run(tmp_path, [{"key": "a", "text": "abc"}], **more)
    written, _ = run(tmp_path, [{"key": "a", "image": b"x", "text": "b"}], rules=(("reads", Reads("image")),))
    assert written


def test_what_is_hidden_is_not_in_what_was_counted(tmp_path):
    hide = lambda text: text.replace("secret", "<HIDDEN>")
    rules = (("drop", lambda d: Dropped("first", {"key": "e", "text": "secret e"}) if d["key"] == "a" else d), ("hide", lambda d: d | {"text": hide(d["text"])}))
    _, counted = run(tmp_path, [{"key": "a", "text": "a secret here"}, {"key": "b", "text": "b secret"}], rules=rules, hide=hide)
    assert [(example["text"], example["like"]["text"]) for example in counted["rules"][0]["dropped"]] == [("a <HIDDEN> here", "<HIDDEN> e")]
    assert [(example["after"], "before" in example) for example in counted["rules"][1]["changed"]] == [("b <HIDDEN>", False)]
    assert "secret" not in json.dumps(counted)


def test_time_is_counted_by_rule(tmp_path):
    _, counted = run(tmp_path, [{"key": "a", "text": "abcd"}], rules=(("slow", lambda d: time.sleep(0.05) or d), ("fast", lambda d: d)))
    slow, fast = (rule["seconds"] for rule in counted["rules"])
    assert slow >= 0.05 > fast > 0
