"""The rows in use of one split: their memory-mapped text, and where there are labels, these as numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from transferkit.data import workspace

Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_WINDOW = 1 << 14


@dataclass(frozen=True)
class TextRows:
    """Which rows of a table of texts are in use: `indices`, ascending."""

    texts: pa.Table
    indices: Indices
    where: str

    def __len__(self) -> int:
        return len(self.indices)

    def keep(self, mask: Mask) -> Self:
        """Those of the rows in use for which `mask`, as long as they, is true."""
        return replace(self, indices=self.indices[mask])

    def only(self, column: str) -> Self:
        """The same rows with one of their texts."""
        return replace(self, texts=self.texts.select([column]))

    def windows(self, size: int = _WINDOW) -> Iterator[pa.Table]:
        """The texts of the rows in use, by windows of `size` rows of the table: few are in memory at once."""
        for start in range(0, len(self.texts), size):
            first, last = np.searchsorted(self.indices, (start, start + size))
            yield self.texts.slice(start, size).take(pa.array(self.indices[first:last] - start))

    def dataset(self) -> datasets.Dataset:
        """The rows in use as a memory-mapped data set."""
        batches = (batch for table in self._tables() for batch in table.combine_chunks().to_batches())
        return datasets.Dataset.from_file(str(workspace.write(batches, self._schema())))

    def _schema(self) -> pa.Schema:
        return self.texts.schema

    def _tables(self) -> Iterator[pa.Table]:
        """The rows in use with the columns of the schema, a few at a time."""
        return self.windows()


@dataclass(frozen=True)
class Rows(TextRows):
    """Rows with labels: `texts` has the columns text, and text_pair where there are pairs.

    `label_ids` covers the whole table, as `texts` does.
    """

    label_ids: Indices

    @classmethod
    def of(cls, texts: pa.Table, indices: Indices, labels: Indices, where: str) -> Rows:
        """The rows `indices` of a table, of which `labels` are the labels."""
        label_ids = np.full(len(texts), -1, dtype=np.int64)
        label_ids[indices] = labels
        return cls(texts, indices, where, label_ids)

    @property
    def labels(self) -> Indices:
        """The label of each row in use."""
        return self.label_ids[self.indices]

    def _schema(self) -> pa.Schema:
        return self.texts.schema.append(pa.field("label", pa.int64()))

    def _tables(self) -> Iterator[pa.Table]:
        done = 0
        for texts in self.windows():
            labels = self.labels[done : done + len(texts)]
            done += len(texts)
            yield texts.append_column("label", pa.array(labels))


def counted(number: int) -> str:
    """`1 row`, `2 rows`."""
    return f"{number:,} row" if number == 1 else f"{number:,} rows"
