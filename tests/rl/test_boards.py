import contextlib
import io
import re
import types

import jax
import numpy as np
import pytest

from research import play as play_command
from research.core.errors import UserError, run_command
from research.rl import boards
from research.rl.games import Game
from research.rl.search import Choice
from tests.rl.test_games import any_move, begin, step
from tests.test_train import error


@pytest.mark.parametrize("name", boards.SHOWN)
def test_every_move_has_a_name_of_its_own(name):
    game = Game(name)
    names = [boards.move_name(game, action) for action in range(game.actions)]
    assert len(set(names)) == game.actions and all(word == word.strip().lower() for word in names)
    everything = np.ones(game.actions, bool)
    assert [boards.read_move(game, f"  {word.upper()} ", everything) for word in names] == list(range(game.actions))


@pytest.mark.parametrize(
    "name, action, expected",
    [
        ("tic_tac_toe", 0, "a1"),
        ("tic_tac_toe", 5, "c2"),
        ("connect_four", 0, "1"),
        ("connect_four", 6, "7"),
        ("othello", 19, "d3"),  # where the first player usually begins
        ("othello", 64, "pass"),
        ("hex", 120, "k11"),
        ("hex", 121, "swap"),
        ("go_9x9", 0, "a9"),  # rows from below
        ("go_9x9", 8, "j9"),  # no i
        ("go_9x9", 40, "e5"),
        ("go_9x9", 80, "j1"),
        ("go_9x9", 81, "pass"),
        ("go_19x19", 18, "t19"),
        ("go_19x19", 3 * 19 + 15, "q16"),  # a star point
        ("chess", 1000, "1000"),
    ],
)
def test_moves_are_named_as_players_name_them(name, action, expected):
    assert boards.move_name(Game(name), action) == expected


@pytest.mark.parametrize("text", ["i5", "k1", "e10", "e0", "5e", "", "swap", "pas", "e5"])
def test_what_is_no_move_is_one_line(text):
    legal = np.arange(82) != 40  # but the centre
    with pytest.raises(UserError, match=re.escape(f"{text!r} is no move here: a9, b9, ")) as refused:
        boards.read_move(Game("go_9x9"), text, legal)
    assert "\n" not in str(refused.value) and str(refused.value).endswith(", ....")


def played(name, actions):
    """A game that player 1 begins."""
    state = begin(name, 2)
    assert state.current_player[1] == 1
    for action in actions:
        state = step(name, state, [action, action])
    return jax.tree.map(lambda x: x[1], state)


@pytest.mark.parametrize(
    "name, actions, expected",
    [
        ("tic_tac_toe", [4, 0, 8], " 1  ○  ·  · \n 2  ·  ●  · \n 3  ·  · [●]\n    a  b  c "),
        ("tic_tac_toe", [0, 3, 1, 4, 2], " 1  ●  ● [●]\n 2  ○  ○  · \n 3  ·  ·  · \n    a  b  c "),  # and over
    ],
)
def test_a_board_is_shown_as_it_stands(name, actions, expected):
    assert boards.picture(Game(name), played(name, actions), actions[-1]) == expected


def test_boards_are_shown_the_right_way_up():
    *rows, names = boards.picture(Game("connect_four"), played("connect_four", [3, 3, 0]), 0).splitlines()
    assert [row.split() for row in rows[-2:]] == [["·", "·", "·", "○", "·", "·", "·"], ["●", "·", "·", "●", "·", "·", "·"]]
    assert names.split() == list("1234567") and len(rows) == 6, "stones fall down"
    go = boards.picture(Game("go_9x9"), played("go_9x9", [0, 80, 40, 81]), 81).splitlines()
    assert go[0].split()[:2] == ["9", "●"] and go[8].split()[-1] == "○" and go[8].split()[0] == "1" and go[4].split()[5] == "●"
    assert go[9].split() == list("abcdefghj") and "[" not in "".join(go), "a pass is no cell"
    othello = boards.picture(Game("othello"), played("othello", [19]), 19).splitlines()
    assert othello[2] == " 3  ·  ·  · [●] ·  ·  ·  · " and othello[3].split()[4:6] == ["●", "●"] and othello[4].split()[4:6] == ["●", "○"]
    hexagons = boards.picture(Game("hex"), played("hex", [0, 121]), 121).splitlines()
    assert hexagons[0].split()[1] == "○" and hexagons[10].startswith(" " * 10 + "11"), "swapped, it is the other's"
    assert boards.picture(Game("animal_shogi"), None) == ""


def test_a_game_of_go_is_recorded_move_by_move():
    rng, state, actions = np.random.default_rng(0), begin("go_9x9", 1), [40, 81]
    for action in actions:
        state = step("go_9x9", state, [action])
    for _ in range(20):
        actions.append(int(any_move(rng, state.legal_action_mask[0])))
        state = step("go_9x9", state, actions[-1:])
    record = boards.sgf(Game("go_9x9"), actions, 7.5, ("me", "it"), "B+")
    assert record.startswith("(;GM[1]FF[4]") and record.endswith(")\n") and "SZ[9]KM[7.5]" in record and "PB[me]PW[it]RE[B+]" in record
    moves = re.findall(r";([BW])\[([a-i]{0,2})\]", record)
    assert [colour for colour, _ in moves] == list("BW" * 11) and moves[0][1] == "ee" and moves[1][1] == ""
    assert [81 if not at else "abcdefghi".index(at[1]) * 9 + "abcdefghi".index(at[0]) for _, at in moves] == actions, "column, then row from above"


def typed(monkeypatch, lines, *arguments):
    """What the command prints while these lines are typed, and then no more."""
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    with contextlib.redirect_stdout(io.StringIO()) as out:
        play_command.main(["play", *arguments])
    return out.getvalue()


def test_you_play_at_the_terminal(runs, monkeypatch, tmp_path):
    """Wrong moves are asked for again, and one is taken back."""
    workdir = runs("tic_tac_toe", 1, 3)
    said = typed(monkeypatch, ["x9", "undo", "b2", "b2", "undo", "a1", "quit"], f"--workdir={workdir}", f"--svg={tmp_path}/game.svg")
    asked = said.split("your move: ")
    assert len(asked) == 8
    assert asked[1].startswith("'x9' is no move here: a1, b1, c1, a2, ") and asked[1].count("\n") == 1
    assert "'undo' is no move here" in asked[2], "there is nothing to take back"
    assert "[●]" in asked[3] and "network: " in asked[3] and re.search(r"expects [+-][01]\.\d\d    simulations \(policy\): [abc][123] \d", asked[3])
    assert "'b2' is no move here" in asked[4] and "b2," not in asked[4].split("here:")[1]
    assert asked[5].count("·") == 9 and "●" not in asked[5], "both moves are taken back"
    assert asked[6].splitlines()[1].startswith(" 1 [●]") and asked[6].count("○") >= 1
    assert "The game was not played to its end." in asked[7]
    assert "<svg" in (tmp_path / "game.svg").read_text()


def test_the_network_plays_itself_and_begins_where_you_do_not(runs, monkeypatch):
    workdir = runs("tic_tac_toe", 1, 3)
    said = typed(monkeypatch, [], f"--workdir={workdir}", "--you=none", "--step=1")
    boards_shown = said.count(" 1 ")
    assert "your move" not in said and 5 <= said.count("network: ") <= 9 and boards_shown >= said.count("network: ") + 1
    assert re.search(r"^(A draw|The (first|second) player wins)\.$", said, re.MULTILINE)
    said = typed(monkeypatch, ["quit"], f"--workdir={workdir}", "--you=second")
    assert said.index("network: ") < said.index("your move") and said.count("network: ") == 1


def test_a_game_of_go_is_written_down(runs, monkeypatch, tmp_path):
    """Played by a network with hardly any search, of which no move is looked at."""
    passing = lambda *_: Choice(np.array([81]), np.zeros((1, 82)), np.zeros(1), np.zeros((1, 82), int))
    monkeypatch.setattr(
        play_command.tables, "arena", lambda config, objective: types.SimpleNamespace(game=Game("go_9x9"), simulations=1, player=lambda _: passing)
    )
    with contextlib.redirect_stderr(io.StringIO()):
        said = typed(monkeypatch, ["e5"], f"--workdir={runs('go_9x9', 1)}", f"--sgf={tmp_path}/game.sgf")
    assert "The game was not played to its end." in said and f"{tmp_path}/game.sgf" in said
    assert re.search(r"KM\[7.5\]RU\[Chinese\]PB\[you\]PW\[network\]RE\[Void\];B\[ee\];W\[\]\)$", (tmp_path / "game.sgf").read_text())
    with contextlib.redirect_stderr(io.StringIO()):
        said = typed(monkeypatch, ["e5", "pass"], f"--workdir={runs('go_9x9', 1)}", f"--sgf={tmp_path}/game.sgf")
    assert "You win." in said and "RE[B+];B[ee];W[];B[])" in (tmp_path / "game.sgf").read_text()


def test_who_won_is_said_in_words():
    for line, first, none in (
        ([0, 3, 1, 4, 2], "You win.", "The first player wins."),
        ([0, 3, 1, 4, 8, 5], "The network wins.", "The second player wins."),
    ):
        states = [begin("tic_tac_toe", 1)]
        for action in line:
            states.append(step("tic_tac_toe", states[-1], [action]))
        assert (play_command.ending(states, "first"), play_command.ending(states, "none")) == (first, none)
        assert play_command.ending(states, "second") == ("The network wins." if first == "You win." else "You win.")
        assert play_command.ending(states[:3], "first") == "The game was not played to its end."


@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("tic_tac_toe", ["--sgf=game.sgf"], "--sgf is for Go, this is tic_tac_toe"),
        ("tic_tac_toe", ["--svg=game.png"], "name a file that ends in .svg"),
        ("tic_tac_toe", ["--svg=nowhere/game.svg"], "in a directory that is there"),
        ("tic_tac_toe", ["--step=7"], "no finished checkpoint at step 7"),
        (None, [], "is of no agent that plays board games"),
    ],
)
def test_what_cannot_be_played_is_one_line(runs, name, arguments, message):
    assert message in error(play_command, f"--workdir={runs(name, *([1, 3] if name else []))}", *arguments)


def test_help_says_how():
    with contextlib.redirect_stdout(io.StringIO()) as out:
        run_command(play_command.main, ["play", "--help"])
    assert "--you=first|second|none" in out.getvalue()
