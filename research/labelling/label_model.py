"""Labelling functions that disagree -> a probability of each class, learned without a label: the idea of data programming (arXiv 1605.07723).

A labelling function votes for a class or abstains. N examples, M functions, C classes; votes_NM int: the number of a class, or -1, it abstains.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax

RIGHT = 0.73  # how often a function is taken to be right before its votes are seen (log-odds of 1: arXiv 1711.10160, section 3.1.2)
COUNTS = 100  # how many of its votes that counts for: where functions seldom meet, their accuracies are hardly to be known (arXiv 1911.09860)
LEAST = 1e-12  # of a probability


class LabelModel(NamedTuple):
    """Dawid and Skene's model (Applied Statistics 28(1), 1979), a confusion matrix for each function, with abstention as one more outcome: given the
    class of an example, functions vote or abstain independently of each other.

    Any function may be better at one class than at another, and abstain more often there: one that knows a single class is one of them.
    """

    balance_C: np.ndarray  # P(class)
    rates_MCV: np.ndarray  # P(vote | class) of a function, V = C + 1: the last is that it abstains

    def probabilities(self, votes_NM: np.ndarray) -> np.ndarray:
        """P(class | votes) (N, C)."""
        log_NC = np.log(self.balance_C) + sum((votes_NM == vote) @ np.log(self.rates_MCV[:, :, vote]) for vote in outcomes(len(self.balance_C)))
        return softmax(log_NC, 1)

    @property
    def accuracy_M(self) -> np.ndarray:
        """P(right | it votes) of each function."""
        joint_MCV = self.balance_C[:, None] * self.rates_MCV[:, :, :-1]
        return np.trace(joint_MCV, axis1=1, axis2=2) / joint_MCV.sum((1, 2))


def outcomes(classes: int) -> tuple[int, ...]:
    """What a vote can be."""
    return (*range(classes), -1)


def counts(votes_NM: np.ndarray, classes: int) -> np.ndarray:
    """How many votes each class has (N, C)."""
    return np.stack([(votes_NM == c).sum(1) for c in range(classes)], 1)


def majority_vote(votes_NM: np.ndarray, classes: int) -> np.ndarray:
    """The share of the votes that each class has (N, C), one more counted for each, so that no one vote is certainty."""
    counts_NC = 1.0 + counts(votes_NM, classes)
    return counts_NC / counts_NC.sum(1, keepdims=True)


def one_accuracy(votes_NM: np.ndarray, classes: int) -> float:
    """How often any vote is right, where all functions are equally good and all classes equally frequent: the posterior mode, between chance and 1.

    A vote on which no other bears says nothing of it. As for `fit`, RIGHT is the prior, worth COUNTS votes.
    """
    counts_NC = counts(votes_NM, classes)

    def loss(right):
        wrong = (1 - right) / (classes - 1)
        log_likelihood_N = logsumexp(counts_NC * np.log(right / wrong), 1) + counts_NC.sum(1) * np.log(wrong)
        return -log_likelihood_N.sum() - COUNTS * (RIGHT * np.log(right) + (1 - RIGHT) * np.log(wrong))

    return float(minimize_scalar(loss, bounds=(1 / classes, 1 - LEAST), method="bounded").x)


def independent_votes(votes_NM: np.ndarray, classes: int, right: float) -> np.ndarray:
    """P(class | votes) (N, C), where each vote is right so often, whoever gives it, and classes are equally frequent."""
    return softmax(counts(votes_NM, classes) * np.log(right * (classes - 1) / (1 - right)), 1)


def fit(votes_NM: np.ndarray, classes: int, balance_C: np.ndarray | None = None, rounds: int = 1000) -> LabelModel:
    """A mode of the posterior of the model under `prior`, by expectation maximisation (Dawid and Skene, 1979); the same votes give the same model.
    Where the balance is learned too, the prior goes with it, and what is found is where these steps come to rest.

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


def ways(votes_NM: np.ndarray, model: LabelModel, right: float) -> dict[str, np.ndarray]:
    """{name: P(class | votes) (N, C)} by the model, and by what there is to compare it with: the majority, and votes each right so often."""
    classes = len(model.balance_C)
    return {
        "majority vote": majority_vote(votes_NM, classes),
        f"independent votes, each right {right:.1%}": independent_votes(votes_NM, classes, right),
        "label model": model.probabilities(votes_NM),
    }


def prior(share_MV: np.ndarray, balance_C: np.ndarray) -> np.ndarray:
    """The counts (M, C, V) of COUNTS votes, with the abstentions between them, of functions that vote as often and are right RIGHT of the time."""
    classes = len(balance_C)
    right_CC = np.where(np.eye(classes), RIGHT, (1 - RIGHT) / (classes - 1))  # P(class | vote), of any function
    votes_MCV = share_MV[:, None, :-1] * right_CC
    abstains_MC1 = np.maximum(balance_C[:, None] - votes_MCV.sum(2, keepdims=True), 0)
    return COUNTS * np.concatenate([votes_MCV, abstains_MC1], 2) / np.maximum(1 - share_MV[:, -1:, None], LEAST)


def no_worse_than_chance(counts_MCV: np.ndarray, rounds: int = 100) -> np.ndarray:
    """P(vote | class) (M, C, V), the likeliest by counts of which no vote for a class is likelier under another class than under its own.

    In the Lagrangian of the rows' sums, each row has a weight in place of its total, and columns are apart (`pooled`): isotonic regression in which a
    class is above all others (Barlow and Brunk, JASA 67, 1972). Weights are found by turns, which `rounds` may end before they are exact.
    """
    weight_MC = counts_MCV.sum(2)
    for _ in range(rounds):
        rates_MCV = pooled(counts_MCV, weight_MC)
        sums_MC = rates_MCV.sum(2)
        if np.abs(sums_MC - 1).max() < 1e-6:
            break
        weight_MC = weight_MC * sums_MC
    rates_MCV /= sums_MC.max(1)[:, None, None]  # of all classes alike, and what a row then lacks it abstains: what holds between rows is not undone
    rates_MCV[:, :, -1] += 1 - rates_MCV.sum(2)
    return np.maximum(rates_MCV, LEAST)


def pooled(counts_MCV: np.ndarray, weight_MC: np.ndarray) -> np.ndarray:
    """counts / weight (M, C, V), where those of a vote that would be likelier under other classes than its own are pooled with that: the largest
    first, while it is above the mean of those before it. That mean is then the largest."""
    rates_MCV = counts_MCV / weight_MC[:, :, None]
    for c in range(counts_MCV.shape[1]):
        first_MC = np.where(np.arange(counts_MCV.shape[1]) == c, np.inf, rates_MCV[:, :, c])
        cumulative = lambda x_MC: np.take_along_axis(x_MC, np.argsort(-first_MC, 1), 1).cumsum(1)
        own_M = (cumulative(counts_MCV[:, :, c]) / cumulative(weight_MC)).max(1)
        rates_MCV[:, :, c] = np.minimum(rates_MCV[:, :, c], own_M[:, None])
        rates_MCV[:, c, c] = own_M
    return rates_MCV


def estimated_accuracy(votes_NM: np.ndarray, model: LabelModel) -> np.ndarray:
    """`accuracy_M`; NaN for a function fewer than COUNTS of whose votes met another's: that figure would be the prior's, more than the votes'."""
    voted_NM = votes_NM >= 0
    met_M = voted_NM[voted_NM.sum(1) > 1].sum(0)
    return np.where(met_M < COUNTS, np.nan, model.accuracy_M)


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
