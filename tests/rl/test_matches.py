import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import match as match_command
from research.core.errors import UserError
from research.rl import elo
from research.rl.arena import Arena
from research.rl.games import Game
from research.rl.matches import Score, match, score
from research.rl.search import Choice, random_player
from research.rl.solver import Solved, power_of_two
from tests.rl import perfect
from tests.rl.perfect import GAME
from tests.rl.test_self_play import LINES
from tests.test_train import call, error

KEY = jax.random.key(0)


def preferring(rank_A):
    """The move allowed that comes first in a ranking."""

    def play(key, state):
        return Choice(jnp.where(state.legal_action_mask, jnp.asarray(rank_A), 99).argmin(1), *[None] * 3)

    return play


def plain(_):
    return random_player(GAME)


def mirrored(score):
    return Score(*reversed(score))


def test_who_always_wins_does_so_whoever_begins():
    """One wants a diagonal, the other, who does not see it, cells beside."""
    wants, lets = (jnp.array(ranks) for ranks in ([5, 6, 0, 7, 1, 8, 2, 4, 3], [0, 1, 5, 2, 6, 3, 7, 4, 8]))
    assert match(GAME, preferring, preferring, 20, 0, wants, lets, KEY) == (Score(10, 0, 0), Score(10, 0, 0))
    assert match(GAME, preferring, preferring, 20, 0, lets, wants, KEY) == (Score(0, 0, 10), Score(0, 0, 10))


@pytest.mark.parametrize("opening", [2, 3])
def test_players_who_change_places_change_their_scores(opening):
    """The same openings are played both ways, so that a player does as well as himself."""
    one, other = jnp.arange(9), jnp.arange(9)[::-1]
    began, did_not = match(GAME, preferring, preferring, 80, opening, one, other, KEY)
    assert match(GAME, preferring, preferring, 80, opening, other, one, KEY) == (mirrored(did_not), mirrored(began))
    began, did_not = match(GAME, preferring, preferring, 80, opening, one, one, KEY)
    assert did_not == mirrored(began) and min(began.won, began.lost) > 0, "openings differ"


@pytest.mark.slow
def test_who_never_errs_never_loses_and_who_always_errs_does(opening=1):
    """One move at random spoils nothing."""
    assert all(found.lost == 0 and found.won > 20 for found in match(GAME, perfect.player, plain, 64, opening, 1.0, None, KEY))
    assert all(found.lost > 12 for found in match(GAME, perfect.player, plain, 64, opening, -1.0, None, KEY))
    assert all(found.drawn == 32 for found in match(GAME, perfect.player, perfect.player, 64, opening, 1.0, 1.0, KEY))


def test_scores_add_up():
    assert score(np.array([1.0, 1, 0, -1])) == Score(2, 1, 1) and Score(2, 1, 1) + Score(0, 5, 1) == Score(2, 6, 2)
    assert Score(2, 1, 1).games == 4 and Score(2, 1, 1).points == 5 / 8


@pytest.mark.parametrize(
    "found, low, high",
    [
        (Score(50, 0, 50), 0.4038, 0.5962),
        (Score(0, 100, 0), 0.4038, 0.5962),
        (Score(10, 0, 0), 0.7225, 1),
        (Score(0, 0, 10), 0, 0.2775),
        (Score(81, 0, 182), 0.2553, 0.3662),  # Newcombe (1998), table I: 81 of 263
    ],
)
def test_the_interval_is_wilson_s(found, low, high):
    assert found.interval == pytest.approx((low, high), abs=1e-4)


def played(strength_N, games, rng=None):
    """(points, games) of all against all, as often as expected or drawn by lot."""
    N = len(strength_N)
    points_NN, games_NN = np.zeros((N, N)), games * (1 - np.eye(N))
    for i in range(N):
        for j in range(i):
            chance = 1 / (1 + 10 ** ((strength_N[j] - strength_N[i]) / 400))
            points_NN[i, j] = games * chance if rng is None else rng.binomial(games, chance)
            points_NN[j, i] = games - points_NN[i, j]
    return points_NN, games_NN


STRENGTH = np.array([0.0, 120.0, -80.0, 300.0])


def test_ratings_are_found_again():
    found = elo.ratings(*played(STRENGTH, 1_000_000))
    np.testing.assert_allclose(found.elo_N, STRENGTH, atol=0.1)
    assert found.elo_N[0] == found.interval_N[0] == 0 and (found.interval_N[1:] < 1).all()
    assert elo.ratings([[0, 250], [750, 0]], [[0, 1000], [1000, 0]]).elo_N[1] == pytest.approx(400 * np.log10(3), abs=1)


def test_intervals_hold_what_they_should():
    """About 95 % of the time, over many tournaments by lot."""
    rng, held = np.random.default_rng(0), []
    for _ in range(400):
        found = elo.ratings(*played(STRENGTH, 60, rng))
        held.append(abs(found.elo_N - STRENGTH)[1:] <= found.interval_N[1:])
    assert 0.92 < np.mean(held) < 0.98


def test_ratings_do_not_depend_on_the_order_of_players():
    points_NN, games_NN = played(STRENGTH, 40, np.random.default_rng(1))
    one, order = elo.ratings(points_NN, games_NN).elo_N, np.array([2, 0, 3, 1])
    np.testing.assert_allclose(elo.ratings(points_NN[order][:, order], games_NN).elo_N, one[order] - one[2], atol=1e-6)
    np.testing.assert_allclose(elo.ratings(points_NN.T, games_NN).elo_N, -one, atol=1e-6)


def test_who_lost_all_has_a_rating():
    points_NN, games_NN = np.array([[0, 20, 20], [0, 0, 10], [0, 10, 0]]), 20 * (1 - np.eye(3))
    found = elo.ratings(points_NN, games_NN)
    assert np.isfinite(found.elo_N).all() and np.isfinite(found.interval_N).all()
    assert found.elo_N[1] == pytest.approx(found.elo_N[2]) and found.elo_N[1] < -400
    apart = elo.ratings(np.array([[0, 5, 0], [5, 0, 5], [0, 5, 0]]), np.array([[0, 10, 0], [10, 0, 10], [0, 10, 0]]))
    np.testing.assert_allclose(apart.elo_N, 0, atol=1e-6), "two who never met"


def test_a_champion_is_who_took_enough_from_the_one_before():
    points_NN = np.array([[0, 50, 46, 0, 0], [50, 0, 0, 0, 0], [54, 0, 0, 44, 30], [55, 9, 56, 0, 45.0], [99, 9, 70, 55, 0]])
    games_NN = 100 * (1 - np.eye(5))
    assert elo.gate(points_NN, games_NN) == [0, 3, 4] and elo.gate(points_NN, games_NN, least=0.5) == [0, 1]
    assert elo.gate(points_NN, games_NN, least=0.54) == [0, 2, 3, 4]


# Tic-tac-toe in plain Python, a board as a tuple of nine cells: 1 for who is to move, -1 for the other.


def children(board):
    for action in (i for i, cell in enumerate(board) if not cell):
        after = tuple(1 if i == action else cell for i, cell in enumerate(board))
        won = any(all(after[i] == 1 for i in line) for line in LINES)
        yield action, won, won or all(after), tuple(-cell for cell in after)


@functools.cache
def values(board):
    """What each move is worth."""
    return {action: won if over else -max(values(after).values()) for action, won, over, after in children(board)}


def best(board):
    return {action for action, value in values(board).items() if value == max(values(board).values())}


def endings(board, mine, perfect):
    """(won, drawn, lost) of all games of who makes the first move allowed."""
    total = Score(0, 0, 0)
    for action, won, over, after in children(board):
        if action in ({board.index(0)} if mine else best(board) if perfect else range(9)):
            total += Score(won and mine, not won, won and not mine) if over else endings(after, not mine, perfect)
    return total


def boards_of(state):
    return [tuple(map(int, x[..., 0].reshape(-1).astype(int) - x[..., 1].reshape(-1))) for x in state.observation]


def test_tic_tac_toe_is_solved():
    assert len(perfect.solved()._worth) == 5478
    state = perfect.positions(300)
    np.testing.assert_array_equal(perfect.solved().worth(state), [max(values(board).values()) for board in boards_of(state)])
    assert perfect.solved().worth(state)[0] == 0, "the empty board"
    found = [set(np.flatnonzero(best_A)) for best_A in perfect.solved().best_moves(state)]
    assert found == [best(board) for board in boards_of(state)] and any(len(moves) > 1 for moves in found)


@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.parametrize("perfectly", [True, False])
def test_every_game_there_can_be_is_counted(begins, perfectly):
    found = perfect.solved().every_game(lambda state: state.legal_action_mask.argmax(1), begins, perfectly)
    assert found == endings((0,) * 9, begins, perfectly) and found.lost > 0 and (found.won > 0) == (not perfectly)


def test_a_game_too_large_to_be_solved_is_refused():
    with pytest.raises(UserError, match="connect_four has more than 200,000 positions, too many for a perfect player: tic_tac_toe has few enough"):
        Solved(Game("connect_four"))


def test_sizes_are_powers_of_two():
    assert [power_of_two(n) for n in (0, 1, 2, 3, 4, 5, 64, 65)] == [0, 1, 2, 4, 4, 8, 64, 128]


def arena(**changes):
    return Arena(**dict(game=GAME, predict=perfect.predict, search="gumbel", simulations=9, opponents=("random",), games=16, opening=1) | changes)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"opponents": ("random", "mcts")}, "rl.opponents has 'mcts': they are random, mcts:N for N simulations, perfect, any."),
        ({"opponents": ("mcts:0",)}, "rl.opponents has 'mcts:0'"),
        ({"opponents": ("perfect:3",)}, "rl.opponents has 'perfect:3'"),
        ({"games": 7}, "rl.eval_games is 7: it is even"),
        ({"games": 0}, "rl.eval_games is 0"),
    ],
)
def test_what_cannot_be_measured_is_refused(changes, message):
    with pytest.raises(UserError, match=re.escape(message)):
        arena(**changes)


def test_figures_say_who_was_played():
    measured = arena(opponents=("random", "mcts:4", "perfect", "any"))
    assert measured.figures == ["score_against_random", "score_against_mcts_4", "lost_to_perfect", "lost_to_any"]


@pytest.mark.slow
def test_an_agent_is_measured_alike_each_time_and_the_better_one_is_ahead():
    measured = arena(opponents=("mcts:4",))
    right, wrong = measured.evaluate(1.0), measured.evaluate(-1.0)
    assert list(right) == list(wrong) == measured.figures and right == measured.evaluate(1.0)
    assert right["score_against_mcts_4"] > wrong["score_against_mcts_4"] + 0.2


@pytest.mark.slow
def test_an_agent_is_measured_against_another():
    began, did_not = arena().against(1.0, -1.0)
    assert began.lost + did_not.lost == 0 and (began + did_not).points > 0.7
    began, did_not = arena().against(1.0, 1.0)
    assert did_not == mirrored(began) and began.games == 8


@pytest.mark.slow
def test_the_table_of_a_match_adds_up(runs):
    printed = call(match_command, f"--workdir={runs('tic_tac_toe', 1, 3)}", "--opponents=random", "--opponents=any", "--step=1")
    assert printed.startswith("tic_tac_toe: step 1 of ") and "4 simulations a move (gumbel)" in printed
    counts = [[int(cell.replace(",", "")) for cell in re.findall(r" ([\d,]+)(?= )", line)[:3]] for line in printed.splitlines()[3:]]
    assert len(counts) == 6 and all(len(row) == 3 for row in counts)
    for network, opponent, both in (counts[:3], counts[3:]):
        assert both == [a + b for a, b in zip(network, opponent)]
    assert sum(counts[0]) == sum(counts[1]) == 6 and "all games" in printed and " to " in printed


@pytest.mark.slow
def test_a_ladder_ranks_the_checkpoints_and_draws_them(runs):
    workdir = runs("tic_tac_toe", 1, 3)
    printed = call(match_command, f"--workdir={workdir}", "--ladder=3")
    header, first, second, *_ = printed.splitlines()
    assert header.split() == "step Elo 95 % interval points of the champion before".split()
    assert first.split() == ["1", "champion", "+0", "±", "0"] and second.split()[0] == "3" and second.endswith("%")
    share, gained = float(second.split()[-1][:-1]) / 100, int(second.split()[-4])
    assert (gained > 0) == (share > 0.5) and ("champion" in second) == (share >= 0.55)
    assert "1 matches of 12 games" in printed and (workdir / "plots/elo.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "name, steps, arguments, message",
    [
        ("tic_tac_toe", (1,), ["--ladder=2"], "has kept one checkpoint alone"),
        ("tic_tac_toe", (1,), ["--opponents=radnom"], "rl.opponents has 'radnom'"),
        ("tic_tac_toe", (1,), ["--ladder=2", "--config.rl.opening=0"], "rl.opening is 0: neither of two checkpoints draws lots"),
        ("tic_tac_toe", (1,), ["--ladder=2", "--step=1"], "leave out --opponents and --step"),
        ("tic_tac_toe", (1,), ["--config.rl.environment=connect_four"], "set model.image_size=6"),
        ("tic_tac_toe", (1,), ["--config.rl.eval_games=3"], "it is even"),
        ("tic_tac_toe", (1,), ["--step=2"], "has no finished checkpoint at step 2; it has: [1]"),
        (None, (), [], "is of no agent that plays board games"),
    ],
)
def test_a_match_that_cannot_be_is_one_line(runs, name, steps, arguments, message):
    assert message in error(match_command, f"--workdir={runs(name, *steps)}", *arguments)
