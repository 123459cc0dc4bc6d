import types

import numpy as np
import pytest

from research.core.errors import UserError
from research.core.types import Vocabulary
from research.data.packing import PackedPairs, PackedText, pack
from research.data.pairs import SentencePairs
from tests.data import test_pairs
from tests.objectives import test_masked_lm

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
    assert packed.manifest["packing_efficiency"] == pytest.approx(sum(len(d) + 1 for d in documents if d) / (length * len(packed)), abs=1e-4)
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


@pytest.mark.parametrize("most", [1, 2, 3, 8])
def test_everything_is_packed_once_within_the_room(most):
    lengths = np.random.default_rng(most).integers(1, 65, 500)
    order, ends = pack(lengths, 64, most)
    assert sorted(order) == list(range(500))
    rows = np.split(lengths[order], ends[:-1])
    assert max(row.sum() for row in rows) <= 64 and 1 <= min(map(len, rows)) and max(map(len, rows)) <= most
    least = max(-(-lengths.sum() // 64), -(-500 // most), (lengths > 32).sum())
    assert len(rows) <= 1.04 * least, "no row more than is needed, but for a few"


def test_a_fit_that_leaves_nothing_is_found():
    order, ends = pack(np.array([60, 31, 30, 4, 50, 14, 64]), 64, 8)
    assert sorted(sorted(row) for row in np.split(order, ends[:-1])) == [[0, 3], [1, 2], [4, 5], [6]]


V_PAIRS, LENGTH = test_masked_lm.V, 64


@pytest.fixture
def packed(monkeypatch, tmp_path):
    """A function (seed, most) -> PackedPairs, in a cache of its own."""
    monkeypatch.setenv("LODESTAR_CACHE", str(tmp_path))
    pairs = SentencePairs(test_pairs.make_store(), LENGTH, V_PAIRS, short_rate=0.4)
    return lambda seed=0, most=4: PackedPairs(pairs, LENGTH, most, seed)


def pairs_of(row):
    """((a, b, is_next), ...) of a packed row, whose form is checked."""
    found, last = [], row["segments"].max()
    for n in range(1, last + 1):
        (places,) = np.nonzero(row["segments"] == n)
        assert (np.diff(places) == 1).all() and (n == 1) == (places[0] == 0)
        tokens, types = row["tokens"][places], row["token_types"][places]
        first, second = np.flatnonzero(tokens == V_PAIRS.sep)
        assert tokens[0] == V_PAIRS.cls and second == len(tokens) - 1 and (types == (np.arange(len(tokens)) > first)).all()
        found.append((tuple(tokens[1:first]), tuple(tokens[first + 1 : second]), int(row["is_next"][n - 1])))
    assert (row["is_next"][last:] == -1).all()
    padding = row["segments"] == 0
    assert (row["tokens"][padding] == V_PAIRS.pad).all() and (row["token_types"][padding] == 0).all()
    return found


def test_packed_pairs_are_pairs_each_in_one_row(packed):
    made = packed()
    rows = [made.example(i, None) for i in range(len(made))]
    found = [pair for row in rows for pair in pairs_of(row)]
    alone = [made._pairs.example(i, np.random.default_rng([0, i])) for i in range(len(made._pairs))]
    assert sorted(found) == sorted((*map(tuple, test_pairs.segments(example)), int(example["is_next"])) for example in alone)
    for a, b, is_next in found:
        assert (b[0] == a[-1] + 1) == is_next
    share = np.mean([row["segments"] > 0 for row in rows])
    assert made.manifest["packing_efficiency"] == pytest.approx(share, abs=1e-4)
    assert share > 0.97 > 0.75 > np.mean([example["tokens"] > 0 for example in alone])


def test_the_index_is_a_pure_function_of_the_seed_and_kept(packed):
    first, again, other = packed(0), packed(0), packed(1)
    same = lambda a, b: len(a) == len(b) and all((a.example(i, None)["tokens"] == b.example(i, None)["tokens"]).all() for i in range(len(a)))
    assert same(first, again) and not same(first, other)
    most = lambda made: max(len(pairs_of(made.example(i, None))) for i in range(len(made)))
    assert most(packed(0, 2)) == 2 < most(first) <= 4
