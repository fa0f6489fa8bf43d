"""Pairs of tokenized sentences as padded batches, read in place from Arrow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from transferkit.data.batching import IGNORE_INDEX, ListColumn, length_order, padded_length, runs


@dataclass(frozen=True)
class ParallelTable(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Sources and targets as ids, each with its end token, ready to be collated.

    A batch holds `source` int64 [rows, S], `source_mask` bool [rows, S] with True on real tokens, `target` int64
    [rows, T], which is the start token and what stands before each of the labels, and `labels` [rows, T], the target
    with its end and `IGNORE_INDEX` for padding: at each position the token that comes next.
    """

    sources: ListColumn
    targets: ListColumn
    start_id: int
    padding_id: int

    @classmethod
    def from_arrow(cls, table: pa.Table, start_id: int, padding_id: int) -> ParallelTable:
        """Read the columns `source` and `target`."""
        sources, targets = (ListColumn.from_arrow(table.column(name)) for name in ("source", "target"))
        return cls(sources, targets, start_id, padding_id)

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of source or target, whichever are more, int32 [rows]."""
        longest: np.ndarray = self.side_lengths.max(axis=1)
        return longest

    @cached_property
    def side_lengths(self) -> np.ndarray:
        """Tokens of source and target, int32 [rows, 2]."""
        return np.stack([self.sources.lengths, self.targets.lengths], axis=1)

    def __getitems__(self, rows: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        """Collate `rows`; torch's loader calls this once a batch instead of once a row."""
        index = np.asarray(rows)
        widths = [padded_length(column.lengths[index]) for column in (self.sources, self.targets)]
        labels = self.targets.padded(index, widths[1], IGNORE_INDEX)
        target = labels.roll(1, dims=1)
        target.masked_fill_(target == IGNORE_INDEX, self.padding_id)
        target[:, 0] = self.start_id
        return {
            "source": self.sources.padded(index, widths[0], self.padding_id),
            "source_mask": torch.arange(widths[0]) < torch.from_numpy(self.sources.lengths[index]).unsqueeze(1),
            "target": target,
            "labels": labels,
        }

    def in_length_order(self, max_tokens: int) -> Iterator[tuple[np.ndarray, dict[str, Tensor]]]:
        """(row numbers, batch) over all rows in batches of at most `max_tokens` tokens with padding, or of one row.

        The longest come first, so that memory peaks at once and not at the end.
        """
        order = length_order(self.side_lengths)[::-1]
        for rows in runs(order, max_tokens, lambda first: padded_length(self.lengths[first])):
            yield rows, self.__getitems__(rows)

    def padding_share(self, batches: Iterable[list[int]]) -> float:
        """The share of padding among the tokens of sources and targets of these batches."""
        real = padded = 0
        for rows in batches:
            for column in (self.sources, self.targets):
                real += int(column.lengths[rows].sum())
                padded += len(rows) * padded_length(column.lengths[rows])
        return 1 - real / padded
