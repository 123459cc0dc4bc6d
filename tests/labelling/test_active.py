import itertools

import numpy as np
import pytest

from research.labelling import active

P = np.array([[0.9, 0.1, 0.0], [0.5, 0.5, 0.0], [0.4, 0.3, 0.3], [1.0, 0.0, 0.0], [0.6, 0.2, 0.2]])


def test_entropy_and_margin_by_hand_and_they_differ():
    entropy_N = [-sum(p * np.log(p) for p in row if p) for row in P]
    assert active.entropy(P, 5).tolist() == list(np.argsort(-np.array(entropy_N), kind="stable")) == [2, 4, 1, 0, 3]
    assert active.margin(P, 5).tolist() == [1, 2, 4, 0, 3]
    assert active.entropy(P, 2).tolist() == [2, 4]


def test_no_more_are_chosen_than_there_are_and_equals_come_in_order():
    alike = np.full((3, 2), 0.5)
    assert active.entropy(alike, 9).tolist() == active.margin(alike, 9).tolist() == [0, 1, 2]
    assert active.k_center(np.zeros((3, 2)), np.zeros((1, 2)), 9).tolist() == [0, 1, 2]
    assert active.random(3, 9, 0).shape == (3,)


def farthest(x_ND, centers):
    """The distance to its center of the example that is farthest from all."""
    return max(min(np.linalg.norm(x - center) for center in centers) for x in x_ND)


@pytest.mark.short
@pytest.mark.parametrize("seed", range(8))
def test_k_center_is_greedy_and_no_more_than_twice_the_best(seed):
    rng = np.random.default_rng(seed)
    x_ND, known_KD, count = rng.normal(size=(9, 2)), rng.normal(size=(seed % 3, 2)), 3
    chosen = active.k_center(x_ND, known_KD, count)
    assert len(set(chosen.tolist())) == count
    centers = [*known_KD]
    for n, place in enumerate(chosen):
        if centers:
            away = [min(np.linalg.norm(x - center) for center in centers) for x in x_ND]
            assert away[place] == pytest.approx(max(away))
        else:
            assert place == np.argmin(np.linalg.norm(x_ND - x_ND.mean(0), axis=1))
        centers.append(x_ND[place])
    best = min(farthest(x_ND, [*known_KD, *x_ND[list(some)]]) for some in itertools.combinations(range(9), count))
    assert best <= farthest(x_ND, centers) + 1e-12 <= 2 * best + 2e-12


def test_what_lies_on_a_center_is_chosen_last():
    x_ND = np.array([[0.0], [0.0], [5.0], [1.0]])
    assert active.k_center(x_ND, x_ND[:1], 4).tolist() == [2, 3, 0, 1]


def test_random_is_drawn_by_its_seed():
    assert active.random(100, 10, 3).tolist() == active.random(100, 10, 3).tolist() != active.random(100, 10, 4).tolist()
    assert len(set(active.random(100, 100, 3).tolist())) == 100
