import grain
import numpy as np
import pytest

from research.data.sources import GrainSource, Phases, batches_of


def make_examples(seed=0, n=10, width=3):
    def example(i, rng):
        return {"i": np.int32(i), "x": rng.integers(0, 1 << 30, width)}

    return grain.MapDataset.range(n).seed(seed).shuffle().repeat().random_map(example)


def make_source(rows=range(4), seed=0, **kwargs):
    return GrainSource(make_examples(seed, **kwargs), 4, list(rows), threads=2, buffer=8)


def take(source, n):
    return [source.next(None) for _ in range(n)]


def same(a, b):
    for x, y in zip(a, b, strict=True):
        for name in x:
            np.testing.assert_array_equal(x[name], y[name])


@pytest.mark.short
def test_the_batch_at_a_step_is_a_function_of_seed_and_step():
    batches = take(make_source(), 9)
    same(batches, take(make_source(), 9))
    later = make_source()
    later.restore({"next": 6})
    same(batches[6:], take(later, 3))
    assert later.state() == {"next": 9}
    other = take(make_source(seed=1), 9)
    assert any((a["i"] != b["i"]).any() for a, b in zip(batches, other))


def test_every_example_comes_once_an_epoch_and_is_drawn_anew():
    i = np.concatenate([batch["i"] for batch in take(make_source(), 5)])
    x = np.concatenate([batch["x"] for batch in take(make_source(), 5)])
    assert sorted(i[:10]) == sorted(i[10:]) == list(range(10)) and list(i[:10]) != list(i[10:])
    assert (x[list(i).index(3)] != x[10 + list(i[10:]).index(3)]).any()


def test_processes_hold_the_rows_of_one_global_batch():
    whole = take(make_source(), 6)
    parts = [take(make_source(rows=rows), 6) for rows in ([0, 3], [1, 2])]
    same(whole, [{name: np.concatenate([a[name], b[name]])[[0, 2, 3, 1]] for name in a} for a, b in zip(*parts, strict=True)])


def test_phases_follow_one_another_and_resume_in_either():
    def phases():
        return Phases([(3, make_source(width=2)), (0, make_source(width=5))])

    batches = take(phases(), 6)
    assert [batch["x"].shape[1] for batch in batches] == [2, 2, 2, 5, 5, 5]
    same(batches[3:], take(make_source(width=5), 3))
    for step in (2, 5):
        source = phases()
        source.restore({"next": step})
        assert source.spec["x"].shape == (4, 2 if step < 3 else 5)
        same(batches[step:], take(source, 6 - step))


def test_one_pass_ends_with_marked_filler():
    examples = [{"i": np.int32(i)} for i in range(7)]
    batches = list(batches_of(examples, 4, range(4), None))
    assert [list(batch["i"]) for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 6]]
    assert [list(batch["valid"]) for batch in batches] == [[True] * 4, [True, True, True, False]]
    assert [list(b["i"]) for b in batches_of(examples, 4, [2, 3], None)] == [[2, 3], [6, 6]]
    assert len(list(batches_of(examples, 4, range(4), 1))) == 1
