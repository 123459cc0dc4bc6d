import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.core.errors import UserError
from research.models.vit import Vit, VitConfig, pixels
from research.objectives.symmetry import SYMMETRIES, transform
from research.rl.games import KNOWN, SYMMETRY, Game
from tests.tiny import transformer_config

SMALL, LARGE = ("animal_shogi", "gardner_chess"), ("go_19x19", "chess", "shogi")  # of those that take long to compile
LINES = 4


@functools.cache
def compiled(name):
    """start and step of a game."""
    game = Game(name)
    return jax.jit(game.start), jax.jit(game.step)


def begin(name, games):
    return jax.device_get(compiled(name)[0](jax.random.split(jax.random.key(0), games)))


def step(name, state, action_G):
    return jax.device_get(compiled(name)[1](state, np.asarray(action_G, np.int32)))


def any_move(rng, legal_A):
    """At random, the last one, which may be a pass or a swap, more often."""
    allowed = np.flatnonzero(legal_A)
    return allowed[-1] if rng.random() < 0.15 else rng.choice(allowed)


def costly(names):
    marks = {name: pytest.mark.slow for name in SMALL} | {name: (pytest.mark.slow, pytest.mark.long) for name in LARGE}
    return [pytest.param(name, marks=marks.get(name, ())) for name in names]


@pytest.mark.parametrize("name", ["backgammon", "kuhn_poker", "2048", "minatar-breakout", "conect_four", ""])
def test_what_no_search_here_looks_through_is_refused(name):
    message = f"rl.environment is {name!r}: choose one of tic_tac_toe, connect_four, .* have dice, hidden cards or one player, which no search"
    with pytest.raises(UserError, match=message) as refused:
        Game(name)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", costly(KNOWN))
def test_players_take_turns_and_a_model_takes_the_board(name):
    game, rng, state = Game(name), np.random.default_rng(0), begin(name, LINES)
    model = Vit(transformer_config(VitConfig, norm="pre", **game.model_fields()))
    image = model.inputs(LINES, 0)["image"]
    assert image.shape == state.observation.shape and state.legal_action_mask.shape == (LINES, game.actions)
    game.check(image, game.actions)
    assert len(set(state.current_player)) == 2, "either may begin"
    for _ in range(30):
        after = step(name, state, [any_move(rng, legal_A) for legal_A in state.legal_action_mask])
        np.testing.assert_array_equal(after.current_player[~state.terminated], 1 - state.current_player[~state.terminated])
        assert not after.rewards[~after.terminated | state.terminated].any(), "rewards come with the move that ends the game, and once"
        assert not after.truncated.any()
        state = after


def test_planes_are_seen_as_they_are():
    game = Game("connect_four")
    config = transformer_config(VitConfig, norm="pre", **game.model_fields())
    assert config.sides == (6, 7) and config.patches == 42 and game.actions == 7
    np.testing.assert_allclose(pixels(np.array([[0, 1]], bool), config), [[0, 1]], rtol=1e-6)


@pytest.mark.parametrize("shape, actions", [((2, 7, 6, 2), 7), ((2, 6, 7, 3), 7), ((2, 6, 7, 2), 8)])
def test_a_model_that_does_not_fit_is_refused(shape, actions):
    fields = "model.image_size=6, model.image_width=7, model.channels=2, model.patch_size=1 and objective.actions=7"
    with pytest.raises(UserError, match=f"connect_four has a board of 6 x 7 cells with 2 planes and 7 moves: set {fields}"):
        Game("connect_four").check(jax.ShapeDtypeStruct(shape, "uint8"), actions)


@functools.partial(jax.jit, static_argnums=0)
def turned(symmetry, which_N, arrays):
    return jax.vmap(functools.partial(transform, symmetry))(which_N, arrays)


def differences(name, symmetry, plies=60):
    """The transformations after which random lines of play, their moves transformed, do not show the boards and legal moves transformed."""
    count, rng = len(SYMMETRIES[symmetry]), np.random.default_rng(1)
    which_N = np.repeat(np.arange(count), LINES)
    state = begin(name, LINES * count)
    seen = lambda state: {"image": state.observation, "legal": state.legal_action_mask}
    other = state.replace(current_player=state.current_player)
    if name == "othello":  # whose first stones a quarter turn exchanges
        moved = turned(symmetry, which_N, seen(state) | {"board": state._x.board})
        other = state.replace(observation=moved["image"], legal_action_mask=moved["legal"], _x=state._x._replace(board=moved["board"]))
    wrong = set()
    for _ in range(plies):
        found, expected = seen(other), turned(symmetry, which_N, seen(state))
        same_N = [all(np.array_equal(found[x][n], expected[x][n]) for x in found) for n in range(len(which_N))]
        wrong |= set(which_N[~np.array(same_N)].tolist())
        action_N = np.tile([any_move(rng, legal_A) for legal_A in state.legal_action_mask[:LINES]], count)
        one_hot_NA = np.eye(Game(name).actions, dtype=np.float32)[action_N]
        moved_NA = turned(symmetry, which_N, {"image": state.observation, "policy": one_hot_NA})["policy"]
        state, other = step(name, state, action_N), step(name, other, np.argmax(moved_NA, 1))
    return wrong


@pytest.mark.parametrize("name", costly(SYMMETRY))
def test_a_game_is_the_same_under_all_its_transformations(name):
    assert differences(name, Game(name).symmetry) == set()


@pytest.mark.parametrize("name, symmetry, wrong", [("connect_four", "half_turn", {1}), ("hex", "dihedral", {1, 3, 4, 6}), ("hex", "reflection", {1})])
def test_a_transformation_that_is_no_symmetry_shows(name, symmetry, wrong):
    assert differences(name, symmetry) >= wrong


def test_every_transformation_is_another():
    board = jnp.arange(16.0).reshape(4, 4)
    for symmetry, functions in SYMMETRIES.items():
        assert len({np.asarray(function(board)).tobytes() for function in functions}) == len(functions), symmetry
    assert {Game(name).symmetry for name in KNOWN} == set(SYMMETRIES), "games without a row have none"


def test_a_game_opens_with_as_many_moves_as_asked_for_and_never_at_its_end():
    game, most = Game("tic_tac_toe"), 9
    moves_G = np.tile(np.arange(most + 1), 20)
    new = begin("tic_tac_toe", len(moves_G))
    opened = jax.device_get(jax.jit(game.opened, static_argnums=2)(new, moves_G, most, jax.random.key(0)))
    assert not opened.terminated.any()
    count_G, stones_G = opened._step_count, opened.observation.sum((1, 2, 3))
    np.testing.assert_array_equal(count_G, stones_G)
    np.testing.assert_array_equal(count_G[moves_G < 5], moves_G[moves_G < 5])
    later = moves_G >= 5  # when a game may have ended
    assert ((count_G == moves_G) | (count_G == 0))[later].all() and (count_G[moves_G == 9] == 0).all() and (count_G[later] > 0).any()
    assert len({board.tobytes() for board in opened.observation[moves_G == 3]}) > 10, "at random"
    np.testing.assert_array_equal(opened.current_player, (new.current_player + count_G) % 2)


def test_a_game_that_a_compiled_function_is_the_first_to_ask_for_is_none_the_worse():
    """pgx imports a game's module when it is asked for; in a process of its own, where nobody has."""
    lines = "import jax", "from research.rl.games import Game", "g = Game('tic_tac_toe')"
    lines += "jax.jit(g.start)(jax.random.split(jax.random.key(0), 2))", "assert g.env.observation_shape == (3, 3, 2)"
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["tic_tac_toe", "connect_four", "hex", "go_9x9"])
def test_no_game_is_longer_than_the_table_says(name):
    """Moves at random, but never the last action, which is passing or swapping where there is one: games as long as they can be, all but those of Othello."""
    game = Game(name)
    step, state = jax.jit(game.step), game.start(jax.random.split(jax.random.key(0), 16))
    moves, over, rng = 0, np.zeros(16, bool), np.random.default_rng(0)
    while not over.all():
        allowed = np.asarray(state.legal_action_mask).copy()
        allowed[:, -1] &= (allowed.sum(1) == 1) | (game.actions == game.shape[1]) | (game.actions == 9)
        state = step(state, np.array([rng.choice(np.flatnonzero(row)) for row in allowed], np.int32))
        moves, over = moves + 1, np.asarray(state.terminated)
    assert moves <= game.longest and (moves == game.longest or name != "go_9x9")
