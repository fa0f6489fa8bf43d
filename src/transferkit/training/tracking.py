"""What the loop tells the outside while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from transferkit.evaluation.results import EpochRecord


class Listener(Protocol):
    """Hears of the progress of a run; a method that has nothing to do does nothing."""

    def planned(self, rows: int) -> None:
        """The whole job will put `rows` rows through a model, training and evaluation together."""

    def started(self, label: str, rows: int) -> None:
        """A run begins that will put `rows` of them through."""

    def extended(self, rows: int) -> None:
        """The job and the run that goes on will put `rows` more through than was said."""

    def advanced(self, rows: int) -> None:
        """Some more rows went through the model."""

    def epoch_ended(self, record: EpochRecord) -> None:
        """An epoch was trained and validated."""

    def said(self, message: str) -> None:
        """One sentence for the log."""


class Silent:
    """A listener that does nothing."""

    def planned(self, rows: int) -> None:
        """Nothing."""

    def started(self, label: str, rows: int) -> None:
        """Nothing."""

    def extended(self, rows: int) -> None:
        """Nothing."""

    def advanced(self, rows: int) -> None:
        """Nothing."""

    def epoch_ended(self, record: EpochRecord) -> None:
        """Nothing."""

    def said(self, message: str) -> None:
        """Nothing."""


def append_epoch(path: Path, record: EpochRecord) -> None:
    """Add a line to `metrics.jsonl`."""
    with path.open("a", encoding="utf-8") as file:
        file.write(record.model_dump_json() + "\n")


def read_epochs(path: Path) -> list[EpochRecord]:
    """The lines of `metrics.jsonl`; none where the file is not there."""
    if not path.is_file():
        return []
    return [EpochRecord.model_validate_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
