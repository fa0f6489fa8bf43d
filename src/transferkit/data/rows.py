"""The rows in use of one split: their memory-mapped text, and their labels as numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from transferkit.data import workspace

Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_WINDOW = 1 << 14


@dataclass(frozen=True)
class Rows:
    """Which rows of a table are in use.

    `texts` and `label_ids` cover the whole table; `indices`, ascending, are the rows that count.
    """

    texts: pa.Table  # text, and text_pair where there are pairs
    label_ids: Indices
    indices: Indices
    where: str

    @classmethod
    def of(cls, texts: pa.Table, indices: Indices, labels: Indices, where: str) -> Rows:
        """The rows `indices` of a table, of which `labels` are the labels."""
        label_ids = np.full(len(texts), -1, dtype=np.int64)
        label_ids[indices] = labels
        return cls(texts, label_ids, indices, where)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def labels(self) -> Indices:
        """The label of each row in use."""
        return self.label_ids[self.indices]

    def keep(self, mask: Mask) -> Rows:
        """Those of the rows in use for which `mask`, as long as they, is true."""
        return replace(self, indices=self.indices[mask])

    def windows(self, size: int = _WINDOW) -> Iterator[pa.Table]:
        """The texts of the rows in use, by windows of `size` rows of the table: few are in memory at once."""
        for start in range(0, len(self.texts), size):
            first, last = np.searchsorted(self.indices, (start, start + size))
            yield self.texts.slice(start, size).take(pa.array(self.indices[first:last] - start))

    def dataset(self) -> datasets.Dataset:
        """The rows in use as a memory-mapped data set with the columns of `texts` and `label`."""
        schema = self.texts.schema.append(pa.field("label", pa.int64()))
        return datasets.Dataset.from_file(str(workspace.write(self._batches(schema), schema)))

    def _batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        labels, done = self.labels, 0
        for texts in self.windows():
            label = pa.array(labels[done : done + len(texts)])
            done += len(texts)
            yield from texts.append_column(schema.field("label"), label).combine_chunks().to_batches()


def counted(number: int) -> str:
    """`1 row`, `2 rows`."""
    return f"{number:,} row" if number == 1 else f"{number:,} rows"
