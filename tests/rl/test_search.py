import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from research.core import sharding
from research.core.errors import UserError
from research.core.sharding import split_rows
from research.rl import search
from research.rl.arena import Arena
from research.rl.games import Game, reward_of
from tests.rl import perfect
from tests.rl.perfect import GAME

SIMULATIONS = 16
ILLEGAL_MOVES: list[int] = []  # that a Watched game has been asked for


@dataclasses.dataclass(frozen=True)
class Watched(Game):
    """Takes note of the moves that are not allowed."""

    def step(self, state, action_G):
        allowed_G = jnp.take_along_axis(state.legal_action_mask, action_G[:, None], axis=1)[:, 0]
        jax.debug.callback(lambda wrong: ILLEGAL_MOVES.append(int(wrong)), (~allowed_G & ~state.terminated).sum())
        return super().step(state, action_G)


def player(name, game=GAME, evaluate=None, explore=False):
    if name == "uct":
        return search.uct(game, 3 * SIMULATIONS)
    return search.searching(game, evaluate or ignorant, name, SIMULATIONS, explore)


def ignorant(key, state):
    return jnp.zeros(state.legal_action_mask.shape), jnp.zeros(len(state.terminated))


def knowing(key, state):
    return search.network(perfect.predict, 1.0)(key, state)


@functools.cache
def chooses(name, evaluate=None, explore=False, watched=False):
    return jax.jit(player(name, Watched(GAME.name) if watched else GAME, evaluate, explore))


@pytest.mark.parametrize("name, simulations, most", [pytest.param("puct", 9, 0, marks=pytest.mark.slow), ("gumbel", 24, 3)])
def test_who_knows_the_worth_of_positions_does_not_lose_and_who_has_it_the_wrong_way_round_does(name, simulations, most):
    """Over all games that there can be. Gumbel's means over few replies, some of which nobody would make, err now and then even so."""
    arena = Arena(GAME, perfect.predict, name, simulations, ("any",), 2, 0)
    arena.__dict__["_solved"] = perfect.solved()  # solved once for all tests
    assert arena.evaluate(1.0)["lost_to_any"] <= most
    assert arena.evaluate(-1.0)["lost_to_any"] > 200


# Two in a row, which the third wins; for who began, and for the other.
MATES = {"0314": 2, "8642": 0, "03148": 5, "13047": 5}


@pytest.mark.parametrize("name", ["gumbel", "puct", "uct"])
@pytest.mark.parametrize("line", MATES)
def test_a_move_that_wins_is_found(name, line):
    choice = chooses(name)(jax.random.key(0), perfect.after(line))
    assert choice.action_G == MATES[line] and choice.value_G == pytest.approx(1) and choice.policy_GA[0].argmax() == MATES[line]


@pytest.mark.parametrize("name", ["gumbel", "puct", "uct"])
def test_moves_that_are_not_allowed_are_neither_made_nor_looked_at(name):
    state = perfect.positions(64)
    ILLEGAL_MOVES.clear()
    choice = jax.device_get(chooses(name, explore=True, watched=True)(jax.random.key(1), state))
    jax.effects_barrier()
    assert ILLEGAL_MOVES and not any(ILLEGAL_MOVES)
    assert state.legal_action_mask[np.arange(64), choice.action_G].all()
    np.testing.assert_allclose(choice.policy_GA.sum(1), 1, rtol=1e-5)
    assert not choice.policy_GA[~state.legal_action_mask].any() and not choice.visits_GA[~state.legal_action_mask].any()
    assert (choice.visits_GA.sum(1) == (3 if name == "uct" else 1) * SIMULATIONS).all()
    assert len(set(choice.action_G[::8].tolist())) > 1, "the same position, explored"


@pytest.mark.parametrize("name, least", [("gumbel", 1), ("puct", 0.9)])
def test_what_is_good_for_one_player_is_bad_for_the_other(name, least):
    """The sign of what is expected; PUCT with so few simulations may not have tried the one move that wins."""
    state = perfect.positions(256)
    worth_G = perfect.solved().worth(state)
    choice = jax.device_get(chooses(name, knowing)(jax.random.key(0), state))
    decided_G = worth_G != 0
    assert (worth_G == 1).sum() > 20 and (worth_G == -1).sum() > 10
    assert (np.sign(choice.value_G) == worth_G)[decided_G].mean() >= least


def test_plain_search_tries_any_move_first():
    """A bias to those of low number would make a weaker player of him than he is."""
    alone = jax.jit(search.uct(GAME, 1))(jax.random.key(0), GAME.start(jax.random.split(jax.random.key(1), 900)))
    counts_A = jax.device_get(alone.visits_GA).sum(0)
    assert counts_A.sum() == 900 and (abs(counts_A - 100) < 45).all()
    twice = jax.jit(search.uct(GAME, 9))(jax.random.key(0), GAME.start(jax.random.split(jax.random.key(1), 8)))
    assert (twice.visits_GA == 1).all(), "each once before any a second time"


def test_who_knows_nothing_sees_who_wins_in_a_few_moves():
    """The first player wants one stone in three rows: what random games say when the second is to move, and when the first is."""
    lost, won = perfect.after("08256"), perfect.after("082561")
    assert perfect.solved().worth(lost) == -1 and perfect.solved().worth(won) == 1
    assert chooses("uct")(jax.random.key(0), lost).value_G < -0.5 and chooses("uct")(jax.random.key(0), won).value_G > 0.9


def test_gumbel_draws_lots_only_where_it_explores():
    state = perfect.positions(64)
    one, other = (chooses("gumbel", knowing)(jax.random.key(seed), state) for seed in (0, 1))
    jax.tree.map(np.testing.assert_array_equal, one, other)
    one, other = (chooses("gumbel", explore=True)(jax.random.key(seed), state) for seed in (0, 1))
    assert (one.action_G != other.action_G).mean() > 0.3


def test_puct_makes_the_move_most_visited_unless_it_explores():
    state = perfect.positions(64)
    choice = chooses("puct", knowing)(jax.random.key(0), state)
    np.testing.assert_array_equal(choice.visits_GA[np.arange(64), choice.action_G], choice.visits_GA.max(1))
    np.testing.assert_allclose(choice.policy_GA, choice.visits_GA / SIMULATIONS, rtol=1e-5)
    explored = chooses("puct", explore=True)(jax.random.key(0), state)
    assert (explored.action_G != explored.visits_GA.argmax(1)).mean() > 0.2


def test_the_policy_to_learn_prefers_what_wins():
    state = perfect.after("0314")
    for name in ("gumbel", "puct"):
        policy_A = chooses(name)(jax.random.key(0), state).policy_GA[0]
        assert policy_A.argmax() == 2 and policy_A[2] > 2 / 5, "of five moves allowed"


def test_random_games_end_as_they_should():
    evaluate = jax.jit(search.rollouts(GAME))
    state = perfect.after("03145678", "01243576")  # one cell is left, which brings the first a row, or a draw
    logits_GA, value_G = evaluate(jax.random.key(0), state)
    assert not logits_GA.any() and value_G.tolist() == perfect.solved().worth(state).tolist() == [1, 0]
    state = perfect.positions(1024)
    lost_G = (state._step_count == 7) & (perfect.solved().worth(state) == -1)
    assert lost_G.any() and (evaluate(jax.random.key(0), state)[1][lost_G] == -1).all(), "to whoever is to move, whichever of two cells he takes"
    mean = evaluate(jax.random.key(0), jax.tree.map(lambda x: np.repeat(x[:1], 4096, 0), state))[1].mean()
    assert float(mean) == pytest.approx(0.585 - 0.288, abs=0.05), "who begins a random game wins 58.5 %, loses 28.8 %"


def test_a_random_player_makes_any_move_alike():
    state = jax.tree.map(lambda x: np.repeat(x, 4000, 0), perfect.after("04862"))
    choice = jax.jit(search.random_player(GAME))(jax.random.key(0), state)
    counts = np.bincount(choice.action_G, minlength=9)
    np.testing.assert_allclose(counts / 4000, state.legal_action_mask[0] / 4, atol=0.03)
    np.testing.assert_allclose(choice.policy_GA[0], state.legal_action_mask[0] / 4)


def test_the_reward_is_that_of_the_player_asked_for():
    state = perfect.after("03142", "03147")
    other_G = state.current_player
    assert reward_of(state, 1 - other_G).tolist() == [1, 0] and reward_of(state, other_G).tolist() == [-1, 0]


@pytest.mark.parametrize("name", ["gumbel", pytest.param("uct", marks=pytest.mark.slow)])
def test_devices_search_each_for_its_own_games(name):
    """What they say to each other is whether all are done, and not what is in their trees."""
    mesh, state = sharding.make_mesh({"pipeline": 1, "data": 1, "fsdp": 8, "context": 1, "tensor": 1}), perfect.positions(64)
    with jax.set_mesh(mesh), nn.logical_axis_rules(sharding.make_rules("fsdp")):
        moves = jax.jit(lambda key, state: split_rows(player(name)(key, split_rows(state)).action_G))
        program = moves.lower(jax.random.key(0), state).compile().as_text()
        found = moves(jax.random.key(0), state)
    said = re.findall(r" (\S+) (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)\(", program)
    assert said and {(shape, what) for shape, what in said} == {("pred[]", "all-reduce")}
    np.testing.assert_array_equal(found, chooses(name)(jax.random.key(0), state).action_G)
    assert found.addressable_shards[0].data.shape == (8,)


def test_an_unknown_search_is_refused():
    with pytest.raises(UserError, match="rl.search.*gumbel"):
        search.searching(GAME, ignorant, "alpha_beta", 8, False)
