"""Noise of each kind is found, and little else is touched."""

from collections import Counter

import pytest

from tests.curation import planted


@pytest.mark.slow
def test_planted_noise_is_found_and_nothing_else(tmp_path):
    documents, out, rules = planted.run(tmp_path)
    there_are = Counter(document["kind"] for document in documents)
    found = Counter(document["kind"] for document in documents if planted.found(document, out.get(document["key"])))
    for kind, least in {
        "mojibake": 0.9,
        "personal data": 0.99,
        "lines of a test set": 0.99,
        "another language": 0.99,
        "copy": 0.99,
        "copy with edits": 0.95,
        "nothing": 0.99,
    }.items():
        assert found[kind] >= least * there_are[kind], (kind, found[kind], there_are[kind])
    assert there_are["nothing"] > 2000
    assert sum(any(phrase in text for phrase in planted.BOILERPLATE) for text in out.values()) <= 0.01 * len(out)
    dropped = {rule["rule"]: rule["documents_in"] - rule["documents_out"] for rule in rules}
    assert dropped["exact_duplicates"] >= 90 and dropped["near_duplicates"] >= 90  # each by its own rule
