import numpy as np
import pytest

from research.core.errors import UserError
from research.labelling import errors
from research.labelling.texts import Texts


def planted(flipped=12, size=300, seed=0):
    """(x_ND, labels_N, which are wrong): two clouds apart in one of 8 dimensions, with some labels turned round."""
    rng = np.random.default_rng(seed)
    true_N = np.arange(size) % 2
    x_ND = rng.normal(size=(size, 8))
    x_ND[:, 0] += 6 * true_N
    wrong_N = np.isin(np.arange(size), rng.choice(size, flipped, replace=False))
    return x_ND, np.where(wrong_N, 1 - true_N, true_N), wrong_N


@pytest.mark.short
def test_planted_errors_are_found_and_come_first():
    x_ND, labels_N, wrong_N = planted()
    found = errors.doubts(labels_N, errors.out_of_sample(x_ND, labels_N, ("a", "b")))
    assert (found.wrong_N & wrong_N).sum() >= 8 and (found.wrong_N & ~wrong_N).sum() <= 1, "confident learning is careful"
    assert wrong_N[found.order_N[:12]].sum() >= 11
    assert (found.suggested_N[wrong_N] == 1 - labels_N[wrong_N]).mean() > 0.9
    held = found.wrong_N[found.order_N]
    assert (np.diff(held.astype(int)) <= 0).all(), "errors before the rest"
    for part in (found.order_N[held], found.order_N[~held]):
        assert (np.diff(found.quality_N[part]) >= 0).all()


def test_what_looks_wrong_has_no_label_and_all_have_what_they_were_given():
    found = errors.Doubts(np.array([0.9, 0.1, 0.8]), np.array([0, 1, 1]), np.array([False, True, False]))
    rows = found.rows(Texts(["a", "b", "c"], ["A", "B", "C"], np.array([0, 0, 1]), ("x", "y")))
    assert [(row["key"], row["label"], row["given"], row["suggested"], row["wrong"]) for row in rows] == [
        ("b", "", "x", "y", "1"),
        ("c", "y", "y", "y", "0"),
        ("a", "x", "x", "x", "0"),
    ]


def test_no_example_has_a_say_in_its_own_probability():
    """In as many dimensions as there are examples a linear model learns any labels by heart, and of labels drawn at random knows nothing."""
    rng = np.random.default_rng(0)
    x_ND, labels_N = rng.normal(size=(200, 200)), rng.integers(0, 2, 200)
    probabilities_NC = errors.out_of_sample(x_ND, labels_N, ("a", "b"))
    assert 0.35 < (probabilities_NC.argmax(1) == labels_N).mean() < 0.65
    assert probabilities_NC.shape == (200, 2) and probabilities_NC.sum(1) == pytest.approx(1)


def test_a_rare_class_is_named():
    labels_N = np.array([0] * 10 + [1] * 4)
    with pytest.raises(UserError, match="fewer than 5 texts labelled rare, none:"):
        errors.out_of_sample(np.zeros((14, 2)), labels_N, ("often", "rare", "none"))


def test_labels_of_one_class_alone_could_be_mistaken_for_nothing():
    with pytest.raises(UserError, match="all texts have the label good: give some of another class"):
        errors.out_of_sample(np.zeros((14, 2)), np.zeros(14, int), ("good",))


def test_without_cleanlab_it_is_said_how_to_have_it(monkeypatch):
    monkeypatch.setattr(errors, "cleanlab", None)
    with pytest.raises(UserError, match=r"pip install 'lodestar-research\[data\]'"):
        errors.doubts(np.array([0, 1]), np.eye(2))
