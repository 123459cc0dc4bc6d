"""Strength from who beat whom: the Bradley-Terry model (1952), on the scale of Elo (1978).

N players.
"""

from typing import NamedTuple

import numpy as np

SCALE = 400 / np.log(10)  # Elo points in a natural logarithm of the odds


class Ratings(NamedTuple):
    """Elo of each player, the first at 0, and how far to both sides the 95 % interval of its distance from the first reaches."""

    elo_N: np.ndarray
    interval_N: np.ndarray


def ratings(points_NN, games_NN) -> Ratings:
    """The likeliest ratings: P(i beats j) = 1 / (1 + 10^((elo_j - elo_i) / 400)).

    Args:
      points_NN: what i has won of j, half a point for a draw.
      games_NN: how many they played; symmetric.

    One more game, drawn, is counted between all who played, so that who never lost has a rating too. The intervals come of the Fisher information at the
    maximum, where a draw tells as much as half a game won and half one lost, and every game counts as one of its own: of players who draw no lots only
    those with an opening of their own are, so that in small games with few openings they are too narrow.
    """
    played_NN = np.asarray(games_NN) > 0
    points_NN, games_NN = np.asarray(points_NN, float) + 0.5 * played_NN, np.asarray(games_NN, float) + played_NN
    strength_N = np.zeros(len(points_NN))
    for _ in range(100):  # Newton's method; the likelihood is concave
        expected_NN = 1 / (1 + np.exp(strength_N[None] - strength_N[:, None]))
        gradient_N = (points_NN - games_NN * expected_NN).sum(1)
        weight_NN = games_NN * expected_NN * (1 - expected_NN)
        information_NN = np.diag(weight_NN.sum(1)) - weight_NN
        step_N = np.concatenate([[0.0], np.linalg.solve(information_NN[1:, 1:], gradient_N[1:])])
        strength_N += np.clip(step_N, -1, 1)
        if abs(step_N).max() < 1e-10:
            break
    deviation_N = np.concatenate([[0.0], np.sqrt(np.diag(np.linalg.inv(information_NN[1:, 1:])))])
    return Ratings(SCALE * strength_N, 1.96 * SCALE * deviation_N)


def gate(points_NN, games_NN, least: float = 0.55) -> list[int]:
    """The champions in turn: the first player, and each later one who took `least` of the points from the champion before (Silver et al., 2017)."""
    champions = [0]
    for i in range(1, len(points_NN)):
        if points_NN[i][champions[-1]] / games_NN[i][champions[-1]] >= least:
            champions.append(i)
    return champions
