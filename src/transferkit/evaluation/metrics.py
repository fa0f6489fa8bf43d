"""From logits and true labels to scores: each with its interval and beside the majority baseline.

Shapes: n test rows, C classes. All metrics but log loss and calibration are functions of the confusion
matrix, and `confusion_metrics` takes many matrices at once: a score, its baseline and its resamples share
one formula.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from transferkit.errors import TransferKitError
from transferkit.evaluation.calibration import binned_gaps, error_of_gaps, reliability_bins
from transferkit.evaluation.collapse import collapse_reason
from transferkit.evaluation.results import ClassScores, Interval, Scores
from transferkit.evaluation.statistics import (
    count_intervals,
    error_interval,
    exact_interval,
    percentile_interval,
    resampled_row_means,
)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def score(labels: npt.ArrayLike, logits: npt.ArrayLike, names: tuple[str, ...]) -> Scores:
    """All that `logits` [n, C] say against the true `labels` [n], integers that index `names`.

    With two classes the last of `names` is the positive one. The baseline always answers the class that most
    of the test rows have; it states no probabilities, so it has no log loss and no calibration error.

    Raises:
        TransferKitError: a logit is not finite.
    """
    true, log_p = _checked(labels, logits)
    confusion = confusion_matrix(true, log_p)
    baseline = {name: float(value) for name, value in confusion_metrics(_majority_answers(confusion)).items()}
    metrics = {name: float(value) for name, value in confusion_metrics(confusion).items()}
    intervals = count_intervals(confusion, confusion_metrics)
    if (right := int(np.trace(confusion))) in (0, len(true)):
        intervals["accuracy"] = exact_interval(len(true), all_right=right > 0)
    probability_metrics, probability_intervals = _probability_scores(true, log_p)
    reason = collapse_reason(confusion, metrics, intervals, baseline["accuracy"], names)
    return Scores(
        rows=len(true),
        metrics=metrics | probability_metrics,
        # One without width says that all resamples are alike, and not that the value is sure.
        intervals={name: ends for name, ends in (intervals | probability_intervals).items() if ends[0] < ends[1]},
        per_class=_per_class(confusion, names),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        reliability=reliability_bins(true, np.exp(log_p)),
        positive_label=names[-1] if len(names) == 2 else None,
        baseline=baseline,
        collapsed=reason is not None,
        collapse_reason=reason,
    )


def quick_metrics(labels: npt.ArrayLike, logits: npt.ArrayLike) -> dict[str, float]:
    """What training looks at after each epoch: accuracy, f1_macro, mcc and loss (nats), without intervals.

    Raises:
        TransferKitError: a logit is not finite.
    """
    true, log_p = _checked(labels, logits)
    metrics = confusion_metrics(confusion_matrix(true, log_p))
    quick = {name: float(metrics[name]) for name in ("accuracy", "f1_macro", "mcc")}
    return quick | {"loss": float(_row_losses(true, log_p).mean())}


def log_probabilities(logits: npt.ArrayLike) -> FloatArray:
    """Logarithm [n, C] of the softmax of `logits` [n, C], in float64; no size of logits overflows.

    Raises:
        TransferKitError: a logit is not finite.
    """
    values = np.asarray(logits, dtype=np.float64)
    broken = np.count_nonzero(~np.isfinite(values).all(axis=1))
    if broken:
        raise TransferKitError(
            f"The logits of {broken:,} of {len(values):,} rows are not finite: the training diverged. "
            "Lower training.learning_rate, or set training.precision to fp32."
        )
    return _log_softmax(values)


def _log_softmax(values: FloatArray) -> FloatArray:
    shifted: FloatArray = values - values.max(axis=1, keepdims=True)
    log_p: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return log_p


def confusion_matrix(labels: IntArray, class_scores: FloatArray) -> IntArray:
    """Row counts [C, C] by true class (row) and top-scored class (column); of equal scores the first wins."""
    n_classes = class_scores.shape[1]
    cells = labels * n_classes + class_scores.argmax(axis=1)
    counts: IntArray = np.bincount(cells, minlength=n_classes**2).reshape(n_classes, n_classes)
    return counts


def confusion_metrics(confusion: IntArray) -> dict[str, FloatArray]:
    """Metrics [...] of confusion matrices [..., C, C], equal to scikit-learn's with zero_division=0.

    Macro means run over the classes that occur among the true or the predicted labels; weighted means weigh a
    class by its true rows. MCC is that of Gorodkin 2004 for many classes, 0 where a side has one class only.
    With two classes, precision, recall and f1 are those of the last.
    """
    actual, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    rows = actual.sum(axis=-1)
    by_class = _class_metrics(confusion)
    occurs = actual + predicted > 0
    metrics = {"accuracy": np.trace(confusion, axis1=-2, axis2=-1) / rows}
    for name, values in by_class.items():
        metrics[f"{name}_macro"] = values.sum(axis=-1, where=occurs) / occurs.sum(axis=-1)
        metrics[f"{name}_weighted"] = (values * actual).sum(axis=-1) / rows
    if confusion.shape[-1] == 2:
        metrics |= {name: values[..., -1] for name, values in by_class.items()}
    return metrics | {"mcc": _mcc(confusion)}


def _checked(labels: npt.ArrayLike, logits: npt.ArrayLike) -> tuple[IntArray, FloatArray]:
    true, log_p = np.asarray(labels, dtype=np.int64), log_probabilities(logits)
    if not len(true) or true.shape != log_p.shape[:1]:
        raise ValueError(f"labels {true.shape} and logits {log_p.shape} must be [n] and [n, C] with n > 0")
    return true, log_p


def _class_metrics(confusion: IntArray) -> dict[str, FloatArray]:
    """Precision, recall and f1 of each class, [..., C]; 0 where the denominator is 0."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    actual, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    return {
        "precision": _ratio(right, predicted),
        "recall": _ratio(right, actual),
        "f1": _ratio(2 * right, actual + predicted),
    }


def _mcc(confusion: IntArray) -> FloatArray:
    """The covariance of true and predicted class over the root of the product of their variances, [...]."""
    counts = confusion.astype(np.float64)
    actual, predicted = counts.sum(axis=-1), counts.sum(axis=-2)
    rows = actual.sum(axis=-1)
    covariance = np.trace(counts, axis1=-2, axis2=-1) * rows - (actual * predicted).sum(axis=-1)
    variances = (rows**2 - (actual**2).sum(axis=-1)) * (rows**2 - (predicted**2).sum(axis=-1))
    return _ratio(covariance, np.sqrt(variances))


def _ratio(above: npt.NDArray[np.number], below: npt.NDArray[np.number]) -> FloatArray:
    """above / below, 0 where below is 0."""
    zeros = np.zeros(np.shape(below))
    ratio: FloatArray = np.divide(above, below, out=zeros, where=np.asarray(below) != 0)
    return ratio


def _majority_answers(confusion: IntArray) -> IntArray:
    """The confusion matrix of always answering the most frequent true class.

    Of equally frequent classes it is the last: with two, the positive one, the harder baseline to beat in F1.
    """
    actual = confusion.sum(axis=1)
    majority = len(actual) - 1 - int(actual[::-1].argmax())
    answers = np.zeros_like(confusion)
    answers[:, majority] = actual
    return answers


def _row_losses(labels: IntArray, log_p: FloatArray) -> FloatArray:
    """Minus the log probability of the true class, in nats, [n]."""
    return -log_p[np.arange(len(labels)), labels]


def _probability_scores(labels: IntArray, log_p: FloatArray) -> tuple[dict[str, float], dict[str, Interval]]:
    """Log loss (nats) and expected calibration error: values and intervals."""
    by_row = np.column_stack([_row_losses(labels, log_p), binned_gaps(labels, np.exp(log_p))])
    loss, *gaps = by_row.mean(axis=0)
    ece = float(error_of_gaps(np.array(gaps)))
    draws = resampled_row_means(by_row)
    return (
        {"log_loss": float(loss), "ece": ece},
        {
            "log_loss": percentile_interval(draws[:, 0]),
            "ece": error_interval(ece, error_of_gaps(draws[:, 1:])),
        },
    )


def _per_class(confusion: IntArray, names: tuple[str, ...]) -> tuple[ClassScores, ...]:
    by_class = _class_metrics(confusion)
    return tuple(
        ClassScores(
            label=name,
            precision=float(by_class["precision"][index]),
            recall=float(by_class["recall"][index]),
            f1=float(by_class["f1"][index]),
            support=int(confusion[index].sum()),
            predicted=int(confusion[:, index].sum()),
        )
        for index, name in enumerate(names)
    )
