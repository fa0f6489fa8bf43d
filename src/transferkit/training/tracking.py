"""What the loop tells the outside while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from transferkit.environment import write_file
from transferkit.evaluation.results import EpochRecord, reading


class Listener:
    """Hears of the progress of a run, and does nothing; one that does something overrides what it needs."""

    def planned(self, rows: int) -> None:
        """The whole job will put `rows` rows through a model, training and evaluation together."""

    def started(self, label: str, rows: int | None) -> None:
        """A run begins that will put `rows` of them through; None where it was one of several at once."""

    def extended(self, rows: int) -> None:
        """The job and the run that goes on will put `rows` more through than was said."""

    def begun(self, step: int) -> None:
        """Training begins, or goes on, after `step` steps of the optimizer."""

    def advanced(self, rows: int) -> None:
        """Some more rows went through the model."""

    def stepped(self, step: int, loss: float, learning_rate: float) -> None:
        """The optimizer has taken `step` steps, the last of them at this mean training loss and learning rate."""

    def epoch_ended(self, record: EpochRecord) -> None:
        """An epoch was trained and validated."""

    def looked(self, name: str, weights: npt.NDArray[np.float32], step: int) -> None:
        """Attention weights after so many steps, [heads, queries, keys]."""

    def said(self, message: str) -> None:
        """One sentence for the log."""


class Both(Listener):
    """Two listeners that hear the same."""

    def __init__(self, first: Listener, second: Listener) -> None:
        self._both = (first, second)

    def planned(self, rows: int) -> None:
        """To both."""
        for one in self._both:
            one.planned(rows)

    def started(self, label: str, rows: int | None) -> None:
        """To both."""
        for one in self._both:
            one.started(label, rows)

    def extended(self, rows: int) -> None:
        """To both."""
        for one in self._both:
            one.extended(rows)

    def begun(self, step: int) -> None:
        """To both."""
        for one in self._both:
            one.begun(step)

    def advanced(self, rows: int) -> None:
        """To both."""
        for one in self._both:
            one.advanced(rows)

    def stepped(self, step: int, loss: float, learning_rate: float) -> None:
        """To both."""
        for one in self._both:
            one.stepped(step, loss, learning_rate)

    def epoch_ended(self, record: EpochRecord) -> None:
        """To both."""
        for one in self._both:
            one.epoch_ended(record)

    def looked(self, name: str, weights: npt.NDArray[np.float32], step: int) -> None:
        """To both."""
        for one in self._both:
            one.looked(name, weights, step)

    def said(self, message: str) -> None:
        """To both."""
        for one in self._both:
            one.said(message)


def write_epochs(path: Path, records: Sequence[EpochRecord]) -> None:
    """Write `metrics.jsonl`, whole."""
    write_file(path, "".join(record.model_dump_json() + "\n" for record in records))


def read_epochs(path: Path) -> list[EpochRecord]:
    """The lines of `metrics.jsonl`; none where the file is not there.

    Raises:
        RunError: it is damaged.
    """
    if not path.is_file():
        return []
    # Not `splitlines`: a sentence among the examples may hold U+2028 and others at which that splits.
    with reading(path), path.open(encoding="utf-8") as file:
        return [EpochRecord.model_validate_json(line) for line in file]
