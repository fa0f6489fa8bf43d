"""A run is a folder: what is in it, how it is made, and how it is read back."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from transferkit.config import RunConfig
from transferkit.errors import RunError
from transferkit.evaluation.results import Comparison, DataFacts, Record, RunResult, read_json

RUN_FILE = "run.json"
RESULT_FILE = "results.json"
COMPARISON_FILE = "comparison.json"
MISTAKES_FILE = "mistakes.json"
METRICS_FILE = "metrics.jsonl"
LABELS_FILE = "labels.json"
PREDICTIONS_FILE = "predictions.safetensors"
REPORT_FILE = "report.html"
CAPSULE_FILE = "capsule.safetensors"
HEAD_FILE = "head.safetensors"


class BackboneRecord(Record):
    """Which base a run adapted; a capsule fits no other."""

    name: str
    folder: str
    revision: str | None
    fingerprint: str
    # Of the one file of its weights; None where they are in several.
    weights_sha256: str | None = None
    pooling: Literal["mean", "first", "model"]


class TokenizerRecord(Record):
    """How a run tokenizes."""

    hash: str
    max_length: int
    truncation_side: Literal["left", "right"]
    pad_token_id: int | None = None
    uses_token_types: bool = False


class ComputeRecord(Record):
    """How a run computed."""

    precision: Literal["fp32", "bf16"]
    attention: Literal["fused", "plain"]
    threads: int


class RunRecord(Record):
    """`run.json`: everything about a run but its scores."""

    schema_: Literal["transferkit/run/1"] = Field(default="transferkit/run/1", alias="schema")
    created: str
    label: str
    config: RunConfig
    task: str
    labels: tuple[str, ...]
    is_pair: bool
    keeps_whole_model: bool
    backbone: BackboneRecord
    tokenizer: TokenizerRecord
    compute: ComputeRecord
    trainable_names: tuple[str, ...]
    total_bytes: int
    data: DataFacts
    environment: dict[str, Any]

    model_config = Record.model_config | {"populate_by_name": True}


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def check_free(path: Path, overwrite: bool) -> None:
    """Whether a run may be written to `path`; what another left there may go only with `overwrite`.

    Raises:
        RunError: something is there already.
    """
    if path.is_file():
        raise RunError(f"{path} is a file; name a folder with --out.")
    if not path.is_dir() or not any(path.iterdir()):
        return
    if not overwrite:
        raise RunError(f"{path} exists and is not empty; choose another --out, or replace it with --overwrite.")
    if not is_ours(path):
        raise RunError(f"{path} holds other things than a run, so --overwrite leaves it alone; choose another --out.")


def make_folder(path: Path, overwrite: bool) -> None:
    """Make an empty folder at `path`, after `check_free`."""
    check_free(path, overwrite)
    if path.is_dir():
        shutil.rmtree(path)
    path.mkdir(parents=True)


def is_ours(path: Path) -> bool:
    """Whether `path` is a folder that a run or a comparison made."""
    return any((path / name).exists() for name in (RUN_FILE, RESULT_FILE, COMPARISON_FILE, "runs"))


def resolve(path: str | Path) -> Path:
    """The run folder at `path`: itself, or the run that a comparison in it recommends.

    Of several seeds the first is taken: choosing one by its test score would make that score a promise.

    Raises:
        RunError: there is no run, or the comparison recommends none.
    """
    path = Path(path)
    if (path / RUN_FILE).is_file():
        return path
    if (path / COMPARISON_FILE).is_file():
        comparison = read_json(path / COMPARISON_FILE, Comparison)
        finished = [r for r in comparison.results if r.strategy == comparison.verdict.use and r.status == "finished"]
        if not finished:
            raise RunError(f"The comparison in {path} recommends no strategy; name one of the folders in {path}/runs.")
        return path / finished[0].run
    raise RunError(f"There is no run in {path}: name a folder that `transferkit train` or `compare` has written.")


def read_record(folder: Path) -> RunRecord:
    """`run.json` of a run folder."""
    return read_json(folder / RUN_FILE, RunRecord)


def read_result(folder: Path) -> RunResult:
    """`results.json` of a run folder."""
    return read_json(folder / RESULT_FILE, RunResult)


def stored_bytes(folder: Path) -> int:
    """The size of what must be kept to predict."""
    return sum(file.stat().st_size for file in (folder / "model").rglob("*") if file.is_file())


def write_predictions(folder: Path, labels: np.ndarray, logits: np.ndarray) -> None:
    """Keep true labels [rows] and logits [rows, classes] of the test rows, in their own order."""
    from safetensors.numpy import save_file

    save_file({"labels": labels.astype(np.int64), "logits": logits}, folder / PREDICTIONS_FILE)


def read_predictions(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """True labels [rows] and logits [rows, classes] of the test rows."""
    from safetensors.numpy import load_file

    tensors = load_file(folder / PREDICTIONS_FILE)
    return tensors["labels"], tensors["logits"]
