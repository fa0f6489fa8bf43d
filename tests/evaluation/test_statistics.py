import numpy as np
import pytest
from scipy import stats

from transferkit.evaluation import statistics
from transferkit.evaluation.metrics import confusion_metrics
from transferkit.evaluation.statistics import (
    accuracy_interval,
    combine_p,
    count_intervals,
    error_interval,
    holm,
    mcnemar_p,
    mean_interval,
    resampled_row_means,
)


def example_rows(n=300, seed=0):
    """True and predicted classes of three, about 70 % right."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, size=n, p=[0.5, 0.3, 0.2])
    return labels, np.where(rng.random(n) < 0.55, labels, rng.integers(3, size=n))


def confusion_of(labels, predicted):
    return np.bincount(labels * 3 + predicted, minlength=9).reshape(3, 3)


def right_answers(only_a, only_b, both=3, neither=2):
    """Right answers of a and b with these counts."""
    a = [True] * only_a + [False] * only_b + [True] * both + [False] * neither
    b = [False] * only_a + [True] * only_b + [True] * both + [False] * neither
    return np.array(a), np.array(b)


class TestIntervals:
    def test_drawing_counts_is_drawing_rows(self):
        """Metrics are distributed alike whether rows or cells are drawn (Kolmogorov-Smirnov)."""
        labels, predicted = example_rows()
        rng = np.random.default_rng(1)
        rows = rng.integers(len(labels), size=(3000, len(labels)))
        by_rows = confusion_metrics(np.stack([confusion_of(labels[r], predicted[r]) for r in rows]))
        cells = statistics._resampled_counts(confusion_of(labels, predicted), 3000, rng)
        by_counts = confusion_metrics(np.concatenate(list(cells)))
        for name in ("accuracy", "f1_macro", "mcc"):
            assert stats.ks_2samp(by_rows[name], by_counts[name]).pvalue > 0.001, name

    def test_accuracy_interval_agrees_with_scipy(self):
        labels, predicted = example_rows()
        right = (labels == predicted).astype(float)
        reference = stats.bootstrap(
            (right,), np.mean, method="percentile", n_resamples=4000, rng=np.random.default_rng(0)
        ).confidence_interval
        for ours in (
            count_intervals(confusion_of(labels, predicted), confusion_metrics)["accuracy"],
            mean_interval(right[:, None]),
        ):
            assert ours == pytest.approx((reference.low, reference.high), abs=0.006)

    def test_accuracy_interval_covers_the_truth_as_often_as_it_says(self):
        rng = np.random.default_rng(0)
        right = rng.binomial(200, 0.8, size=400)
        covered = 0
        for seed, count in enumerate(right):
            counts = np.array([[count, 200 - count], [0, 0]])
            low, high = count_intervals(counts, confusion_metrics, resamples=500, seed=seed)["accuracy"]
            covered += low <= 0.8 <= high
        assert 0.91 <= covered / 400 <= 0.98

    def test_chunks_change_nothing(self, monkeypatch):
        labels, predicted = example_rows()
        confusion = confusion_of(labels, predicted)
        values = np.random.default_rng(0).normal(size=(300, 3))
        whole = count_intervals(confusion, confusion_metrics), resampled_row_means(values, resamples=100)
        monkeypatch.setattr(statistics, "CHUNK_NUMBERS", 1000)
        chunked = count_intervals(confusion, confusion_metrics), resampled_row_means(values, resamples=100)
        assert whole[0] == chunked[0]
        np.testing.assert_allclose(whole[1], chunked[1], rtol=0, atol=1e-12)

    def test_row_means_have_the_spread_of_a_mean(self):
        values = np.random.default_rng(0).exponential(size=(400, 2))
        draws = resampled_row_means(values, resamples=4000)
        assert draws.shape == (4000, 2)
        np.testing.assert_allclose(draws.mean(axis=0), values.mean(axis=0), rtol=0.01)
        np.testing.assert_allclose(draws.std(axis=0), values.std(axis=0) / 20, rtol=0.05)
        # Columns are resampled by the same rows.
        both = resampled_row_means(np.column_stack([values[:, 0], 2 * values[:, 0]]), resamples=50)
        np.testing.assert_allclose(both[:, 1], 2 * both[:, 0])

    def test_the_seed_decides(self):
        labels, predicted = example_rows()
        confusion = confusion_of(labels, predicted)
        first, again, other = (count_intervals(confusion, confusion_metrics, seed=seed) for seed in (0, 0, 1))
        assert first == again != other

    def test_error_interval_holds_the_estimate_and_undoes_the_bias_of_resampling(self):
        draws = np.random.default_rng(0).normal(0.08, 0.01, size=4000)  # all far above the estimate
        low, high = error_interval(0.05, draws)
        assert low == pytest.approx(0.0, abs=0.002)
        assert high == 0.05
        assert error_interval(0.05, np.full(10, 0.05)) == (0.05, 0.05)
        assert error_interval(0.5, np.full(10, 0.4)) == pytest.approx((0.5, 0.6))
        assert error_interval(0.9, np.linspace(0.1, 1, 100))[1] == 1.0


class TestMeanInterval:
    def test_swapping_two_strategies_negates_the_interval(self):
        rng = np.random.default_rng(0)
        differences = rng.choice([-1.0, 0.0, 1.0], p=[0.1, 0.7, 0.2], size=(500, 2))
        low, high = mean_interval(differences)
        assert mean_interval(-differences) == pytest.approx((-high, -low), abs=0.01)
        assert low < differences.mean() < high

    def test_equal_strategies_differ_by_exactly_nothing(self):
        assert mean_interval(np.zeros((100, 3))) == (0, 0)

    def test_pairing_narrows_the_interval(self):
        """Two strategies that share most mistakes differ by less than two independent ones could."""
        rng = np.random.default_rng(0)
        a = rng.random((1000, 1)) < 0.8
        b = np.where(rng.random((1000, 1)) < 0.02, ~a, a)
        paired = np.ptp(mean_interval(a.astype(float) - b))
        unpaired = np.hypot(np.ptp(mean_interval(a)), np.ptp(mean_interval(b)))
        assert paired < unpaired / 3

    def test_disagreeing_seeds_widen_the_interval(self):
        rng = np.random.default_rng(0)
        steady = rng.random((2000, 3)) < 0.8
        shaky = rng.random((2000, 3)) < np.array([0.7, 0.8, 0.9])
        assert np.ptp(mean_interval(shaky)) > 3 * np.ptp(mean_interval(steady))

    def test_variance_is_that_of_rows_plus_that_of_seeds(self):
        """Without interaction the crossed bootstrap has both variances, of rows / n and of seeds / S."""
        rng = np.random.default_rng(0)
        row_effect, seed_effect = rng.normal(size=(400, 1)), np.linspace(-0.1, 0.1, 20)
        values = row_effect + seed_effect
        spread = np.ptp(mean_interval(values, resamples=4000)) / (2 * 1.96)
        assert spread == pytest.approx(np.sqrt(row_effect.var() / 400 + seed_effect.var() / 20), rel=0.06)

    def test_five_rows(self):
        assert mean_interval(np.ones((5, 1))) == (1, 1)
        low, high = mean_interval([[1], [1], [0], [1], [0]])
        assert 0 <= low < 0.6 < high <= 1


class TestAccuracyInterval:
    @pytest.mark.parametrize("seeds", [1, 3, 6, 7, 10])
    def test_rows_without_a_mistake_leave_the_exact_doubt(self, seeds):
        right = np.ones((20, seeds), dtype=bool)
        exact = stats.binomtest(20, 20).proportion_ci(0.95, method="exact")
        assert accuracy_interval(right) == pytest.approx((exact.low, exact.high))
        exact = stats.binomtest(0, 20).proportion_ci(0.95, method="exact")
        assert accuracy_interval(~right) == pytest.approx((exact.low, exact.high))

    def test_else_it_is_the_bootstrap(self):
        right = np.random.default_rng(0).random((50, 2)) < 0.8
        assert accuracy_interval(right) == mean_interval(right)

    def test_it_holds_a_high_accuracy_about_as_often_as_it_says(self):
        rng = np.random.default_rng(0)
        intervals = [accuracy_interval(rng.random((100, 1)) < 0.99) for _ in range(200)]
        assert np.mean([low <= 0.99 <= high for low, high in intervals]) > 0.9


class TestMcNemar:
    @pytest.mark.parametrize(
        ("only_a", "only_b", "p"),
        [
            (0, 0, 1.0),
            (1, 0, 1.0),
            (5, 0, 2 * 0.5**5),
            (8, 2, 2 * (1 + 10 + 45) / 2**10),  # by hand: heads at most 2 of 10, twice
            (4, 4, 1.0),
        ],
    )
    def test_worked_examples(self, only_a, only_b, p):
        assert mcnemar_p(*right_answers(only_a, only_b)) == pytest.approx(p)

    @pytest.mark.parametrize(("only_a", "only_b"), [(3, 9), (40, 61), (5, 5), (0, 700), (15_000, 15_400)])
    def test_equals_the_binomial_test_whichever_comes_first(self, only_a, only_b):
        a, b = right_answers(only_a, only_b)
        expected = stats.binomtest(only_a, only_a + only_b, 0.5).pvalue
        assert mcnemar_p(a, b) == pytest.approx(expected, rel=1e-9)
        assert mcnemar_p(a, b) == mcnemar_p(b, a)

    def test_agreement_counts_for_nothing(self):
        few, many = right_answers(8, 2, both=0, neither=0), right_answers(8, 2, both=500, neither=90)
        assert mcnemar_p(*few) == mcnemar_p(*many)

    def test_false_alarms_stay_below_the_level(self):
        rng = np.random.default_rng(0)
        alarms = [mcnemar_p(rng.random(200) < 0.8, rng.random(200) < 0.8) < 0.05 for _ in range(500)]
        assert 0.005 < np.mean(alarms) <= 0.065


class TestHolm:
    def test_worked_example(self):
        # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, and 0.04 raised to 0.06.
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])

    def test_is_capped_and_keeps_order_and_never_helps(self):
        p = np.random.default_rng(0).random(50)
        adjusted = np.array(holm(p))
        assert (adjusted >= p).all()
        assert adjusted.max() == 1
        assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()

    def test_none_and_one(self):
        assert holm([]) == []
        assert holm([0.03]) == [0.03]


class TestCombine:
    def test_worked_examples(self):
        assert combine_p([0.04]) == 0.04
        assert combine_p([0.01, 0.03]) == pytest.approx(0.04)
        assert combine_p([0.9, 0.6]) == 1

    def test_is_valid_under_full_dependence_and_independence(self):
        p = np.random.default_rng(0).random((20_000, 3))
        for dependent in (p, np.repeat(p[:, :1], 3, axis=1)):
            assert np.mean([combine_p(row) <= 0.05 for row in dependent]) <= 0.05
