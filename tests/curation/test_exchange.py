"""Records that tasks hand to each other."""

import numpy as np
import pytest

from research.curation.exchange import give, join, save, take

RECORD = np.dtype([("hash", np.uint64), ("place", np.uint64)])


def records(places, seed: int) -> np.ndarray:
    made = np.zeros(len(places), RECORD)
    made["hash"], made["place"] = np.random.default_rng(seed).integers(0, 2**63, len(places)), places
    return made


@pytest.mark.parametrize("count", [1, 3, 64])
def test_each_takes_what_is_for_it_from_all_in_order(tmp_path, count):
    rng = np.random.default_rng(0)
    given = [records(np.arange(size), size) for size in (20, 0, 1, 500)]
    takers = [rng.integers(0, count, len(made)).astype(np.uint64) for made in given]
    for number, (made, whom) in enumerate(zip(given, takers)):
        give(tmp_path / f"{number:05}.records", made, whom, count)
    for taker in range(count):
        expected = np.concatenate([made[whom == taker] for made, whom in zip(given, takers)])
        np.testing.assert_array_equal(take(tmp_path, taker, count, RECORD), expected)


def test_where_nobody_gave_there_is_nothing(tmp_path):
    assert take(tmp_path, 0, 2, RECORD).shape == (0,)
    (tmp_path / "00000.draft").write_bytes(b"half of a file")
    assert take(tmp_path, 0, 2, RECORD).dtype == RECORD


def test_arrays_are_joined_as_one(tmp_path):
    parts = [records(np.arange(size), size) for size in (3, 0, 2)]
    for number, part in enumerate(parts):
        save(tmp_path / f"{number}.npy", part)
    join([tmp_path / f"{number}.npy" for number in range(3)], RECORD, tmp_path / "all.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "all.npy", mmap_mode="r"), np.concatenate(parts))
