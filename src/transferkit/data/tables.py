"""What every reader gives: tables of raw columns by the name of their split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa

# The names that splits go by, the most usual first; MNLI's `_matched` is of the genres of its training rows.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "validation_matched", "dev_matched"),
    "test": ("test", "test_matched"),
}


@dataclass(frozen=True)
class Table:
    """Raw columns, memory-mapped; named classes are a dictionary column in the order of the names."""

    columns: pa.Table
    where: str  # how messages call it
    has_header: bool = False  # the column names are the first line of a file


@dataclass(frozen=True)
class Source:
    """The splits of one source under the names train, validation and test."""

    splits: Mapping[str, Table]
    notes: tuple[str, ...] = ()
    options_used: frozenset[str] = frozenset()  # which of encoding and quoting had a say in the reading


def split_called(names: Iterable[str], split: str) -> str | None:
    """Which of `names` stands for `split`, or None."""
    known = list(names)
    return next((name for name in SPLIT_NAMES[split] if name in known), None)
