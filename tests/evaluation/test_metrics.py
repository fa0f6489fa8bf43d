import json
import tracemalloc

import numpy as np
import pytest
from sklearn import metrics as sk

from transferkit.errors import TransferKitError
from transferkit.evaluation.metrics import confusion_metrics, log_probabilities, quick_metrics, score
from transferkit.evaluation.results import Scores

NAMES = ("a", "b", "c", "d")


def logits_for(predicted, n_classes, sureness=2.0):
    return sureness * np.eye(n_classes)[np.asarray(predicted)]


def reference_metrics(labels, logits):
    """scikit-learn's, with its defaults for which classes count."""
    n_classes = logits.shape[1]
    predicted = logits.argmax(axis=1)
    expected = {
        "accuracy": sk.accuracy_score(labels, predicted),
        "mcc": sk.matthews_corrcoef(labels, predicted),
        "log_loss": sk.log_loss(labels, np.exp(log_probabilities(logits)), labels=range(n_classes)),
    }
    averages = ["macro", "weighted"]
    for average in averages:
        three = sk.precision_recall_fscore_support(labels, predicted, average=average, zero_division=0)
        expected |= dict(zip([f"{m}_{average}" for m in ("precision", "recall", "f1")], three[:3], strict=True))
    if n_classes == 2:
        three = sk.precision_recall_fscore_support(labels, predicted, average="binary", zero_division=0)
        expected |= dict(zip(("precision", "recall", "f1"), three[:3], strict=True))
    return expected


@pytest.mark.parametrize("n_classes", [2, 3, 4])
@pytest.mark.parametrize("n", [12, 300])
def test_metrics_equal_scikit_learn(n_classes, n):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        labels = rng.integers(n_classes, size=n)
        logits = rng.normal(size=(n, n_classes)) + np.eye(n_classes)[labels]
        scores = score(labels, logits, NAMES[:n_classes])
        expected = reference_metrics(labels, logits)
        assert set(scores.metrics) == {*expected, "ece"}
        for name, value in expected.items():
            assert scores.metrics[name] == pytest.approx(value, abs=1e-12), name
        confusion = sk.confusion_matrix(labels, logits.argmax(axis=1), labels=range(n_classes))
        assert np.array_equal(scores.confusion, confusion)


@pytest.mark.parametrize(
    ("labels", "predicted"),
    [
        ([0, 0, 1, 1], [0, 1, 2, 1]),  # class 2 is predicted but never true, class 3 neither
        ([0, 0, 2, 2], [0, 0, 0, 2]),  # class 1 is absent on both sides
        ([0, 1, 2, 3], [1, 1, 1, 1]),  # one class predicted
        ([0, 1, 2, 3], [3, 2, 1, 0]),  # nothing right
    ],
)
def test_absent_classes_count_as_in_scikit_learn(labels, predicted):
    logits = logits_for(predicted, 4)
    scores = score(labels, logits, NAMES)
    for name, value in reference_metrics(np.array(labels), logits).items():
        assert scores.metrics[name] == pytest.approx(value, abs=1e-12), name


def test_many_matrices_at_once_equal_one_by_one():
    matrices = np.random.default_rng(0).integers(0, 20, size=(5, 3, 3))
    together = confusion_metrics(matrices)
    for index, matrix in enumerate(matrices):
        for name, value in confusion_metrics(matrix).items():
            assert together[name][index] == value


def test_per_class_table():
    labels, predicted = [0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 0, 1]
    table = score(labels, logits_for(predicted, 4), NAMES).per_class
    assert [row.label for row in table] == list(NAMES)
    assert [row.support for row in table] == [3, 2, 1, 0]
    assert [row.predicted for row in table] == [3, 3, 0, 0]
    assert table[0].precision == pytest.approx(2 / 3)
    assert table[1].recall == pytest.approx(1 / 2)
    assert (table[2].precision, table[2].recall, table[2].f1) == (0, 0, 0)


def test_baseline_is_the_majority_class_of_the_test_rows():
    labels = [1] * 665 + [0] * 335
    baseline = score(labels, logits_for(labels, 2), ("no", "yes")).baseline
    constant = np.ones(1000, dtype=int)
    assert baseline["accuracy"] == 0.665
    assert baseline["f1"] == pytest.approx(sk.f1_score(labels, constant))
    assert baseline["f1_macro"] == pytest.approx(sk.f1_score(labels, constant, average="macro"))
    assert baseline["mcc"] == 0
    assert not {"log_loss", "ece"} & set(baseline)


def test_baseline_of_a_tie_takes_the_positive_class():
    assert score([0, 0, 1, 1], logits_for([0, 0, 1, 1], 2), ("no", "yes")).baseline["f1"] == pytest.approx(2 / 3)


def test_positive_label_is_the_last_of_two_and_only_of_two():
    assert score([0, 1], logits_for([0, 1], 2), ("no", "yes")).positive_label == "yes"
    three = score([0, 1, 2], logits_for([0, 1, 2], 3), NAMES[:3])
    assert three.positive_label is None
    assert "f1" not in three.metrics


def test_reliability_bins_hold_every_row_and_add_up_to_the_calibration_error():
    rng = np.random.default_rng(5)
    labels = rng.integers(3, size=200)
    scores = score(labels, rng.normal(size=(200, 3)) + np.eye(3)[labels], NAMES[:3])
    assert sum(one.rows for one in scores.reliability) == 200
    error = sum(one.rows * abs(one.accuracy - one.confidence) for one in scores.reliability) / 200
    assert error == pytest.approx(scores.metrics["ece"])


def test_swapping_two_classes_swaps_what_is_positive():
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(2, size=100), rng.normal(size=(100, 2))
    one, other = score(labels, logits, ("a", "b")), score(1 - labels, logits[:, ::-1], ("b", "a"))
    assert one.per_class == other.per_class[::-1]
    assert one.metrics["mcc"] == pytest.approx(other.metrics["mcc"])
    assert one.metrics["f1"] != pytest.approx(other.metrics["f1"])


def test_every_metric_has_an_interval_that_holds_it():
    rng = np.random.default_rng(1)
    labels = rng.integers(3, size=400)
    scores = score(labels, rng.normal(size=(400, 3)) + 1.5 * np.eye(3)[labels], NAMES[:3])
    assert set(scores.intervals) == set(scores.metrics)
    for name, (low, high) in scores.intervals.items():
        assert low < scores.metrics[name] < high, name


def test_answers_without_a_mistake_have_an_interval_of_accuracy_alone():
    labels = np.arange(20) % 2
    scores = score(labels, 40.0 * np.eye(2)[labels], ("a", "b"))
    assert scores.intervals["accuracy"] == pytest.approx((0.832, 1.0), abs=0.001)
    assert not scores.intervals.keys() & {"f1_macro", "mcc", "recall", "precision"}
    assert not scores.collapsed


def test_interval_narrows_with_the_root_of_the_rows():
    def width(n):
        labels = np.arange(n) % 2
        predicted = np.where(np.arange(n) % 10 < 8, labels, 1 - labels)
        low, high = score(labels, logits_for(predicted, 2), ("a", "b")).intervals["accuracy"]
        return high - low

    assert width(200) / width(20_000) == pytest.approx(10, rel=0.15)


def test_the_same_predictions_give_the_same_scores():
    rng = np.random.default_rng(2)
    labels, logits = rng.integers(2, size=50), rng.normal(size=(50, 2))
    assert score(labels, logits, ("a", "b")) == score(labels, logits, ("a", "b"))


@pytest.mark.parametrize("n", [1, 2, 5])
def test_few_rows_give_finite_scores_that_survive_json(n):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        scores = score(rng.integers(3, size=n), rng.normal(size=(n, 3)).astype(np.float32), NAMES[:3])
        assert np.isfinite(list(scores.metrics.values())).all()
        assert np.isfinite(list(scores.intervals.values())).all()
        assert Scores.model_validate(json.loads(scores.model_dump_json())) == scores


def test_hundred_thousand_rows_in_bounded_memory():
    rng = np.random.default_rng(3)
    labels = rng.integers(2, size=100_000)
    logits = rng.normal(size=(100_000, 2)) + 2 * np.eye(2)[labels]
    tracemalloc.start()
    scores = score(labels, logits, ("a", "b"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    low, high = scores.intervals["accuracy"]
    assert 0 < high - low < 0.01
    assert peak < 150e6  # all resamples at once would take 1.6 GB


def test_extreme_logits_do_not_overflow():
    scores = score([0, 1], np.array([[1e30, -1e30], [1e30, 0.0]], dtype=np.float32), ("a", "b"))
    assert scores.metrics["log_loss"] == pytest.approx(5e29, rel=1e-6)
    assert scores.metrics["ece"] == pytest.approx(0.5)


def test_a_diverged_run_is_named():
    logits = np.zeros((4, 2))
    logits[1, 0], logits[2, 1] = np.nan, np.inf
    for call in (
        lambda: score([0, 1, 0, 1], logits, ("a", "b")),
        lambda: quick_metrics([0, 1, 0, 1], logits),
    ):
        with pytest.raises(TransferKitError, match=r"2 of 4 rows are not finite.*learning_rate"):
            call()


@pytest.mark.parametrize(("labels", "rows"), [([], 0), ([0], 2), ([0, 1, 1], 2)])
def test_labels_and_logits_must_fit(labels, rows):
    with pytest.raises(ValueError, match="n > 0"):
        score(labels, np.zeros((rows, 2)), ("a", "b"))


def test_quick_metrics_are_those_of_score():
    rng = np.random.default_rng(4)
    labels, logits = rng.integers(3, size=60), rng.normal(size=(60, 3))
    full = score(labels, logits, NAMES[:3]).metrics
    assert quick_metrics(labels, logits) == {
        "accuracy": full["accuracy"],
        "f1_macro": full["f1_macro"],
        "mcc": full["mcc"],
        "loss": pytest.approx(full["log_loss"]),
    }
