"""What the file readers hand on: some thousand rows at a time, with the lines they come from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from transferkit.errors import DataError

# Enough rows for Arrow to be fast on, few enough that long documents stay far from filling memory.
CHUNK_ROWS = 8192


@dataclass(frozen=True)
class Chunk:
    """Rows of one file: their cells, and the line (in Parquet the row) where each starts, counted from 1."""

    batch: pa.RecordBatch
    starts: Sequence[int]


def refuse_repeated(names: Sequence[str], where: str, advice: str) -> None:
    """Refuse columns that share a name, since none of them could be meant by it.

    Raises:
        DataError: a name stands more than once; the message begins with `where` and ends with `advice`.
    """
    repeated = sorted(name for name, times in Counter(names).items() if times > 1)
    if repeated:
        raise DataError(f"{where}: the column name {repeated[0]!r} stands more than once; {advice}.")
