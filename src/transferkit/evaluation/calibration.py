"""Whether the stated probabilities can be believed: of answers given with 80 % confidence, are 80 % right?

The confidence of a row is the probability of its top label. Rows are binned by confidence into equal widths:
(0, 1/15], (1/15, 2/15], ..., (14/15, 1]. Guo et al. 2017, "On Calibration of Modern Neural Networks", sec. 2.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from transferkit.evaluation.results import ReliabilityBin

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

BINS = 15  # the number of Guo et al., so that values compare with published ones


def binned_gaps(labels: IntArray, probabilities: FloatArray) -> FloatArray:
    """`right - confidence` of each row, in the column of its bin and zero elsewhere: [n, BINS].

    The mean of a column over the n rows is the bin's share of rows times its accuracy minus its confidence;
    the error sums the sizes of these, so that of any resample of the rows is a function of column means.

    Args:
        labels: [n], true classes.
        probabilities: [n, C], rows summing to one.
    """
    bins, confidence, right = _binned(labels, probabilities)
    gaps = np.zeros((len(labels), BINS))
    gaps[np.arange(len(labels)), bins] = right - confidence
    return gaps


def error_of_gaps(mean_gaps: FloatArray) -> FloatArray:
    """The expected calibration error [...] from the column means [..., BINS] of `binned_gaps`.

    It is the mean over rows of the gap between accuracy and confidence of the row's bin (Guo et al. 2017, eq. 3).
    """
    error: FloatArray = np.abs(mean_gaps).sum(axis=-1)
    return error


def reliability_bins(labels: IntArray, probabilities: FloatArray) -> tuple[ReliabilityBin, ...]:
    """The bars of a reliability diagram (Guo et al. 2017, fig. 1) from left to right, without empty bins."""
    bins, confidence, right = _binned(labels, probabilities)
    rows = np.bincount(bins, minlength=BINS)
    confidences = np.bincount(bins, weights=confidence, minlength=BINS)
    rights = np.bincount(bins, weights=right, minlength=BINS)
    return tuple(
        ReliabilityBin(
            lower=float(index / BINS),
            upper=float((index + 1) / BINS),
            rows=int(rows[index]),
            confidence=float(confidences[index] / rows[index]),
            accuracy=float(rights[index] / rows[index]),
        )
        for index in np.flatnonzero(rows)
    )


def pooled(bins: Iterable[ReliabilityBin]) -> tuple[ReliabilityBin, ...]:
    """The bins of several runs as if their rows came from one, from left to right."""
    by_edges: dict[tuple[float, float], list[ReliabilityBin]] = {}
    for one in bins:
        by_edges.setdefault((one.lower, one.upper), []).append(one)
    return tuple(_united(by_edges[edges]) for edges in sorted(by_edges))


def _united(bins: list[ReliabilityBin]) -> ReliabilityBin:
    rows = sum(one.rows for one in bins)
    return ReliabilityBin(
        lower=bins[0].lower,
        upper=bins[0].upper,
        rows=rows,
        confidence=sum(one.rows * one.confidence for one in bins) / rows,
        accuracy=sum(one.rows * one.accuracy for one in bins) / rows,
    )


def _binned(labels: IntArray, probabilities: FloatArray) -> tuple[IntArray, FloatArray, FloatArray]:
    """Per row [n]: its bin, its confidence, and 1.0 where its top label is right."""
    confidence: FloatArray = probabilities.max(axis=1)
    right = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    # Bins are closed on the right, so that full confidence belongs to the last one.
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    return bins, confidence, right
