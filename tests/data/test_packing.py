import types

import numpy as np
import pytest

from research.core.errors import UserError
from research.core.types import Vocabulary
from research.data.packing import PackedText

V = Vocabulary(size=100, continues=(False,) * 100, end=99)
DOCUMENTS = [[1, 2, 3], [], [4], [5, 6, 7, 8, 9, 10, 11, 12, 13, 14], [], [15, 16]]


def make_store(documents):
    """Sentences of two tokens at most."""
    sentences = [[document[i : i + 2] for i in range(0, len(document), 2)] for document in documents]
    return types.SimpleNamespace(
        tokens=np.array([token for document in documents for token in document], np.uint16),
        sentences=np.cumsum([0] + [len(sentence) for document in sentences for sentence in document]),
        documents=np.cumsum([0] + [len(document) for document in sentences]),
        manifest={"documents": "made:up"},
    )


def rows(documents, length):
    packed = PackedText(make_store(documents), length, V)
    assert packed.manifest["number_of_rows"] == len(packed)
    return [packed.example(i, None) for i in range(len(packed))]


@pytest.mark.short
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7, 11, 19, 20, 21, 50])
def test_rows_are_the_stream_and_segments_its_documents(length):
    stream = [(d, token) for d, document in enumerate(DOCUMENTS) if document for token in [*document, V.end]]
    found = []
    for row in rows(DOCUMENTS, length):
        assert row["tokens"].shape == row["segments"].shape == (length,) and row["tokens"].dtype == row["segments"].dtype == np.int32
        used = row["segments"] > 0
        part = stream[len(found) : len(found) + used.sum()]
        document = np.array([d for d, _ in part])
        np.testing.assert_array_equal(row["segments"][used], 1 + np.cumsum(np.diff(document, prepend=document[0]) > 0))
        assert used.all() or len(found) + used.sum() == len(stream), "only the last row has padding"
        assert (np.diff(used.astype(int)) <= 0).all()
        found += list(row["tokens"][used])
    assert found == [token for _, token in stream]


def test_a_store_without_text_is_refused():
    with pytest.raises(UserError, match="made:up has no text"):
        rows([[], []], 4)


def test_a_vocabulary_without_an_end_is_refused():
    with pytest.raises(UserError, match=r"no \[END\] token, which packed_text needs"):
        PackedText(make_store(DOCUMENTS), 4, V._replace(end=None))
