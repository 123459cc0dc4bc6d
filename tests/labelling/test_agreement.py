import numpy as np
import pytest

from research.core.errors import UserError
from research.labelling import agreement, table
from research.labelling.agreement import cohen_kappa, fleiss_kappa, krippendorff_alpha, observed_agreement


def of_counts(counts_NC):
    """ratings_NR with so many of each class."""
    return np.array([np.repeat(np.arange(len(counts_C)), counts_C) for counts_C in counts_NC])


def of_text(*annotators):
    """ratings_NR of lines in which a character is the rating of an example, a dot none."""
    return np.array([[-1 if c == "." else int(c, 36) for c in line] for line in annotators]).T


# The worked example of the article on Fleiss' kappa in Wikipedia: 14 raters, 10 subjects.
SUBJECTS = of_counts([
    (0, 0, 0, 0, 14), (0, 2, 6, 4, 2), (0, 0, 3, 5, 6), (0, 3, 9, 2, 0), (2, 2, 8, 1, 1),
    (7, 7, 0, 0, 0), (3, 2, 6, 3, 0), (2, 5, 3, 2, 2), (6, 5, 2, 1, 0), (0, 2, 2, 3, 7),
])  # fmt: skip
# Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011: sections A, B and C
BINARY = of_text("0100000010", "1110010000")
NOMINAL = of_text("aabbdcccedda", "babbbccceddd")
MISSING = of_text("123321412...", "1233224125.3", ".3332342251.", "12332441251.")


@pytest.mark.short
def test_published_examples():
    assert fleiss_kappa(SUBJECTS) == pytest.approx(0.210, abs=5e-4)
    assert krippendorff_alpha(BINARY) == pytest.approx(0.095, abs=5e-4)
    assert krippendorff_alpha(NOMINAL) == pytest.approx(0.692, abs=5e-4)
    assert krippendorff_alpha(MISSING) == pytest.approx(0.743, abs=5e-4)
    cohen = np.repeat([[0, 0], [0, 1], [1, 0], [1, 1]], [20, 5, 10, 15], axis=0)
    assert cohen_kappa(cohen) == pytest.approx(0.4)


def test_perfect_agreement_is_one_and_chance_is_nothing():
    same = np.repeat(np.arange(3), 4)[:, None].repeat(3, 1)
    drawn = np.random.default_rng(0).integers(0, 3, (20_000, 2))
    for statistic in (cohen_kappa, fleiss_kappa, krippendorff_alpha):
        assert statistic(same[:, :2]) == pytest.approx(1)
        assert abs(statistic(drawn)) < 0.02
    assert observed_agreement(same) == 1 and observed_agreement(drawn) == pytest.approx(1 / 3, abs=0.02)


def test_worse_than_chance_is_below_zero():
    opposite = np.stack([np.arange(10) % 2, 1 - np.arange(10) % 2], 1)
    assert cohen_kappa(opposite) == fleiss_kappa(opposite) == -1 and krippendorff_alpha(opposite) < -0.8


def test_what_one_alone_rated_counts_for_nothing():
    alone = np.concatenate([MISSING, [[4, -1, -1, -1], [-1, -1, -1, -1]]])
    assert krippendorff_alpha(alone) == krippendorff_alpha(MISSING)
    assert cohen_kappa(np.concatenate([NOMINAL, [[-1, 3], [-1, -1]]])) == cohen_kappa(NOMINAL)
    assert fleiss_kappa(np.concatenate([SUBJECTS, np.where(np.arange(14), 1, -1)[None]])) == fleiss_kappa(SUBJECTS)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("ratings", [np.zeros((5, 2), int), np.full((3, 2), -1), np.array([[0, -1], [-1, 1]]), np.zeros((0, 2), int)])
def test_where_chance_cannot_be_told_there_is_no_figure(ratings):
    for statistic in (cohen_kappa, fleiss_kappa, krippendorff_alpha):
        assert np.isnan(statistic(ratings)) and np.isnan(agreement.interval(statistic, ratings)).all()


def test_the_interval_holds_the_figure_and_shrinks_with_more_examples():
    few, many = NOMINAL, np.tile(NOMINAL, (20, 1))
    a, b = (agreement.interval(cohen_kappa, ratings, draws=200) for ratings in (few, many))
    assert a.low < a.value < a.high and b.low < b.value < b.high and b.high - b.low < (a.high - a.low) / 3
    assert a == agreement.interval(cohen_kappa, few, draws=200)
    assert a.between == f"{a.low:.3f} to {a.high:.3f}" and agreement.Interval(np.nan, np.nan, np.nan).between == ""


def test_statistics_are_of_each_two_and_of_all(monkeypatch):
    monkeypatch.setattr(agreement, "interval", lambda statistic, ratings_NR: agreement.Interval(statistic(ratings_NR), 0, 0))
    found = [(name, who, count) for name, who, count, *_ in agreement.statistics(MISSING)]
    assert found[:2] == [("Cohen's kappa", (0, 1), 9), ("Cohen's kappa", (0, 2), 8)] and len(found) == 8
    assert found[-2:] == [("Fleiss' kappa", (0, 1, 2, 3), 8), ("Krippendorff's alpha", (0, 1, 2, 3), 11)]


def test_a_key_that_stands_for_two_texts_is_refused():
    with pytest.raises(UserError, match="the key 'a' stands for two texts, 'A' and 'B'"):
        agreement.ratings([[table.row("a", "A", "x")], [table.row("b", "B", "x")], [table.row("a", "B", "x")]])


def test_rows_are_matched_by_key_and_disputes_found():
    one = [table.row("a", "A", "x"), table.row("b", "B", "y"), table.row("c", "C")]
    two = [table.row("b", "B", "x"), table.row("d", "D", "z"), table.row("a", "A", "x")]
    rows, classes, ratings_NR = agreement.ratings([one, two])
    found = {row["key"]: ratings.tolist() for row, ratings in zip(rows, ratings_NR)}
    assert classes == ["x", "y", "z"] and found == {"a": [0, 0], "b": [1, 0], "c": [-1, -1], "d": [-1, 2]}
    ((row, told),) = agreement.disputed(rows, classes, ratings_NR)
    assert row == table.row("b", "B") and told == ["y", "x"]
