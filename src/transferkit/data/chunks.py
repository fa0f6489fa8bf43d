"""What the file readers hand on: some thousand rows at a time, with the lines they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

# Enough rows for Arrow to be fast on, few enough that long documents stay far from filling memory.
CHUNK_ROWS = 8192


@dataclass(frozen=True)
class Chunk:
    """Rows of one file: their cells, and the line (in Parquet the row) where each starts, counted from 1."""

    batch: pa.RecordBatch
    starts: Sequence[int]
