"""Labelling functions that disagree -> a probability of each class, learned without a label: data programming (arXiv 1605.07723).

A labelling function votes for a class or abstains. N examples, M functions, C classes; votes_NM int: the number of a class, or -1, it abstains.
"""

from typing import NamedTuple

import numpy as np

RIGHT = 0.73  # how often a function is taken to be right before its votes are seen (log-odds of 1: arXiv 1711.10160, section 3.1.2)
COUNTS = 100  # how many of its votes that counts for: where functions seldom meet, their accuracies are hardly to be known (arXiv 1911.09860)
LEAST = 1e-12  # of a probability


class LabelModel(NamedTuple):
    """The generative model of arXiv 1605.07723, section 3: given the class of an example its functions vote, or abstain, independently of each other.

    Any function may be better at one class than at another, and abstain more often there: one that knows a single class is one of them.
    """

    balance_C: np.ndarray  # P(class)
    rates_MCV: np.ndarray  # P(vote | class) of a function, V = C + 1: the last is that it abstains

    def probabilities(self, votes_NM: np.ndarray) -> np.ndarray:
        """P(class | votes) (N, C)."""
        log_NC = np.log(self.balance_C) + sum((votes_NM == vote) @ np.log(self.rates_MCV[:, :, vote]) for vote in outcomes(len(self.balance_C)))
        likelihood_NC = np.exp(log_NC - log_NC.max(1, keepdims=True))
        return likelihood_NC / likelihood_NC.sum(1, keepdims=True)

    @property
    def accuracy_M(self) -> np.ndarray:
        """P(right | it votes) of each function."""
        joint_MCV = self.balance_C[:, None] * self.rates_MCV[:, :, :-1]
        return np.trace(joint_MCV, axis1=1, axis2=2) / joint_MCV.sum((1, 2))


def outcomes(classes: int) -> tuple[int, ...]:
    """What a vote can be."""
    return (*range(classes), -1)


def majority_vote(votes_NM: np.ndarray, classes: int) -> np.ndarray:
    """The share of the votes that each class has (N, C), one more counted for each, so that no one vote is certainty."""
    counts_NC = 1.0 + np.stack([(votes_NM == c).sum(1) for c in range(classes)], 1)
    return counts_NC / counts_NC.sum(1, keepdims=True)


def fit(votes_NM: np.ndarray, classes: int, balance_C: np.ndarray | None = None, rounds: int = 1000) -> LabelModel:
    """The model under which the votes are likeliest (arXiv 1605.07723, section 3), by expectation maximisation; the same votes give the same model.

    With the classes swapped, votes are as likely; three things say which model is meant. Expectation maximisation begins at the majority vote. Each
    function has a prior: it is right RIGHT of the time. And none is worse than chance: see `no_worse_than_chance`.

    Args:
      balance_C: P(class); None: it is learned too.
    """
    posterior_NC, learned = majority_vote(votes_NM, classes), balance_C is None
    share_MV = np.stack([(votes_NM == vote).mean(0) for vote in outcomes(classes)], 1)
    for _ in range(rounds):
        balance = posterior_NC.mean(0) if learned else np.asarray(balance_C)
        counts_MCV = np.stack([(votes_NM == vote).T @ posterior_NC for vote in outcomes(classes)], 2) + prior(share_MV, balance)
        model = LabelModel(balance, no_worse_than_chance(counts_MCV))
        before_NC, posterior_NC = posterior_NC, model.probabilities(votes_NM)
        if np.abs(posterior_NC - before_NC).max() < 1e-4:
            break
    return model


def prior(share_MV: np.ndarray, balance_C: np.ndarray) -> np.ndarray:
    """The counts (M, C, V) of COUNTS votes, with the abstentions between them, of functions that vote as often and are right RIGHT of the time."""
    classes = len(balance_C)
    right_CC = np.where(np.eye(classes), RIGHT, (1 - RIGHT) / (classes - 1))  # P(class | vote), of any function
    votes_MCV = share_MV[:, None, :-1] * right_CC
    abstains_MC1 = np.maximum(balance_C[:, None] - votes_MCV.sum(2, keepdims=True), 0)
    return COUNTS * np.concatenate([votes_MCV, abstains_MC1], 2) / np.maximum(1 - share_MV[:, -1:, None], LEAST)


def no_worse_than_chance(counts_MCV: np.ndarray) -> np.ndarray:
    """P(vote | class) (M, C, V) by counts, where no vote for a class is likelier under another class than under its own.

    Where it would be, it is taken to say nothing: it is as likely under all of those classes.
    """
    total_MC = counts_MCV.sum(2)
    rates_MCV = counts_MCV / total_MC[:, :, None]
    for c in range(counts_MCV.shape[1]):
        pooled_MC = rates_MCV[:, :, c] >= rates_MCV[:, c : c + 1, c]  # the class itself, and those under which its vote is likelier
        rate_M = (counts_MCV[:, :, c] * pooled_MC).sum(1) / (total_MC * pooled_MC).sum(1)
        rates_MCV[:, :, c] = np.where(pooled_MC, rate_M[:, None], rates_MCV[:, :, c])
    rates_MCV[:, :, -1] = 1 - rates_MCV[:, :, :-1].sum(2)
    rates_MCV = np.maximum(rates_MCV, LEAST)
    return rates_MCV / rates_MCV.sum(2, keepdims=True)


class Analysis(NamedTuple):
    """What there is to see of each function: shares of all examples."""

    coverage_M: np.ndarray  # it votes
    overlap_M: np.ndarray  # it and another vote
    conflict_M: np.ndarray  # it and another vote, for different classes
    accuracy_M: np.ndarray  # of its votes on examples with a label: those that are right; NaN where there are none


def analysis(votes_NM: np.ndarray, labels_N: np.ndarray) -> Analysis:
    """labels_N: -1 where none is known."""
    voted_NM = votes_NM >= 0
    overlap_NM = voted_NM & (voted_NM.sum(1, keepdims=True) > 1)
    lowest_N, highest_N = np.where(voted_NM, votes_NM, votes_NM.max(initial=0) + 1).min(1), votes_NM.max(1)
    conflict_NM = voted_NM & (lowest_N < highest_N)[:, None]
    judged_NM = voted_NM & (labels_N >= 0)[:, None]
    right_M, judged_M = (judged_NM & (votes_NM == labels_N[:, None])).sum(0), judged_NM.sum(0)
    accuracy_M = np.where(judged_M, right_M / np.maximum(judged_M, 1), np.nan)
    return Analysis(voted_NM.mean(0), overlap_NM.mean(0), conflict_NM.mean(0), accuracy_M)


class Quality(NamedTuple):
    """Of probabilities beside the labels that were meant."""

    accuracy: float  # of the likeliest class; where k are equally likely and one of them is right, it counts 1 / k
    log_loss: float  # nats
    brier: float  # mean of the squared distance from the label as a unit vector


def quality(probabilities_NC: np.ndarray, labels_N: np.ndarray) -> Quality:
    best_NC = np.isclose(probabilities_NC, probabilities_NC.max(1, keepdims=True))
    rows = np.arange(len(labels_N))
    right_NC = np.eye(probabilities_NC.shape[1])[labels_N]
    return Quality(
        accuracy=float((best_NC[rows, labels_N] / best_NC.sum(1)).mean()),
        log_loss=float(-np.log(np.maximum(probabilities_NC[rows, labels_N], LEAST)).mean()),
        brier=float(((probabilities_NC - right_NC) ** 2).sum(1).mean()),
    )
