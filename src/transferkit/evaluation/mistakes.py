"""The test rows on which strategies are surest of a wrong answer: where bad labels and blind spots show.

Shapes: n test rows, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from transferkit.evaluation.results import Mistake

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def most_confident(labels: IntArray, probabilities: FloatArray, k: int) -> IntArray:
    """The at most `k` rows answered wrongly with the highest probability [n, C], the surest first."""
    wrong_confidence = _wrong_confidence(labels, probabilities)
    order = np.argsort(-wrong_confidence, kind="stable")[:k]
    return order[wrong_confidence[order] > 0]


def side_by_side(
    labels: IntArray,
    probabilities: Mapping[str, FloatArray],
    names: Sequence[str],
    texts: Callable[[int], tuple[str, ...]],
    k: int,
) -> list[Mistake]:
    """The `k` surest mistakes of each strategy, united, with what every strategy answers there.

    The row of the surest mistake comes first, whichever strategy makes it.

    Args:
        labels: [n], true classes.
        probabilities: by strategy, [n, C].
        names: of the C classes.
        texts: gives the one or two texts of a row.
        k: rows per strategy.
    """
    rows = {int(row) for p in probabilities.values() for row in most_confident(labels, p, k)}
    surest = np.max([_wrong_confidence(labels, p) for p in probabilities.values()], axis=0, initial=0)
    return [
        Mistake(
            row=row,
            text=texts(row),
            label=names[labels[row]],
            answers={name: _answer(p[row], names) for name, p in probabilities.items()},
        )
        for row in sorted(rows, key=lambda row: (-surest[row], row))
    ]


def _answer(probabilities: FloatArray, names: Sequence[str]) -> tuple[str, float]:
    """The top label of one row [C] and its probability."""
    top = int(probabilities.argmax())
    return names[top], float(probabilities[top])


def _wrong_confidence(labels: IntArray, probabilities: FloatArray) -> FloatArray:
    """The probability of the top class where it is wrong, 0 where it is right, [n]."""
    confidence: FloatArray = np.where(probabilities.argmax(axis=1) == labels, 0.0, probabilities.max(axis=1))
    return confidence
