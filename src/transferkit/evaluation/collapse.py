"""Notice a run that has learnt nothing, which accuracy alone can hide: 90 % may be the majority class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from transferkit.evaluation.results import Interval
from transferkit.formatting import count, percent, percent_interval, score, score_interval


def collapse_reason(
    confusion: npt.NDArray[np.int64],
    metrics: Mapping[str, float],
    intervals: Mapping[str, Interval],
    baseline_accuracy: float,
    names: Sequence[str],
) -> str | None:
    """Why these predictions count as collapsed, in one sentence, or None where they do not.

    Collapsed are predictions of a single class, and a score at the majority baseline: an accuracy whose
    interval does not lie above the baseline, with an MCC whose interval reaches zero. Accuracy alone would
    condemn a model that finds a rare class at the price of a few errors; its MCC speaks for it.

    Args:
        confusion: [C, C], rows true, columns predicted.
        metrics: with accuracy and mcc.
        intervals: with accuracy and mcc.
        baseline_accuracy: of always answering the majority class.
        names: of the C classes.
    """
    if np.count_nonzero(confusion.sum(axis=1)) < 2:
        return None  # with one true class in the test rows, answering it always is right
    answered = np.flatnonzero(confusion.sum(axis=0))
    if len(answered) == 1:
        return f"All {count(confusion.sum())} test rows are answered {names[answered[0]]!r}."
    accuracy_low, mcc_low = intervals["accuracy"][0], intervals["mcc"][0]
    if accuracy_low > baseline_accuracy or mcc_low > 0:
        return None
    return (
        f"The score is at the majority baseline: accuracy {percent(metrics['accuracy'])} "
        f"(95 % interval {percent_interval(intervals['accuracy'])}) against {percent(baseline_accuracy)}, "
        f"MCC {score(metrics['mcc'])} ({score_interval(intervals['mcc'])})."
    )
