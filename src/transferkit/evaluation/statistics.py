"""How sure a score is: bootstrap intervals, and paired tests between two strategies on the same test rows.

Shapes: n test rows, S seeds, R resamples. What draws at random takes a seed and repeats exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr

from transferkit.evaluation.results import Interval

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

LEVEL = 0.95
# With so many, the ends of an interval vary by about 1.5 % of its width (one standard error) with the seed.
RESAMPLES = 2000
# Numbers drawn at a time, unless one resample has more: half a megabyte, which the processor's cache holds, is measured
# a quarter faster than 8 MB.
CHUNK_NUMBERS = 1 << 16


def percentile_interval(draws: FloatArray) -> Interval:
    """The middle 95 % of resampled values [R]: the percentile interval (Efron & Tibshirani 1993, ch. 13)."""
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def error_interval(estimate: float, draws: FloatArray) -> Interval:
    """The interval of an error from 0 to 1 that noise can only raise, such as a sum of absolute gaps.

    Resampling adds noise to the noise that the estimate holds already, so the resamples lie too high, and
    their percentiles may even exclude the estimate. The basic bootstrap interval mirrors them at the
    estimate, which takes that bias out again (Davison & Hinkley 1997, sec. 5.2). It is cut to the range, and
    made to hold the estimate.

    Args:
        estimate: the error over all rows.
        draws: [R], the errors of the resamples.
    """
    low, high = percentile_interval(draws)
    mirrored_low, mirrored_high = 2 * estimate - high, 2 * estimate - low
    return max(0.0, min(estimate, mirrored_low)), min(1.0, max(estimate, mirrored_high))


def count_intervals(
    counts: IntArray,
    statistics: Callable[[IntArray], dict[str, FloatArray]],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Interval]:
    """Intervals of statistics that depend on the rows only through how many fall into each cell.

    Each of n rows drawn with replacement lands in a cell with the cell's share of rows as its probability,
    independently of the others, so the counts of a resample are one multinomial draw with these shares.
    Drawing the counts is therefore the row bootstrap itself, at a cost that does not grow with n.

    Args:
        counts: rows per cell, of any shape; for a confusion matrix [C, C].
        statistics: maps counts [r, *counts.shape] to named values [r].
        resamples: R.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    chunks = [statistics(draws) for draws in _resampled_counts(counts, resamples, rng)]
    draws_by_name = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
    return {name: percentile_interval(draws) for name, draws in draws_by_name.items()}


def resampled_row_means(values: FloatArray, resamples: int = RESAMPLES, seed: int = 0) -> FloatArray:
    """Column means [R, k] of `values` [n, k] over rows drawn with replacement."""
    rng = np.random.default_rng(seed)
    n = len(values)
    means = []
    for size in _chunk_sizes(resamples, numbers_each=n):
        rows = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        times_drawn = np.bincount(rows.ravel(), minlength=size * n).reshape(size, n)
        means.append(times_drawn.astype(np.float64) @ values / n)
    return np.concatenate(means)


def mean_interval(values: npt.ArrayLike, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The interval of the mean of `values` [n, S] over test rows and, where S > 1, over seeds.

    All seeds are scored on the same rows, so rows and seeds cross: each resample draws n rows and S seeds,
    both with replacement, and takes the mean of their block ("The pigeonhole bootstrap", Owen 2007). Of the
    variance between seeds it sees (S - 1) / S, as any bootstrap of S things does: with one seed, none.

    With `values` the right answers of one strategy (0 or 1) this is the interval of its accuracy; with those
    of a minus those of b it is the paired interval of the difference.
    """
    by_row = np.asarray(values, dtype=np.float64)
    n, seeds = by_row.shape
    rng = np.random.default_rng(seed)
    # Rows with equal outcomes under every seed are interchangeable: at most 2^S or 3^S cells are left.
    outcomes, counts = np.unique(by_row, axis=0, return_counts=True)
    seed_means = np.concatenate([draws @ outcomes / n for draws in _resampled_counts(counts, resamples, rng)])
    seed_shares = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds
    return percentile_interval((seed_means * seed_shares).sum(axis=1))


def accuracy_interval(right: npt.NDArray[np.bool_]) -> Interval:
    """The interval of the mean accuracy of `right` answers [n, S]."""
    if right.all() or not right.any():
        return exact_interval(len(right), all_right=bool(right.all()))
    return mean_interval(right)


def exact_interval(rows: int, all_right: bool) -> Interval:
    """The interval of an accuracy where the answers to so many rows are all right, or all wrong.

    All resamples are alike there and show no doubt: the interval is the exact one (Clopper & Pearson 1934), of the
    rows alone, whatever the number of seeds.
    """
    farthest = float(((1 - LEVEL) / 2) ** (1 / rows))
    return (farthest, 1.0) if all_right else (0.0, 1 - farthest)


def mcnemar_p(right_a: npt.NDArray[np.bool_], right_b: npt.NDArray[np.bool_]) -> float:
    """Two-sided exact McNemar test of equal accuracy on the same rows (McNemar 1947).

    Only rows that one of the two gets right and the other wrong count. Were the two equally good, each such
    row would fall to either side like a fair coin, so their split is binomial with one half (the exact
    conditional test of Fagerland et al. 2013).

    Args:
        right_a: [n], whether a answers the row rightly.
        right_b: [n], the same of b.
    """
    only_a = int(np.count_nonzero(right_a & ~right_b))
    only_b = int(np.count_nonzero(right_b & ~right_a))
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def combine_p(p_values: Sequence[float]) -> float:
    """One p-value from one per seed: twice their mean, at most 1; a single one is itself.

    Valid whatever the dependence between them, and seeds scored on the same rows are dependent (Rüschendorf
    1982; Vovk & Wang 2020, "Combining p-values via averaging").
    """
    if len(p_values) == 1:
        return p_values[0]
    return min(1.0, 2 * float(np.mean(p_values)))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number by Holm's step-down procedure (Holm 1979), in the order given.

    The smallest of m is multiplied by m, the next by m - 1, and so on; none may fall below one before it.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]


def _resampled_counts(counts: IntArray, resamples: int, rng: np.random.Generator) -> Iterator[IntArray]:
    """Multinomial draws with the shares of `counts`, [r, *counts.shape], r summing to `resamples`."""
    n = int(counts.sum())
    shares = counts.ravel() / n
    for size in _chunk_sizes(resamples, numbers_each=counts.size):
        yield rng.multinomial(n, shares, size=size).reshape(size, *counts.shape)


def _chunk_sizes(resamples: int, numbers_each: int) -> Iterator[int]:
    """Split `resamples` into chunks of at most CHUNK_NUMBERS numbers, but of at least one resample."""
    most = max(1, CHUNK_NUMBERS // numbers_each)
    for start in range(0, resamples, most):
        yield min(most, resamples - start)


def spread(rows: int, number: int) -> list[int]:
    """`number` of so many rows, at equal distances from the first on; all where there are no more."""
    number = min(number, rows)
    return [position * rows // number for position in range(number)]
