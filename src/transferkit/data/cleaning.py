"""Rows without text or label: dropped and counted while they are few, refused when they are many."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transferkit.data.blanks import READABLE
from transferkit.data.rows import Indices
from transferkit.errors import DataError

# A few holes are found in most files that people export; more of them mean a wrong column or a broken export.
LIMIT = 0.05


@dataclass(frozen=True)
class Kept:
    """The rows that hold text and label, and how many do not."""

    indices: Indices
    dropped: int


def usable(texts: pa.Table, label: pa.ChunkedArray | None, where: str) -> Kept:
    """The rows of which every text, and the label, is there and not blank.

    Raises:
        DataError: there are no rows, or more than `LIMIT` of them lack a text or a label.
    """
    if not len(texts):
        raise DataError(f"{where} holds no rows; there is nothing to learn from.")
    has_text = np.logical_and.reduce([readable(column) for column in texts.columns])
    has_label = np.ones(len(texts), dtype=bool) if label is None else readable(label)
    good = has_text & has_label
    dropped = int(len(good) - good.sum())
    if dropped > LIMIT * len(good):
        missing = " or ".join(what for what, has in (("text", has_text), ("label", has_label)) if not has.all())
        raise DataError(
            f"{where}: {dropped:,} of {len(good):,} rows ({dropped / len(good):.1%}) have no {missing}, "
            f"row {int(np.argmin(good)) + 1:,} is the first; only up to {LIMIT:.0%} are dropped. "
            "Mend the rows, or name other columns."
        )
    return Kept(np.flatnonzero(good).astype(np.int64), dropped)


def readable(column: pa.ChunkedArray) -> np.typing.NDArray[np.bool_]:
    """For each value, whether it is there and holds more than blanks."""
    found = pc.fill_null(pc.match_substring_regex(column, READABLE), False)
    values: np.typing.NDArray[np.bool_] = found.to_numpy()
    return values
