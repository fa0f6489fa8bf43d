"""A process that makes runs of a comparison one after the other, as `workers.py` orders them.

Both sides speak in lines of JSON: an order for all runs, then a cell for each, and back what a listener hears.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, TextIO

from transferkit.comparison.cell import Cell, run
from transferkit.config import CompareConfig, RunConfig
from transferkit.errors import RunError, TransferKitError
from transferkit.evaluation.results import EpochRecord
from transferkit.job import prepare_job
from transferkit.training.tracking import Listener


class Teller(Listener):
    """Writes down what it hears, for the process that has given the order."""

    def __init__(self, answers: TextIO) -> None:
        self._answers = answers

    def tell(self, event: str, *values: Any) -> None:
        """Something has happened, by the name of the method of a listener that hears of it."""
        try:
            print(json.dumps([event, *values]), file=self._answers, flush=True)
        except BrokenPipeError:
            # Who has asked is gone. What is written last when Python ends has to go somewhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._answers.fileno())
            sys.exit(1)

    def started(self, label: str, rows: int | None) -> None:  # noqa: ARG002 (it is one of several at once)
        """A run begins beside others."""
        self.tell("started", label, None)

    def begun(self, step: int) -> None:
        """As it is."""
        self.tell("begun", step)

    def stepped(self, step: int, loss: float, learning_rate: float) -> None:
        """As it is."""
        self.tell("stepped", step, loss, learning_rate)

    def extended(self, rows: int) -> None:
        """Told at once."""
        self.tell("extended", rows)

    def advanced(self, rows: int) -> None:
        """Told at once."""
        self.tell("advanced", rows)

    def epoch_ended(self, record: EpochRecord) -> None:
        """The whole record."""
        self.tell("epoch_ended", record.model_dump(mode="json"))

    def said(self, message: str) -> None:
        """Word by word."""
        self.tell("said", message)


def main() -> None:
    """Make the runs that standard input asks for, and tell of them on standard output."""
    # An end that is asked for leaves nothing behind: what is to be done at the end is done.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    teller = Teller(_answers())
    try:
        _serve(teller)
    except TransferKitError as error:
        teller.tell("stopped", str(error))
        sys.exit(1)


def _serve(teller: Teller) -> None:
    order = json.loads(sys.stdin.readline())
    config = CompareConfig.model_validate(order["config"])
    job = prepare_job(config, Listener(), is_shared=True, revision=order["revision"])
    if job.facts.hashes != order["hashes"]:
        raise RunError(f"{config.data.source} has changed since the comparison began.")
    job.cache.listener = teller
    job.cache.processes = order["jobs"]
    for line in sys.stdin:
        cell = json.loads(line)
        run(
            Path(order["out"]), Cell(cell["label"], RunConfig.model_validate(cell["config"]), cell["folder"]),
            job, teller, cell["with_table"],
        )  # fmt: skip
        teller.tell("ended", job.cache.is_used)


def _answers() -> TextIO:
    """Standard output for the answers alone: what a library prints goes to standard error."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


if __name__ == "__main__":
    main()
