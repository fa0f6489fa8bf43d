"""Runs of a comparison side by side, each in a process of its own with its share of the processor.

Threads that share a run wait for each other at every small operation, and what Python does between them runs on one
alone: runs side by side take two thirds of the time that they take one after the other. In exchange there are as many
models in memory.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from transferkit import run_folder
from transferkit.comparison.cell import Cell, Outcome, failed
from transferkit.config import CompareConfig, Section
from transferkit.evaluation.results import EpochRecord
from transferkit.job import Job
from transferkit.training.tracking import Listener

# What moves a bar is shown at once; the rest of what a run says when it is over, so that no two runs mix.
_AT_ONCE = ("advanced", "extended")


def order(config: CompareConfig, job: Job, out: Path) -> dict[str, Any]:
    """What a worker is to know of all runs: it reads the data itself, and computes as was measured here."""
    compute = job.compute
    chosen: dict[str, Any] = {"precision": compute.precision, "threads": compute.threads}
    if compute.attention is not None:
        chosen["attention"] = compute.attention
    training = config.training.model_copy(update=chosen)
    return {
        "config": _settings(config.model_copy(update={"training": training})),
        "revision": job.files.revision,
        "hashes": job.facts.hashes,
        "out": str(out),
        "threads": compute.threads,
    }


def side_by_side(
    order: Mapping[str, Any], cells: Sequence[Cell], firsts: Collection[Cell], jobs: int, listener: Listener
) -> Iterator[Outcome]:
    """Run `cells`, up to `jobs` of them at once, and give each as soon as it is done.

    A process that ends by itself, as the system ends one where there is no memory left, is a failure of its run alone.
    Ctrl-C ends all of them.

    Args:
        order: from `order`.
        cells: in the order in which they begin.
        firsts: those of `cells` whose log says where the weights come from.
        jobs: processes.
        listener: hears of each run when it is over, and of its rows at once.
    """
    heard: SimpleQueue[tuple[_Worker, list[Any] | None]] = SimpleQueue()
    waiting, workers = deque(cells), list[_Worker]()

    def begin(worker: _Worker) -> None:
        cell = waiting.popleft()
        worker.begin(cell, with_table=cell in firsts)

    try:
        for _ in range(min(jobs, len(cells))):
            workers.append(_Worker(order, heard))
            begin(workers[-1])
        while any(worker.cell for worker in workers):
            worker, event = heard.get()
            if event is not None and event[0] != "ended":
                worker.hear(event, listener)
                continue
            outcome = worker.outcome(Path(order["out"]), event, listener)
            if event is None:
                workers.remove(worker)
                worker.stop()
                if waiting:
                    worker = _Worker(order, heard)
                    workers.append(worker)
            if waiting:
                begin(worker)
            yield outcome
    finally:
        for worker in workers:
            worker.stop()


class _Worker:
    """A process that makes runs, as `worker.py` does there."""

    def __init__(self, order: Mapping[str, Any], heard: SimpleQueue[tuple[_Worker, list[Any] | None]]) -> None:
        # It imports what this process does, and nothing that lies in the folder it is called in. In a group of its
        # own it does not hear of Ctrl-C, which this process passes on.
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "PYTHONSAFEPATH": "1",
            "OMP_NUM_THREADS": str(order["threads"]),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "transferkit.comparison.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            encoding="utf-8", env=environment, process_group=0 if os.name == "posix" else None,
        )  # fmt: skip
        self.cell: Cell | None = None
        self._log: list[list[Any]] = []
        self._listening = threading.Thread(target=self._listen, args=(heard,), daemon=True)
        self._listening.start()
        self._send(order)

    def begin(self, cell: Cell, with_table: bool) -> None:
        """Ask for a run."""
        self.cell, self._log = cell, []
        self._send(
            {"label": cell.label, "config": _settings(cell.config), "folder": cell.folder, "with_table": with_table}
        )

    def hear(self, event: list[Any], listener: Listener) -> None:
        """Pass on at once what moves a bar, and keep the rest."""
        if event[0] in _AT_ONCE:
            getattr(listener, event[0])(*event[1:])
        else:
            self._log.append(event)

    def outcome(self, out: Path, event: list[Any] | None, listener: Listener) -> Outcome:
        """What came of the run that was asked for, after its log is passed on; without an event the process has ended.

        No cell is left to do afterwards.
        """
        assert self.cell is not None, "a process that has nothing to do says nothing"
        for name, *values in self._log:
            if name == "epoch_ended":
                values = [EpochRecord.model_validate(record) for record in values]
            getattr(listener, name)(*values)
        cell, self.cell = self.cell, None
        if event is not None:
            return Outcome(cell, cell.placed(run_folder.read_result(out / cell.folder)), used_cache=event[1])
        reason = f"its process ended by itself ({_how(self._process.wait())})"
        return Outcome(cell, failed(out, cell, reason, listener), used_cache=False)

    def stop(self) -> None:
        """End the process, also in the middle of a run."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        if self.cell is not None:
            self._process.terminate()
        self._process.wait()
        self._listening.join()
        self._process.stdout.close()

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        # Of a process that has ended `_listen` hears.
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def _listen(self, heard: SimpleQueue[tuple[_Worker, list[Any] | None]]) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            # The last line of a process that was ended may be half of one.
            if line.endswith("\n"):
                heard.put((self, json.loads(line)))
        heard.put((self, None))


def _settings(config: Section) -> dict[str, Any]:
    """What is set in `config`, as JSON: what is left open stays so."""
    return config.model_dump(mode="json", exclude_unset=True)


def _how(code: int) -> str:
    """How a process ended, by its exit code."""
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
