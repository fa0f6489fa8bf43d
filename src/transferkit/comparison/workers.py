"""Runs of a comparison side by side, each in a process of its own with its share of the processor.

Threads that share a run wait for each other at every small operation, and what Python does between them runs on one
alone: side by side, runs with a thread each get more done. In exchange there are as many models in memory.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeAlias

from transferkit import run_folder
from transferkit.comparison.cell import Cell, Outcome, failed
from transferkit.config import CompareConfig, Section
from transferkit.evaluation.results import EpochRecord
from transferkit.job import Job
from transferkit.training.precision import fixed
from transferkit.training.tracking import Listener

# Events of workers, and None when the process of one has ended.
_Heard: TypeAlias = "SimpleQueue[tuple[_Worker, list[Any] | None]]"
# What moves a bar is shown at once; the rest of what a run says when it is over, so that no two runs mix.
_AT_ONCE = ("advanced", "extended")
# For the end of a process that was told to, in the middle of a product or of Python's own end.
_PATIENCE_SECONDS = 10


def order(config: CompareConfig, job: Job, out: Path, jobs: int) -> dict[str, Any]:
    """What a worker is to know of all runs: it reads the data itself, and computes as was measured here."""
    training = fixed(config.training, asdict(job.compute))
    return {
        "config": _settings(config.model_copy(update={"training": training})),
        "revision": job.files.revision,
        "hashes": job.facts.hashes,
        "out": str(out),
        "threads": job.compute.threads,
        "jobs": jobs,
    }


def side_by_side(
    order: Mapping[str, Any], cells: Sequence[Cell], firsts: Collection[Cell], listener: Listener
) -> Iterator[Outcome]:
    """Run `cells`, as many at once as the order says, and give each as soon as it is done.

    A process that ends by itself, as the system ends one where there is no memory left, is a failure of its run alone;
    the others go on without it. Ctrl-C ends all of them.

    Args:
        order: from `order`.
        cells: in the order in which they begin, but for those of strategies that have run: of these the longest first.
        firsts: those of `cells` whose log says where the weights come from.
        listener: hears of each run when it is over, and of its rows at once.
    """
    heard: _Heard = SimpleQueue()
    waiting, workers, seconds = list(cells), list[_Worker](), dict[str, float]()

    def begin() -> _Worker:
        worker = _Worker(order, heard)
        workers.append(worker)
        return worker

    def go_on(worker: _Worker) -> None:
        cell = next_of(waiting, seconds)
        waiting.remove(cell)
        worker.go_on(cell, with_table=cell in firsts)

    try:
        for _ in range(min(order["jobs"], len(cells))):
            go_on(begin())
        while workers:
            worker, event = heard.get()
            if worker not in workers:
                # It was let go, and this is its end.
                continue
            if event is not None and event[0] != "ended":
                worker.hear(event, listener)
                continue
            outcome = worker.outcome(Path(order["out"]), event, listener)
            if outcome.result.train_seconds is not None:
                seconds[outcome.cell.label] = outcome.result.train_seconds
            if event is not None and waiting:
                go_on(worker)
            else:
                # Its memory is for the others.
                workers.remove(worker)
                worker.end()
                worker.wait()
            if waiting and not workers:
                go_on(begin())
            yield outcome
    finally:
        for worker in workers:
            worker.end()
        for worker in workers:
            worker.wait()


def next_of(cells: Sequence[Cell], seconds: Mapping[str, float]) -> Cell:
    """The first whose strategy has not run yet, else the longest: one that begins last would be alone at the end."""
    return max(cells, key=lambda cell: seconds.get(cell.label, math.inf))


class _Worker:
    """A process that makes runs, as `worker.py` does there."""

    def __init__(self, order: Mapping[str, Any], heard: _Heard) -> None:
        self.cell: Cell | None = None
        self._log: list[list[Any]] = []
        self._reason: str | None = None
        # It imports what this process does, and nothing else that lies in the folder it is called in. In a group of
        # its own it does not hear of Ctrl-C, which this process passes on.
        paths = [path for path in sys.path if isinstance(path, str) and path]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([*paths, str(Path(__file__).parents[2])]),
            "PYTHONSAFEPATH": "1",
            "OMP_NUM_THREADS": str(order["threads"]),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "transferkit.comparison.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            encoding="utf-8", errors="replace", env=environment, process_group=0 if os.name == "posix" else None,
        )  # fmt: skip
        self._listening = threading.Thread(target=self._listen, args=(heard,), daemon=True)
        self._listening.start()
        self._send(order)

    def go_on(self, cell: Cell, with_table: bool) -> None:
        """Ask for a run."""
        self.cell, self._log = cell, []
        self._send(
            {"label": cell.label, "config": _settings(cell.config), "folder": cell.folder, "with_table": with_table}
        )

    def hear(self, event: list[Any], listener: Listener) -> None:
        """Pass on at once what moves a bar, and keep the rest."""
        name, *values = event
        if name in _AT_ONCE:
            getattr(listener, name)(*values)
        elif name == "stopped":
            self._reason = values[0]
        else:
            self._log.append(event)

    def outcome(self, out: Path, event: list[Any] | None, listener: Listener) -> Outcome:
        """What came of the run that was asked for, after its log is passed on; without an event the process has ended.

        No cell is left to do afterwards.
        """
        assert self.cell is not None, "a process that has nothing to do is let go"
        for name, *values in self._log:
            if name == "epoch_ended":
                values = [EpochRecord.model_validate(record) for record in values]
            getattr(listener, name)(*values)
        cell, self.cell = self.cell, None
        if event is not None:
            return Outcome(cell, cell.placed(run_folder.read_result(out / cell.folder)), used_cache=event[1])
        reason = self._reason or f"its process ended by itself ({_how(self._process.wait())})"
        return Outcome(cell, failed(out, cell, reason, listener), used_cache=False)

    def end(self) -> None:
        """Tell the process to end, also in the middle of a run."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        if self.cell is not None:
            self._process.terminate()

    def wait(self) -> None:
        """Wait for its end, which is near."""
        assert self._process.stdout is not None
        try:
            self._process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listening.join()
        self._process.stdout.close()

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        # Of a process that has ended `_listen` hears.
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def _listen(self, heard: _Heard) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            # Not every line is an answer: a library may greet while it is imported, and the last may be cut.
            with suppress(ValueError):
                if isinstance(event := json.loads(line), list):
                    heard.put((self, event))
        heard.put((self, None))


def _settings(config: Section) -> dict[str, Any]:
    """What is set in `config`, as JSON: what is left open stays so."""
    return config.model_dump(mode="json", exclude_unset=True)


def _how(code: int) -> str:
    """How a process ended, by its exit code."""
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
