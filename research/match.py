"""A run of an agent that plays -> how strong it is.

    python -m research.match --workdir=runs/connect_four [--step=N] [--opponents=random --opponents=mcts:256 ...]
        [--config.rl.eval_games=200] [--config.rl.simulations=64]
    python -m research.match --workdir=runs/connect_four --ladder=6 [--config.rl.opening=4]

Plays matches, half of the games begun, with each opponent (see rl.opponents in configs/base.py; absent: the run's own), and prints a table. --ladder=N: up to
so many of the checkpoints that the run has kept, the first, the last and others between, play all each other, each pair of games from the same rl.opening moves
at random; prints who took 55 % of the points from the champion before, and Elo with its 95 % interval, and draws them as plots/elo.png of the run.
"""

import itertools
import pathlib

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from absl import flags
from tqdm import tqdm

from configs import base
from research import build, restore, tables
from research.core import config as config_lib
from research.core.errors import UserError, run_command
from research.rl import elo
from research.rl.arena import EVERY
from research.rl.matches import Score
from research.training.checkpoint import existing


def main(argv):
    values, config = config_lib.parse_run(argv, base.get_config(), define)
    workdir, config = pathlib.Path(values.workdir), restore.fitting(config, argv)
    if values.ladder and (values.opponents or values.step is not None):
        raise UserError("--ladder is of checkpoints among themselves: leave out --opponents and --step.")
    if values.ladder and config.rl.opening < 1:
        raise UserError("rl.opening is 0: neither of two checkpoints draws lots, so all games of a ladder would be alike; set it to 1 or more.")
    if values.opponents:
        config = config_lib.changed(config, {"rl.opponents": tuple(values.opponents)})
    e = build.experiment(config)
    arena = tables.arena(config, e.objective)
    with e.in_force():
        if values.ladder:
            ladder(e, arena, workdir, values.ladder)
            return
        step, params = restore.trained_params(e, workdir, values.step)
        print(f"{config.rl.environment}: step {step} of {workdir}, {config.rl.simulations} simulations a move ({config.rl.search})\n")
        rows = [("opponent", "who begins", "won", "drawn", "lost", "points", "95 % interval")]
        for opponent in tqdm(config.rl.opponents, desc="matches", leave=False):
            beginning, second = arena.scores(params, opponent)
            drawn = opponent not in EVERY  # of all the games that there could be
            rows += [(opponent, "network", *cells(beginning, drawn)), ("", opponent, *cells(second, drawn)), ("", "both", *cells(beginning + second, drawn))]
        print("\n".join(aligned(rows)))


def define(values):
    flags.DEFINE_integer("step", None, "Which checkpoint; absent: the latest.", flag_values=values)
    flags.DEFINE_multi_string("opponents", [], "Whom to play: random, mcts:N, perfect, any; may be repeated.", flag_values=values)
    flags.DEFINE_integer("ladder", None, "Up to so many checkpoints against each other.", lower_bound=2, flag_values=values)


def cells(score: Score, drawn: bool) -> tuple[str, ...]:
    low, high = score.interval
    return (*(f"{count:,}" for count in score), f"{score.points:.1%}", f"{low:.1%} to {high:.1%}" if drawn else "all games")


def aligned(rows) -> list[str]:
    """The rows of a table as lines, words to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) if i < 2 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))) for row in rows]


def ladder(e: build.Experiment, arena, workdir: pathlib.Path, most: int):
    kept = existing(workdir).steps
    if len(kept) < 2:
        raise UserError(f"{workdir} has kept one checkpoint alone: a ladder is of several, run.keep says how many.")
    steps = [kept[i] for i in sorted({round(i) for i in np.linspace(0, len(kept) - 1, most)})]
    params = [restore.trained_params(e, workdir, step)[1] for step in steps]
    points, games = np.zeros((2, len(steps), len(steps)))
    pairs = list(itertools.combinations(range(len(steps)), 2))
    for i, j in tqdm(pairs, desc="matches", leave=False):
        began, did_not = arena.against(params[i], params[j])
        score = began + did_not
        points[i, j], points[j, i] = score.points * score.games, (1 - score.points) * score.games
        games[i, j] = games[j, i] = score.games
    found, champions = elo.ratings(points, games), elo.gate(points, games)
    rows = [("step", "", "Elo", "95 % interval", "points of the champion before")]
    for i, step in enumerate(steps):
        before = [champion for champion in champions if champion < i]
        taken = f"{points[i, before[-1]] / games[i, before[-1]]:.1%}" if before else ""
        rows.append((f"{step}", "champion" if i in champions else "", f"{found.elo_N[i]:+.0f}", f"± {found.interval_N[i]:.0f}", taken))
    print("\n".join(aligned(rows)))
    (workdir / "plots").mkdir(exist_ok=True)
    draw(steps, found, champions, workdir / "plots" / "elo.png")
    print(f"\n{len(pairs)} matches of {arena.games} games, {arena.simulations} simulations a move. Drawn in {workdir / 'plots' / 'elo.png'}.")


def draw(steps: list[int], found: elo.Ratings, champions: list[int], path: pathlib.Path):
    figure, axis = plt.subplots(figsize=(5.2, 3.6), layout="constrained")
    axis.errorbar(steps, found.elo_N, found.interval_N, color="#d94801", marker=".", capsize=3, label="Elo, 95 % interval")
    axis.plot([steps[i] for i in champions], found.elo_N[champions], "o", markersize=9, markerfacecolor="none", color="#08519c", label="champions")
    axis.set(xlabel="step", ylabel=f"Elo over step {steps[0]}")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    run_command(main)
