import numpy as np
import pytest

from research.labelling import label_model
from research.labelling.label_model import analysis, fit, majority_vote, quality


def planted(accuracies, coverages, classes=2, balance=None, only=None, size=2000, seed=0):
    """(labels_N, votes_NM) of functions that are right so often, on so much; `only`: {function: the one class that it votes for}."""
    rng = np.random.default_rng(seed)
    labels_N = rng.choice(classes, size, p=balance)
    votes = []
    for m, (accuracy, coverage) in enumerate(zip(accuracies, coverages)):
        vote_N = np.where(rng.random(size) < accuracy, labels_N, (labels_N + rng.integers(1, classes, size)) % classes)
        votes.append(np.where((rng.random(size) < coverage) & (vote_N == (only or {}).get(m, vote_N)), vote_N, -1))
    return labels_N, np.stack(votes, 1)


DIFFERENT = [0.95, 0.9, 0.6, 0.55, 0.58, 0.62, 0.57]


@pytest.mark.short
@pytest.mark.parametrize("classes", [2, 3])
def test_planted_accuracies_are_found_and_beat_the_majority(classes):
    labels_N, votes_NM = planted(DIFFERENT, [0.8] * 7, classes)
    model = fit(votes_NM, classes)
    np.testing.assert_allclose(model.accuracy_M, analysis(votes_NM, labels_N).accuracy_M, atol=0.06)
    np.testing.assert_allclose(model.balance_C, 1 / classes, atol=0.04)
    ours, majority = quality(model.probabilities(votes_NM), labels_N), quality(majority_vote(votes_NM, classes), labels_N)
    assert ours.accuracy > majority.accuracy + 0.05 and ours.log_loss < 0.6 * majority.log_loss and ours.brier < 0.6 * majority.brier


def test_rates_are_those_of_the_votes_by_class():
    labels_N, votes_NM = planted([0.9, 0.8, 0.9, 0.8], [0.7] * 4, size=5000)
    model = fit(votes_NM, 2)
    for c in range(2):
        of_class = votes_NM[labels_N == c]
        np.testing.assert_allclose(model.rates_MCV[:, c], np.stack([(of_class == vote).mean(0) for vote in (0, 1, -1)], 1), atol=0.04)


def test_classes_that_are_not_alike_are_learned_or_told():
    labels_N, votes_NM = planted([0.9, 0.85, 0.8, 0.7, 0.75], [0.6] * 5, balance=[0.9, 0.1], size=4000)
    learned, told, wrong = (fit(votes_NM, 2, balance) for balance in (None, np.array([0.9, 0.1]), np.array([0.5, 0.5])))
    assert learned.balance_C[1] == pytest.approx(0.1, abs=0.04) and (told.balance_C == [0.9, 0.1]).all()
    accuracy = lambda model: quality(model.probabilities(votes_NM), labels_N).accuracy
    assert min(accuracy(learned), accuracy(told)) > quality(majority_vote(votes_NM, 2), labels_N).accuracy + 0.03 > accuracy(wrong)


def test_functions_of_one_class_say_something_by_abstaining():
    labels_N, votes_NM = planted([0.95, 0.95, 0.9], [0.9] * 3, only={0: 1, 1: 1, 2: 1})
    none, one, all_three = fit(votes_NM, 2).probabilities(np.array([[-1, -1, -1], [-1, -1, 1], [1, 1, 1]]))[:, 1]
    assert none < 0.05 and one < 0.5 and all_three > 0.95, "where one votes alone the others had reason to be silent"


def test_probabilities_are_bayes_theorem():
    votes_NM = planted([0.9, 0.6, 0.7], [0.8, 0.5, 0.9], size=300)[1]
    model = fit(votes_NM, 2)
    for vote_M, found_C in zip(votes_NM, model.probabilities(votes_NM)):
        joint_C = model.balance_C * np.prod([model.rates_MCV[m, :, vote] for m, vote in enumerate(vote_M)], axis=0)
        np.testing.assert_allclose(found_C, joint_C / joint_C.sum(), rtol=1e-9)
    assert (model.rates_MCV >= 0).all() and model.rates_MCV.sum(2) == pytest.approx(1)


def test_the_fit_is_no_less_likely_than_what_was_planted(monkeypatch):
    """Without a prior, as it is for votes without number: maximum likelihood."""
    monkeypatch.setattr(label_model, "COUNTS", 1e-3)
    labels_N, votes_NM = planted([0.9, 0.8, 0.7, 0.8], [0.9] * 4)

    def log_likelihood(balance_C, rates_MCV):
        return np.log(sum(balance_C[c] * np.prod([rates_MCV[m, c, votes_NM[:, m]] for m in range(4)], 0) for c in range(2))).sum()

    planted_MCV = np.array([[[0.9 * a, 0.9 * (1 - a), 0.1], [0.9 * (1 - a), 0.9 * a, 0.1]] for a in (0.9, 0.8, 0.7, 0.8)])
    model = fit(votes_NM, 2)
    assert 0 < log_likelihood(*model) - log_likelihood(np.array([0.5, 0.5]), planted_MCV) < 30


def test_a_function_that_is_wrong_more_often_than_right_is_not_turned_round():
    labels_N, votes_NM = planted([0.9, 0.85, 0.8, 0.25], [0.8] * 4)
    model = fit(votes_NM, 2)
    assert model.accuracy_M[3] == pytest.approx(0.5, abs=0.01) and (model.accuracy_M[:3] > 0.75).all()
    np.testing.assert_allclose(model.rates_MCV[3, 0], model.rates_MCV[3, 1], atol=1e-9)


def feasible(rng, classes):
    """P(vote | class) (C, V) drawn so that no vote is likelier under another class than under its own."""
    rates_CV = rng.dirichlet(np.full(classes + 1, 0.7), classes)
    votes_CC = np.minimum(rates_CV[:, :-1], np.diag(rates_CV))
    return np.concatenate([votes_CC, 1 - votes_CC.sum(1, keepdims=True)], 1)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_rates_no_worse_than_chance_are_the_likeliest_such(classes):
    rng = np.random.default_rng(classes)
    counts_MCV = rng.gamma(0.5, 100, (30, classes, classes + 1)) + 0.1
    rates_MCV = label_model.no_worse_than_chance(counts_MCV)
    own_MC = np.diagonal(rates_MCV, axis1=1, axis2=2)
    assert (rates_MCV[:, :, :-1] <= own_MC[:, None]).all(), "no vote is likelier under another class than under its own"
    assert rates_MCV.sum(2) == pytest.approx(1) and (rates_MCV > 0).all()
    for counts_CV, rates_CV in zip(counts_MCV, rates_MCV):
        log_likelihood = lambda x_CV: (counts_CV * np.log(np.maximum(x_CV, 1e-300))).sum() / counts_CV.sum()
        for _ in range(50):
            other_CV = feasible(rng, classes)
            for step in (0.001, 0.01, 0.1, 1):  # of the feasible all between two are
                assert log_likelihood(rates_CV) >= log_likelihood((1 - step) * rates_CV + step * other_CV) - 1e-6


def test_what_is_no_worse_than_chance_stays_as_it_was_counted():
    counts_MCV = np.array([[[60, 10, 5, 25], [20, 50, 10, 20], [9, 12, 70, 9]]])
    np.testing.assert_allclose(label_model.no_worse_than_chance(counts_MCV)[0], counts_MCV[0] / 100)


def test_a_vote_likelier_under_two_other_classes_is_pooled_with_no_more_than_it_must_be():
    """Of 0.2 of its own, 0.5 and 0.3: 0.2 with 0.5 are 0.35, above which 0.3 is not. Rows are alike in size, and the vote the only one."""
    weight_MC = np.full((1, 3), 100.0)
    counts_MCV = np.array([[[20.0, 0, 0, 80], [50, 0, 0, 50], [30, 0, 0, 70]]])
    np.testing.assert_allclose(label_model.pooled(counts_MCV, weight_MC)[0, :, 0], [0.35, 0.35, 0.3])


@pytest.mark.parametrize("classes", [2, 4])
def test_one_accuracy_of_all_functions_is_found_and_what_it_makes_of_votes_is_bayes(classes):
    labels_N, votes_NM = planted([0.8] * 6, [0.7] * 6, classes, size=5000)
    assert label_model.one_accuracy(votes_NM, classes) == pytest.approx(0.8, abs=0.01)
    found_C = label_model.independent_votes(np.array([[0, 0, 1, -1]]), classes, 0.8)[0]
    wrong = 0.2 / (classes - 1)
    joint_C = np.array([0.8**2 * wrong, wrong**2 * 0.8, *[wrong**3] * (classes - 2)])
    np.testing.assert_allclose(found_C, joint_C / joint_C.sum())


def test_votes_that_never_meet_tell_no_accuracy_and_votes_at_odds_one_at_chance():
    alone_NM = np.where(np.eye(3, dtype=bool)[np.arange(900) % 3], (np.arange(900) // 3 % 2)[:, None], -1)
    assert label_model.one_accuracy(alone_NM, 2) == pytest.approx(label_model.RIGHT, abs=1e-3)
    assert label_model.one_accuracy(np.tile([[0, 1]], (20_000, 1)), 2) == pytest.approx(0.5, abs=0.05)


def test_swapping_the_classes_swaps_the_answer_and_nothing_is_drawn():
    _, votes_NM = planted(DIFFERENT, [0.5] * 7)
    found_NC = fit(votes_NM, 2).probabilities(votes_NM)
    assert (found_NC == fit(votes_NM, 2).probabilities(votes_NM)).all()
    swapped_NM = np.where(votes_NM < 0, -1, 1 - votes_NM)
    np.testing.assert_allclose(fit(swapped_NM, 2).probabilities(swapped_NM), found_NC[:, ::-1], atol=1e-6)


def test_functions_that_never_meet_keep_their_prior_accuracy():
    """Nothing in such votes says who is right."""
    votes_NM = np.full((900, 3), -1)
    for m in range(3):
        votes_NM[300 * m : 300 * (m + 1), m] = np.arange(300) % 2
    assert fit(votes_NM, 2).accuracy_M == pytest.approx(label_model.RIGHT, abs=0.03)


def test_an_accuracy_is_estimated_of_those_whose_votes_meet_others_often_enough():
    votes_NM = np.full((400, 3), -1)
    votes_NM[:100, 0] = votes_NM[:100, 1] = votes_NM[100:199, 2] = votes_NM[100:199, 1] = 0
    votes_NM[200:, 2] = 1  # alone
    model = fit(votes_NM, 2)
    np.testing.assert_allclose(label_model.estimated_accuracy(votes_NM, model), [*model.accuracy_M[:2], np.nan])


@pytest.mark.parametrize("votes", [[[-1, -1, -1]], [[0, -1, 1]], [[-1, 0, -1], [-1, 0, -1]], [[1, 1, 1]] * 5])
def test_few_votes_or_none_still_give_probabilities(votes):
    found_NC = fit(np.array(votes), 2).probabilities(np.array(votes))
    assert np.isfinite(found_NC).all() and found_NC.sum(1) == pytest.approx(1)


def test_majority_counts_one_more_for_each_class():
    votes_NM = np.array([[0, 0, 1], [-1, 2, -1], [-1, -1, -1]])
    np.testing.assert_allclose(majority_vote(votes_NM, 3), [[3 / 6, 2 / 6, 1 / 6], [1 / 4, 1 / 4, 2 / 4], [1 / 3, 1 / 3, 1 / 3]])


def test_what_there_is_to_see_of_each_function():
    votes_NM = np.array([[0, 0, -1], [0, 1, -1], [1, -1, -1], [-1, -1, -1], [1, 1, -1]])
    found = analysis(votes_NM, np.array([0, 1, 1, 0, -1]))
    np.testing.assert_allclose(found.coverage_M, [0.8, 0.6, 0])
    np.testing.assert_allclose(found.overlap_M, [0.6, 0.6, 0])
    np.testing.assert_allclose(found.conflict_M, [0.2, 0.2, 0])
    np.testing.assert_allclose(found.accuracy_M, [2 / 3, 1, np.nan])


def test_quality_by_hand():
    found = quality(np.array([[0.8, 0.2], [0.5, 0.5], [0.3, 0.7]]), np.array([0, 1, 0]))
    assert found.accuracy == pytest.approx((1 + 0.5 + 0) / 3), "a tie counts half"
    assert found.log_loss == pytest.approx(-np.log([0.8, 0.5, 0.3]).mean())
    assert found.brier == pytest.approx((2 * 0.04 + 2 * 0.25 + 2 * 0.49) / 3)
