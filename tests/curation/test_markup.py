"""Notations made plain text."""

from research.curation.markup import DebianDescription


def test_a_description_becomes_paragraphs_and_plain_text_stays_the_same_document():
    document = {"key": "a", "text": "a tool\n It does\n things.\n .\n And more."}
    plain = DebianDescription()(document)
    assert plain == {"key": "a", "text": "a tool\n\nIt does things.\n\nAnd more."}
    assert DebianDescription()({"key": "b", "text": "a tool"})["text"] == "a tool"
