import numpy as np
import pytest

from transferkit.evaluation.calibration import binned_gaps, error_of_gaps, pooled, reliability_bins


def two_class(confidence, right):
    """Probabilities whose top class, always 1, has `confidence`; labels that make it right or wrong."""
    confidence = np.asarray(confidence, dtype=float)
    return np.asarray(right, dtype=int), np.column_stack([1 - confidence, confidence])


def calibration_error(labels, probabilities):
    return error_of_gaps(binned_gaps(labels, probabilities).mean(axis=0))


def by_definition(labels, probabilities):
    """Guo et al. 2017, eq. 3, one bin at a time."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    error = 0.0
    for m in range(1, 16):
        inside = (confidence > (m - 1) / 15) & (confidence <= m / 15)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return error


def random_predictions(n, seed, n_classes=3):
    rng = np.random.default_rng(seed)
    return rng.integers(n_classes, size=n), rng.dirichlet(np.ones(n_classes), size=n)


def test_worked_example():
    labels, probabilities = two_class([0.9, 0.9, 0.9, 0.9, 0.6, 0.6], [1, 1, 1, 0, 0, 1])
    # Bin of 0.9: 4 rows, 0.75 right. Bin of 0.6: 2 rows, 0.5 right.
    assert calibration_error(labels, probabilities) == pytest.approx(4 / 6 * 0.15 + 2 / 6 * 0.1)


@pytest.mark.parametrize("n", [1, 5, 1000])
def test_equals_the_definition(n):
    for seed in range(10):
        labels, probabilities = random_predictions(n, seed)
        expected = by_definition(labels, probabilities)
        assert calibration_error(labels, probabilities) == pytest.approx(expected, abs=1e-12)


def test_bins_are_closed_on_the_right():
    labels, probabilities = two_class([1.0, 0.8, 0.8 + 1e-9], [1, 1, 1])
    assert [bar.rows for bar in reliability_bins(labels, probabilities)] == [1, 1, 1]
    assert [round(15 * bar.upper) for bar in reliability_bins(labels, probabilities)] == [12, 13, 15]


def test_calibrated_predictions_have_little_error_and_overconfident_ones_much():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, size=50_000)
    honest = rng.random(50_000) < confidence
    assert calibration_error(*two_class(confidence, honest)) < 0.01
    boastful = rng.random(50_000) < confidence - 0.2
    assert calibration_error(*two_class(confidence, boastful)) == pytest.approx(0.2, abs=0.01)


def test_reliability_bins_sum_to_the_error():
    labels, probabilities = random_predictions(500, seed=1)
    bars = reliability_bins(labels, probabilities)
    assert sum(bar.rows for bar in bars) == 500
    assert all(bar.lower < bar.confidence <= bar.upper for bar in bars)
    error = sum(bar.rows * abs(bar.accuracy - bar.confidence) for bar in bars) / 500
    assert error == pytest.approx(calibration_error(labels, probabilities))


def test_each_row_has_its_gap_in_one_bin():
    labels, probabilities = random_predictions(200, seed=2)
    gaps = binned_gaps(labels, probabilities)
    assert (np.count_nonzero(gaps, axis=1) == 1).all()
    right = probabilities.argmax(axis=1) == labels
    np.testing.assert_allclose(gaps.sum(axis=1), right - probabilities.max(axis=1))


def test_pooled_bins_are_those_of_all_rows_together():
    runs = [random_predictions(n, seed) for n, seed in ((40, 3), (400, 4))]
    labels, probabilities = (np.concatenate(parts) for parts in zip(*runs, strict=True))
    together = reliability_bins(labels, probabilities)
    apart = pooled(one for run in runs for one in reliability_bins(*run))
    assert [(one.lower, one.upper, one.rows) for one in apart] == [(b.lower, b.upper, b.rows) for b in together]
    for one, expected in zip(apart, together, strict=True):
        assert one.confidence == pytest.approx(expected.confidence)
        assert one.accuracy == pytest.approx(expected.accuracy)
    assert pooled([]) == ()
