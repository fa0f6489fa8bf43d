"""Facts about the rows: lengths, duplicates, class counts, hashes."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from transferkit.data.overlap import digest

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Lengths:
    """Lengths in tokens before truncation, and what truncation cuts."""

    statistics: dict[str, float]
    histogram: tuple[tuple[int, int], ...]
    truncated_rows: float
    truncated_tokens: float

    @classmethod
    def of(cls, lengths: np.ndarray, max_length: int) -> Lengths:
        """Summarise `lengths` [rows] under a limit of `max_length` tokens."""
        counts, edges = np.histogram(lengths, bins=min(30, max(1, int(np.ptp(lengths)))))
        return cls(
            statistics=statistics(lengths),
            histogram=tuple((math.ceil(edge), int(count)) for edge, count in zip(edges, counts, strict=False)),
            truncated_rows=float((lengths > max_length).mean()),
            truncated_tokens=float(np.maximum(lengths - max_length, 0).sum() / lengths.sum()),
        )


def statistics(lengths: np.ndarray) -> dict[str, float]:
    """Mean, median, 95th percentile and maximum of lengths [rows]."""
    return {
        "mean": float(lengths.mean()),
        "median": float(np.median(lengths)),
        "p95": float(np.percentile(lengths, 95)),
        "max": float(lengths.max()),
    }


def text_columns(rows: Dataset) -> list[str]:
    """Those of text: `text`, and `text_pair` for pairs; `source` and `target` of translations."""
    return [name for name in ("text", "text_pair", "source", "target") if name in rows.column_names]


def class_counts(rows: Dataset, classes: int) -> tuple[int, ...]:
    """Rows by class id."""
    labels = rows.with_format("numpy")["label"][:]
    return tuple(int(count) for count in np.bincount(labels, minlength=classes))


def content_hash(rows: Dataset) -> str:
    """SHA-256 of texts and, where they are there, labels in their order."""
    found = hashlib.sha256()
    for batch in rows.with_format("arrow").iter(batch_size=10_000):
        for name in text_columns(rows):
            # After each column too, or a text could stand in the other one with the same hash.
            found.update(("\x1f".join(batch.column(name).to_pylist()) + "\x1e").encode())
        if "label" in rows.column_names:
            found.update(batch.column("label").to_numpy().tobytes())
    return found.hexdigest()


def duplicate_rows(rows: Dataset) -> int:
    """Rows whose text, or pair of texts, stands more than once; blanks at the ends count for nothing."""
    batches = rows.with_format("arrow").iter(batch_size=10_000)
    columns = ([batch.column(name).to_pylist() for name in text_columns(rows)] for batch in batches)
    digests = b"".join(digest(texts) for batch in columns for texts in zip(*batch, strict=True))
    _, counts = np.unique(np.frombuffer(digests, dtype=np.uint64), return_counts=True)
    return int(counts[counts > 1].sum())
