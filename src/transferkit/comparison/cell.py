"""One run of a comparison: whatever goes wrong in it, the others can still be compared."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from transferkit import run_folder
from transferkit.config import RunConfig
from transferkit.errors import TransferKitError
from transferkit.evaluation.results import RunResult, write_json
from transferkit.job import Job
from transferkit.pipeline import run_one
from transferkit.training.tracking import Listener


@dataclass(frozen=True)
class Cell:
    """One run of the grid and its folder, relative to the comparison's."""

    label: str
    config: RunConfig
    folder: str

    def placed(self, result: RunResult) -> RunResult:
        """The result as an entry of the comparison, with its folder as seen from there."""
        return result.model_copy(update={"run": self.folder, "strategy": self.label})


@dataclass(frozen=True)
class Outcome:
    """What came of a cell, and whether the process that ran it has made use of its prefix cache until then."""

    cell: Cell
    result: RunResult
    used_cache: bool


def run(out: Path, cell: Cell, job: Job, listener: Listener, with_table: bool) -> RunResult:
    """Run one cell of the comparison in `out`; a failure becomes a result with its reason."""
    folder = out / cell.folder
    if folder.is_dir():
        shutil.rmtree(folder)
    folder.mkdir()
    try:
        return cell.placed(run_one(cell.config, job, folder, cell.label, listener, with_table))
    except Exception as error:  # whatever goes wrong in one run, the others can still be compared
        reason = " ".join(str(error).split())
        if not isinstance(error, TransferKitError):
            reason = f"{type(error).__name__}: {reason}"
        return failed(out, cell, reason, listener)


def failed(out: Path, cell: Cell, reason: str, listener: Listener) -> RunResult:
    """Write down that a run came to nothing, and why."""
    result = RunResult(strategy=cell.label, seed=cell.config.seed, run=".", status="failed", error=reason)
    folder = out / cell.folder
    folder.mkdir(exist_ok=True)
    write_json(folder / run_folder.RESULT_FILE, result)
    listener.said(f"{cell.label} (seed {cell.config.seed}) failed: {reason}")
    return cell.placed(result)
