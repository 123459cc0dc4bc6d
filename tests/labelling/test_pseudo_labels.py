import numpy as np
import pytest

from research.core.errors import UserError
from research.labelling import pseudo_labels
from research.labelling.pseudo_labels import best_temperature, calibration, precision_at, reliability, tempered
from research.reports import figures


def drawn(temperature, size=20_000, classes=3, seed=0):
    """(probabilities_NC, labels_N): labels drawn from probabilities whose logits are then multiplied by `temperature`."""
    rng = np.random.default_rng(seed)
    logits_NC = 2 * rng.normal(size=(size, classes))
    softmax = lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True)
    labels_N = (softmax(logits_NC).cumsum(1) < rng.random((size, 1))).sum(1)
    return softmax(logits_NC * temperature), labels_N


def test_the_calibration_error_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.92, 0.08], [0.4, 0.6], [0.35, 0.65]])
    found = reliability(probabilities, np.array([0, 1, 1, 1]), bins=2)
    assert found.count_B.tolist() == [0, 4] and found.error == pytest.approx(abs(0.75 - np.mean([0.9, 0.92, 0.6, 0.65])))
    found = reliability(probabilities, np.array([0, 1, 1, 1]), bins=10)
    # Bins are open below: 0.9 lies in (0.8, 0.9], 0.92 in (0.9, 1], 0.6 in (0.5, 0.6], 0.65 in (0.6, 0.7].
    assert found.count_B.tolist() == [0, 0, 0, 0, 0, 1, 1, 0, 1, 1]
    assert found.error == pytest.approx((0.4 + 0.35 + 0.1 + 0.92) / 4)


@pytest.mark.parametrize("planted", [0.5, 1.0, 3.0])
def test_the_temperature_that_spoiled_the_logits_is_found(planted):
    probabilities_NC, labels_N = drawn(planted)
    assert best_temperature(probabilities_NC, labels_N) == pytest.approx(planted, rel=0.05)


@pytest.mark.short
def test_scaling_mends_the_error_on_examples_that_it_was_not_fitted_to():
    probabilities_NC, labels_N = drawn(3.0, 4000)
    found = calibration(probabilities_NC, labels_N)
    assert len(found.labels_N) == 2000 and found.before.error > 0.1 > 0.03 > found.after.error
    assert found.before.count_B.sum() == found.after.count_B.sum() == 2000
    again = calibration(probabilities_NC, labels_N)
    assert again.temperature == found.temperature and (again.labels_N == found.labels_N).all()


def test_the_half_that_judges_has_no_say_in_the_temperature():
    probabilities_NC, labels_N = drawn(2.0, 500)
    second = np.array_split(np.random.default_rng(0).permutation(500), 2)[1]
    changed_N = labels_N.copy()
    changed_N[second] = 0
    assert calibration(probabilities_NC, changed_N).temperature == calibration(probabilities_NC, labels_N).temperature


def test_examples_without_a_label_are_left_out():
    probabilities_NC, labels_N = drawn(1.0, 100)
    labels_N[:60] = -1
    assert len(calibration(probabilities_NC, labels_N).labels_N) == 20
    with pytest.raises(UserError, match="--held_out has 0 texts with a label"):
        calibration(probabilities_NC, np.full(100, -1))


def test_a_label_of_no_class_that_the_model_tells_is_one_line():
    probabilities_NC, labels_N = drawn(1.0, 100)
    labels_N[7] = 3
    with pytest.raises(UserError, match="a label of --held_out is 3, the run tells 3 classes apart, from 0 on"):
        calibration(probabilities_NC, labels_N)


def test_a_temperature_keeps_the_order_of_classes_and_certainty_is_finite():
    found = tempered(np.array([[1.0, 0.0, 0.0], [0.5, 0.3, 0.2]]), 2.0)
    assert np.isfinite(found).all() and found.sum(1) == pytest.approx(1) and (np.diff(found[1]) < 0).all()
    np.testing.assert_allclose(found[1], np.sqrt([0.5, 0.3, 0.2]) / np.sqrt([0.5, 0.3, 0.2]).sum())
    assert np.isfinite(best_temperature(np.array([[1.0, 0.0]] * 4), np.array([0, 0, 0, 1])))


def test_precision_is_of_those_that_are_sure_enough():
    probabilities = np.array([[0.95, 0.05], [0.94, 0.06], [0.01, 0.99], [0.97, 0.03]])
    found = precision_at(0.95, probabilities, np.array([0, 1, 1, 1]))
    assert found.number == 3 and found.value == pytest.approx(2 / 3)
    assert (found.low, found.high) == pytest.approx((0.2077, 0.9385), abs=1e-4), "Wilson's interval"
    none = precision_at(0.999, probabilities, np.array([0, 1, 1, 1]))
    assert none.number == 0 and np.isnan(none.value)


def test_in_words_and_a_temperature_at_the_bound_of_its_search_is_told():
    found = calibration(*drawn(2.0, 2000))
    said = pseudo_labels.summary(found, 0.9, "validation")
    sure = precision_at(0.9, found.probabilities_NC, found.labels_N)
    assert "On 1,000 texts of validation" in said and f"Of {sure.number:,} of these" in said and f"right in {sure.value:.1%}" in said
    assert not found.at_bound and "bound" not in said
    always_right, always_wrong = (calibration(np.tile([[0.6, 0.4]], (40, 1)), np.full(40, label)) for label in (0, 1))
    for found in (always_right, always_wrong):
        assert found.at_bound and "at the bound of its search" in pseudo_labels.summary(found, 0.9, "validation")
    assert always_right.temperature < 1 < always_wrong.temperature
    assert "how often it is right cannot be told" in pseudo_labels.summary(always_wrong, 0.9, "validation")


def test_a_picture_is_drawn_of_the_bins_that_are_not_empty(tmp_path, monkeypatch):
    kept, close = [], figures.plt.close
    monkeypatch.setattr(figures.plt, "close", kept.append)
    found = calibration(*drawn(2.0, 200))
    figures.reliability_diagram({"before": found.before, "after": found.after}, 0.9, tmp_path / "sure.png")
    assert (tmp_path / "sure.png").read_bytes().startswith(b"\x89PNG")
    axis = kept[0].axes[0]
    for line, points, bins in zip(axis.lines[2:], axis.collections, (found.before, found.after), strict=True):
        some = bins.count_B > 0
        np.testing.assert_allclose(line.get_xydata(), np.stack([bins.confidence_B, bins.accuracy_B], 1)[some])
        assert np.corrcoef(points.get_sizes(), bins.count_B[some])[0, 1] == pytest.approx(1)
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["as sure as right", "threshold 0.9", "before", "after"]
    close(kept[0])
