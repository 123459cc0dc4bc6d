"""A run of an agent that plays + you, at the terminal.

    python -m research.play --workdir=runs/connect_four [--you=first|second|none] [--step=N] [--config.rl.simulations=200]
        [--svg=game.svg] [--sgf=game.sgf]

Shows the board, what the network expects (+1: it wins, -1: it loses), and the moves that it looked at, by how often. A move is a column (4), a cell (e5), pass
or swap; `undo` takes back your last one, `quit` ends. --you=none: the network plays itself. --svg writes the game as an animated picture; --sgf, of Go, as a
record that other programs read.
"""

import pathlib
import sys

import jax
import numpy as np
from absl import flags

from configs import base
from research import build, restore, tables
from research.core import config as config_lib
from research.core.errors import UserError, run_command
from research.core.streams import stream
from research.rl import boards
from research.rl.games import reward_of

KOMI = {"go_9x9": 7.5, "go_19x19": 7.5}  # what pgx counts


def main(argv):
    values, config = config_lib.parse_run(argv, base.get_config(), define)
    workdir, config = pathlib.Path(values.workdir), restore.fitting(config, argv)
    e = build.experiment(config)
    arena = tables.arena(config, e.objective)
    game = arena.game
    check_files(values, game)
    if game.name not in boards.SHOWN and values.you != "none":
        raise UserError(f"the board of {game.name} is not shown here: --you=none --svg=game.svg draws a game of the network with itself.")
    step, params = restore.trained_params(e, workdir, values.step)
    choose = jax.jit(lambda params, state: arena.player(params)(stream(0, 0, "match"), state))
    print(f"{game.name} against step {step} of {workdir}, {arena.simulations} simulations a move. You are {values.you}.", file=sys.stderr)
    states, actions = play(game, lambda state: jax.device_get(choose(params, state)), {"first": 0, "second": 1, "none": None}[values.you])
    result = ending(states, values.you)
    print(result)
    write(values, game, states, actions)


def define(values):
    flags.DEFINE_enum("you", "first", ["first", "second", "none"], "Whether you begin.", flag_values=values)
    flags.DEFINE_integer("step", None, "Which checkpoint; absent: the latest.", flag_values=values)
    flags.DEFINE_string("svg", None, "Where the game goes as a picture.", flag_values=values)
    flags.DEFINE_string("sgf", None, "Where a game of Go goes as a record.", flag_values=values)


def check_files(values, game):
    if values.sgf and game.name not in KOMI:
        raise UserError(f"--sgf is for Go, this is {game.name}: leave it out.")
    for flag in ("svg", "sgf"):
        path = values[flag].value
        if path and (not path.endswith(f".{flag}") or not pathlib.Path(path).absolute().parent.is_dir()):
            raise UserError(f"--{flag}={path}: name a file that ends in .{flag}, in a directory that is there.")


def play(game, choose, you: int | None):
    """Plays one game; returns its states, the first to the last, and the moves between them. `you`: the turn, 0 or 1, that the terminal takes."""
    step = jax.jit(game.step)
    states, actions = [game.start(jax.random.split(stream(0, 0, "match"), 1))], list[int]()
    one = lambda state: jax.tree.map(lambda x: np.asarray(x)[0], state)
    while not states[-1].terminated[0]:
        print("\n" + boards.picture(game, one(states[-1]), actions[-1] if actions else None))
        if len(actions) % 2 == you:
            action = ask(game, one(states[-1]), len(actions) > 1)
            if action is None:
                break
            if action < 0:
                del states[-2:], actions[-2:]
                continue
        else:
            choice = choose(states[-1])
            action = int(choice.action_G[0])
            print(thoughts(game, choice))
        states.append(step(states[-1], np.array([action], np.int32)))
        actions.append(action)
    print("\n" + boards.picture(game, one(states[-1]), actions[-1] if actions else None))
    return states, actions


def ask(game, state, can_undo: bool) -> int | None:
    """The move that is typed; -1 to take one back, None to end."""
    while True:
        try:
            text = input("your move: ")
        except EOFError:
            return None
        if text.strip() == "quit":
            return None
        if text.strip() == "undo" and can_undo:
            return -1
        try:
            return boards.read_move(game, text, state.legal_action_mask)
        except UserError as e:
            print(e)


def thoughts(game, choice) -> str:
    """What the network expects, and the five moves that most simulations went through."""
    visits_A, policy_A = choice.visits_GA[0], choice.policy_GA[0]
    best = [int(action) for action in np.argsort(-visits_A, kind="stable")[:5] if visits_A[action]]
    looked = ", ".join(f"{boards.move_name(game, action)} {visits_A[action]} ({policy_A[action]:.0%})" for action in best)
    move = boards.move_name(game, int(choice.action_G[0]))
    return f"network: {move}    expects {choice.value_G[0]:+.2f}    simulations (policy): {looked}"


def ending(states, you: str) -> str:
    """Who won, in words."""
    first = states[0].current_player
    reward = float(reward_of(states[-1], first)[0])
    if not states[-1].terminated[0]:
        return "The game was not played to its end."
    if reward == 0:
        return "A draw."
    winner = "first" if reward > 0 else "second"
    return f"The {winner} player wins." if you == "none" else "You win." if you == winner else "The network wins."


def write(values, game, states, actions):
    if values.svg:
        import pgx  # which uses JAX as soon as it is imported

        pgx.save_svg_animation([jax.tree.map(lambda x: x[0], state) for state in states], values.svg, frame_duration_seconds=0.7)
        print(f"The game as a picture: {values.svg}")
    if values.sgf:
        names = ("you", "network") if values.you == "first" else ("network", "you") if values.you == "second" else ("network", "network")
        reward = float(reward_of(states[-1], states[0].current_player)[0])
        result = ("B+" if reward > 0 else "W+") if states[-1].terminated[0] else "Void"
        pathlib.Path(values.sgf).write_text(boards.sgf(game, actions, KOMI[game.name], names, result))
        print(f"The game as a record: {values.sgf}")


if __name__ == "__main__":
    run_command(main)
