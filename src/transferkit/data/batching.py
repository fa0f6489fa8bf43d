"""Tokenized rows as padded batches: read in place from Arrow, like lengths together, shuffled with a seed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    import pyarrow as pa

# Rows are sorted by length inside pools of this many batches: large enough that a batch holds like lengths,
# small enough that batches still mix the data anew every epoch.
POOL_BATCHES = 50
# Batches are padded to a multiple of this many tokens: the kernels keep code and memory for every shape they have met.
LENGTH_STEP = 4
# The label of what does not count, such as padding.
IGNORE_INDEX = -100


class ListColumn:
    """A column of integer lists, as views on the memory that Arrow has mapped: no copy, no object a row."""

    def __init__(self, values: Sequence[np.ndarray], offsets: Sequence[np.ndarray]) -> None:
        """`values` of the lists one after the other, and `offsets` of each list and the end of the last, by chunk."""
        self.chunks, self._offsets = values, offsets
        sizes = [len(chunk) - 1 for chunk in offsets]
        self._first_rows = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.lengths = np.concatenate([np.diff(chunk) for chunk in offsets] or [np.empty(0)]).astype(np.int32)

    @classmethod
    def from_arrow(cls, column: pa.ChunkedArray) -> ListColumn:
        """The column of a table, in place."""
        chunks = [chunk for chunk in column.chunks if len(chunk)]
        return cls(
            [chunk.values.to_numpy(zero_copy_only=True) for chunk in chunks],
            [chunk.offsets.to_numpy(zero_copy_only=True) for chunk in chunks],
        )

    @classmethod
    def from_lists(cls, lists: Sequence[Sequence[int]]) -> ListColumn:
        """A few lists, in memory."""
        values = np.fromiter(chain.from_iterable(lists), dtype=np.int32)
        return cls([values], [np.cumsum([0, *map(len, lists)])])

    @classmethod
    def joined(cls, columns: Sequence[ListColumn]) -> ListColumn:
        """The lists of one column after those of the other, in place."""
        return cls(
            [chunk for column in columns for chunk in column.chunks],
            [chunk for column in columns for chunk in column._offsets],
        )

    def __getitem__(self, row: int) -> np.ndarray:
        """The list of one row, shape [length]."""
        chunk = int(np.searchsorted(self._first_rows, row, side="right")) - 1
        local = row - self._first_rows[chunk]
        start, stop = self._offsets[chunk][local : local + 2]
        return np.asarray(self.chunks[chunk][start:stop])

    def padded(self, rows: np.ndarray, width: int, fill: int) -> Tensor:
        """The lists of `rows`, padded on the right with `fill`: int64 [len(rows), width]."""
        block = np.full((len(rows), width), fill, dtype=np.int64)
        for line, row in zip(block, rows, strict=True):
            values = self[int(row)]
            line[: len(values)] = values
        return torch.from_numpy(block)


def padded_length(lengths: np.ndarray) -> int:
    """How long a batch of rows of these lengths is."""
    return int(_rounded(lengths.max()))


def _rounded(lengths: np.ndarray) -> np.ndarray:
    return -(-lengths // LENGTH_STEP) * LENGTH_STEP


class RowStates(Protocol):
    """What a model has computed of each row already."""

    @property
    def is_pooled(self) -> bool:
        """Whether a row is one vector, with which its tokens are needed no more."""

    def batch(self, rows: np.ndarray, length: int) -> Tensor:
        """Of `rows`: [rows, size], or [rows, length, size] with anything in the padding."""


@dataclass(frozen=True)
class FeatureTable(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Tokenized rows, ready to be collated.

    A batch holds `input_ids` [rows, length], `attention_mask` bool [rows, length] with True on real tokens,
    `token_type_ids` [rows, length] where the backbone uses them, and `labels` [rows] where they are known. Where the
    lower layers have been computed it holds their `states`, and only these and the labels where they are pooled.
    """

    input_ids: ListColumn
    token_type_ids: ListColumn | None
    labels: np.ndarray | None
    pad_token_id: int
    states: RowStates | None = None

    @classmethod
    def from_arrow(cls, table: pa.Table, pad_token_id: int) -> FeatureTable:
        """Read the columns `input_ids`, and where they are there `token_type_ids` and `label`."""
        names = table.column_names
        return cls(
            input_ids=ListColumn.from_arrow(table.column("input_ids")),
            token_type_ids=ListColumn.from_arrow(table.column("token_type_ids")) if "token_type_ids" in names else None,
            labels=table.column("label").to_numpy() if "label" in names else None,
            pad_token_id=pad_token_id,
        )

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens per row, int32 [rows]."""
        return self.input_ids.lengths

    @property
    def side_lengths(self) -> np.ndarray:
        """The same as the only column, int32 [rows, 1]."""
        return self.lengths[:, None]

    def __getitems__(self, rows: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        """Collate `rows`; torch's loader calls this once a batch instead of once a row."""
        index = np.asarray(rows)
        batch = {} if self.states is not None and self.states.is_pooled else self._tokens(index)
        if self.labels is not None:
            batch["labels"] = torch.from_numpy(self.labels[index])
        if self.states is not None:
            batch["states"] = self.states.batch(index, self._padded_length(index))
        return batch

    def _tokens(self, index: np.ndarray) -> dict[str, Tensor]:
        length = self._padded_length(index)
        batch = {
            "input_ids": self.input_ids.padded(index, length, self.pad_token_id),
            "attention_mask": torch.arange(length) < torch.from_numpy(self.lengths[index]).unsqueeze(1),
        }
        if self.token_type_ids is not None:
            batch["token_type_ids"] = self.token_type_ids.padded(index, length, 0)
        return batch

    @cached_property
    def _longest(self) -> int:
        return int(self.lengths.max())

    def _padded_length(self, rows: Sequence[int] | np.ndarray) -> int:
        """The longest of `rows` rounded up, but never above the longest of all: the backbone may take no more."""
        return min(padded_length(self.lengths[rows]), self._longest)

    def _width(self, rows: np.ndarray) -> int:
        """The tokens that each of `rows` counts for in a batch of them."""
        return 1 if self.states is not None and self.states.is_pooled else self._padded_length(rows)

    def padding_share(self, batches: Iterable[Sequence[int]]) -> float:
        """The share of padding among all tokens of these batches of rows."""
        real = padded = 0
        for rows in batches:
            real += int(self.lengths[rows].sum())
            padded += len(rows) * self._padded_length(rows)
        return 1 - real / padded

    def in_length_order(self, max_tokens: int) -> Iterator[tuple[np.ndarray, dict[str, Tensor]]]:
        """(row numbers, batch) over all rows in batches of at most `max_tokens` tokens with padding, or of one row.

        A row that is one vector counts as one token. The longest come first, so that memory peaks at once and not at
        the end.
        """
        order = np.argsort(-self.lengths, kind="stable")
        for rows in runs(order, max_tokens, self._width):
            yield rows, self.__getitems__(rows)


def runs(order: np.ndarray, max_tokens: int, width: Callable[[np.ndarray], int]) -> Iterator[np.ndarray]:
    """Row numbers in their `order`, which begins with the longest, by batches of at most `max_tokens` or of one row.

    `width` says how long the rows are that it is given, with their padding.
    """
    start = 0
    while start < len(order):
        rows = order[start : start + max(1, max_tokens // width(order[start : start + 1]))]
        yield rows
        start += len(rows)


def split(batch: dict[str, Tensor], max_tokens: int) -> list[dict[str, Tensor]]:
    """The batch in parts of equal numbers of rows, each of at most `max_tokens` tokens with padding, or of one row."""
    if "input_ids" not in batch:
        return [batch]
    rows, length = batch["input_ids"].shape
    parts = -(-rows // max(1, max_tokens // length))
    chunks = {name: tensor.chunk(parts) for name, tensor in batch.items()}
    return [dict(zip(chunks, part, strict=True)) for part in zip(*chunks.values(), strict=True)]


class _Sampler(torch.utils.data.Sampler[list[int]], ABC):
    """Batches in an order that depends on the seed and the epoch and on nothing else."""

    def __init__(self, lengths: np.ndarray, seed: int) -> None:
        self._lengths = lengths
        self._seed = seed
        self._epoch = 0
        # How many batches are left out at the beginning, since they have been trained on.
        self.skip = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the shuffle of this epoch."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        random = np.random.default_rng([self._seed, self._epoch])
        batches = list(self._batches(random))
        for position in random.permutation(len(batches))[self.skip :]:
            yield batches[position].tolist()

    @abstractmethod
    def _batches(self, random: np.random.Generator) -> Iterator[np.ndarray]:
        """All batches, in any order that draws from `random` alone."""


class LengthGroupedSampler(_Sampler):
    """Batches of so many rows of like lengths."""

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int) -> None:
        super().__init__(lengths, seed)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self._lengths) // self.batch_size)

    def _batches(self, random: np.random.Generator) -> Iterator[np.ndarray]:
        shuffled = random.permutation(len(self._lengths))
        for start in range(0, len(shuffled), self.batch_size * POOL_BATCHES):
            pool = shuffled[start : start + self.batch_size * POOL_BATCHES]
            pool = pool[np.argsort(self._lengths[pool], kind="stable")]
            yield from (pool[i : i + self.batch_size] for i in range(0, len(pool), self.batch_size))


def length_order(side_lengths: np.ndarray) -> np.ndarray:
    """Row numbers by the padded length of the longest side, and where that is equal by how the sides differ.

    Of 18,690 English-Italian pairs (BPE of 8,000, batches of 2,048 tokens) padding is 6.8 % in this order, 10.8 % in
    that of the longest side alone, and 10.9 % in that of target, then source. Padding each row by itself to a
    multiple of `LENGTH_STEP` takes 5.3 %.

    Args:
        side_lengths: tokens of each of the sequences that a row holds, int32 [rows, sides].
    """
    padded = _rounded(side_lengths)
    return np.lexsort((padded[:, 0] - padded[:, -1], padded.max(axis=1)))


class TokenBudgetSampler(_Sampler):
    """Batches of like lengths, each of at most `max_tokens` tokens with padding, or of one row.

    Where a row holds several sequences, `lengths` is [rows, sides], and the longest of them counts. Where batches end
    follows from the sorted lengths alone, so every epoch has as many of them; which of the rows of like lengths are in
    which batch, and the order of batches, is shuffled.
    """

    def __init__(self, lengths: np.ndarray, max_tokens: int, seed: int) -> None:
        super().__init__(lengths.reshape(len(lengths), -1), seed)
        self._edges = _edges(np.sort(_rounded(self._lengths).max(axis=1)), max_tokens)

    def __len__(self) -> int:
        return len(self._edges) - 1

    def _batches(self, random: np.random.Generator) -> Iterator[np.ndarray]:
        shuffled = random.permutation(len(self._lengths))
        ordered = shuffled[length_order(self._lengths[shuffled])]
        return (ordered[start:end] for start, end in pairwise(self._edges))


def _edges(ascending: np.ndarray, max_tokens: int) -> list[int]:
    """Where batches of at most `max_tokens` begin and end in rows of ascending lengths."""
    edges = [0]
    for row, length in enumerate(ascending.tolist()):
        if row > edges[-1] and (row - edges[-1] + 1) * length > max_tokens:
            edges.append(row)
    return [*edges, len(ascending)]
