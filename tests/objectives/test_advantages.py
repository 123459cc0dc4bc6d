import jax
import numpy as np
import pytest

from research.core.errors import UserError
from research.objectives.advantages import gae, group_relative, leave_one_out

B, T = 5, 7
RNG = np.random.default_rng(0)
REWARDS, VALUES, NEXT = RNG.normal(size=(3, B, T)).astype(np.float32)
CONTINUES = RNG.random((B, T)) < 0.7


def by_definition(rewards, values, next_values, continues, discount, decay):
    """arXiv 1506.02438, eq. 16: A_t = the sum over l of (discount decay)^l d_{t+l}, as long as the episode goes on."""
    delta, advantages = rewards + discount * next_values - values, np.zeros((B, T))
    for b in range(B):
        for t in range(T):
            for k in range(t, T):
                advantages[b, t] += (discount * decay) ** (k - t) * delta[b, k]
                if not continues[b, k]:
                    break
    return advantages


@pytest.mark.parametrize("discount, decay", [(0.9, 0.8), (1.0, 0.95), (0.9, 0.0), (0.9, 1.0)])
def test_gae_is_the_sum_of_its_definition(discount, decay):
    found = jax.jit(gae)(REWARDS, VALUES, NEXT, CONTINUES, discount, decay)
    np.testing.assert_allclose(found, by_definition(REWARDS, VALUES, NEXT, CONTINUES, discount, decay), rtol=1e-5, atol=1e-5)


def test_with_all_decay_the_advantage_is_the_return_less_the_value():
    """And with that of a state known where the next begins, whatever the values say cancels out but for the first and the last."""
    next_values = np.roll(VALUES, -1, axis=1)  # of the last column the value of the first: episodes are cut off there, and go on somewhere
    continues = np.arange(T) < T - 1
    returns = np.stack([sum(0.9**k * REWARDS[:, t + k] for k in range(T - t)) + 0.9 ** (T - t) * next_values[:, -1] for t in range(T)], 1)
    np.testing.assert_allclose(gae(REWARDS, VALUES, next_values, continues, 0.9, 1.0), returns - VALUES, rtol=1e-4, atol=1e-5)


def test_nothing_is_carried_over_an_end():
    """What an episode gets depends on no step after its last, nor on the value of what comes then, where that is 0."""
    change = np.arange(T) > 3
    continues, next_values = np.where(np.arange(T) == 3, False, True), np.where(np.arange(T) == 3, 0, NEXT)
    one = gae(REWARDS, VALUES, next_values, continues, 0.9, 0.8)
    other = gae(np.where(change, 9, REWARDS), np.where(change, -9, VALUES), np.where(change, 5, next_values), continues, 0.9, 0.8)
    np.testing.assert_array_equal(one[:, :4], other[:, :4])
    assert (np.asarray(one)[:, 4:] != np.asarray(other)[:, 4:]).all()


REWARDS_B = np.array([1, 0, 0, 1, 0.5, 2, -1, 3, 0.1, 0.2, 0.3, 0.1], np.float32)


@pytest.mark.parametrize("normalise", [True, False])
def test_rewards_among_those_of_their_prompt(normalise):
    found = np.asarray(group_relative(REWARDS_B, 4, normalise))
    for i, group in enumerate(REWARDS_B.reshape(3, 4)):
        np.testing.assert_allclose(found[4 * i : 4 * i + 4], (group - group.mean()) / (group.std() if normalise else 1), rtol=1e-4)


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize("compare", [leave_one_out, lambda *x: group_relative(*x, True), lambda *x: group_relative(*x, False)])
def test_equal_rewards_tell_nothing(size, compare):
    equal = (size * RNG.random(50)).astype(np.float32).repeat(7)
    assert np.any(equal.reshape(50, 7).mean(1) != equal[::7]), "the case must round"
    assert (np.asarray(compare(equal, 7)) == 0).all()


def test_the_baseline_leaves_a_reward_out_of_its_own():
    found = np.asarray(leave_one_out(REWARDS_B, 3))
    for i, reward in enumerate(REWARDS_B):
        others = [REWARDS_B[j] for j in range(12) if j // 3 == i // 3 and j != i]
        assert found[i] == pytest.approx(reward - np.mean(others), abs=1e-6)


@pytest.mark.parametrize("group", [1, 5])
@pytest.mark.parametrize("compare", [leave_one_out, lambda rewards, group: group_relative(rewards, group, True)])
def test_groups_of_one_and_of_what_does_not_divide_are_refused(compare, group):
    with pytest.raises(UserError, match=f"12 completions in groups of {group}"):
        compare(REWARDS_B, group)
