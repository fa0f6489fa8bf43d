"""Runs side by side are those of one after the other, and what ends one of them ends no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

import transferkit
from tests.small_data import write_csv
from transferkit.comparison import grid, workers
from transferkit.comparison.cell import Cell
from transferkit.comparison.workers import next_of
from transferkit.errors import ConfigError, RunError
from transferkit.evaluation.results import Comparison, EpochRecord
from transferkit.run_folder import read_predictions, read_record
from transferkit.settings import compare_config
from transferkit.training.precision import threads
from transferkit.training.tracking import Listener, read_epochs

RUNS = ["linear-probe-seed0", "lora-seed0", "linear-probe-seed1", "lora-seed1"]
Settings = dict[str, object]


class Log(Listener):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.said_lines: list[str] = []
        self.planned_rows = self.rows = 0

    def said(self, message: str) -> None:
        if "finished already" in message or "computed in" in message:
            self.said_lines.append(message)

    def planned(self, rows: int) -> None:
        # What was tokenized before has advanced too.
        self.planned_rows, self.rows = rows, 0

    def started(self, label: str, rows: int | None) -> None:
        self.lines.append(label)

    def extended(self, rows: int) -> None:
        self.planned_rows += rows

    def advanced(self, rows: int) -> None:
        self.rows += rows

    def epoch_ended(self, record: EpochRecord) -> None:
        self.lines.append(f"epoch {record.epoch}")


@pytest.fixture
def settings(backbone: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Of a comparison of two strategies and two seeds."""
    monkeypatch.setenv("TRANSFERKIT_CACHE", str(tmp_path / "cache"))
    words = {"good": ("fine", "wonderful", "funny"), "bad": ("dull", "boring", "terrible")}
    rows = [(f"number {i} was {words[label][i % 3]}", label) for i in range(30) for label in words]
    return {
        "data.source": str(write_csv(tmp_path / "data.csv", ("text", "label"), rows)),
        "backbone.name": str(backbone("bert")),
        "training.epochs": 2,
        "training.precision": "fp32",
        "training.attention": "fused",
        "training.threads": 1,
        "strategies": ["linear-probe", "lora"],
        "seeds": [0, 1],
    }


def compare(settings: Settings, out: Path, jobs: int = 2, listener: Listener | None = None) -> Comparison:
    return transferkit.compare(compare_config(None, settings, []), out, jobs=jobs, listener=listener)


def untimed(epochs: list[EpochRecord]) -> list[EpochRecord]:
    return [record.model_copy(update={"seconds": 0.0}) for record in epochs]


def pieces(lines: list[str]) -> list[list[str]]:
    """What each run says: its label, and both epochs. Tokenizing comes before them all."""
    return [lines[start : start + 3] for start in range(1, len(lines), 3)]


def test_they_are_bit_for_bit_those_of_one_after_the_other(settings: Settings, tmp_path: Path) -> None:
    log, usual = Log(), Log()
    apart = compare(settings, tmp_path / "apart", jobs=2, listener=log)
    alone = compare(settings, tmp_path / "alone", jobs=1, listener=usual)
    assert [(result.run, result.status) for result in apart.results] == [(f"runs/{run}", "finished") for run in RUNS]
    for one, other in zip(apart.results, alone.results, strict=True):
        folders = tmp_path / "apart" / one.run, tmp_path / "alone" / other.run
        epochs, expected = (untimed(read_epochs(folder / "metrics.jsonl")) for folder in folders)
        assert epochs == expected
        assert np.array_equal(read_predictions(folders[0])[1], read_predictions(folders[1])[1])
        records = [read_record(folder) for folder in folders]
        assert records[0].config == records[1].config
        assert records[0].compute == records[1].compute
    assert apart.verdict == alone.verdict
    assert (tmp_path / "apart" / "report.html").is_file()
    # Each says what it has to say in one piece, whichever ends first.
    assert sorted(pieces(log.lines)) == sorted(pieces(usual.lines))
    assert log.rows == log.planned_rows > 0


def test_what_is_measured_has_the_threads_of_a_run(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def prepare(*_: object, **__: object) -> None:
        seen.append(torch.get_num_threads())
        raise RunError("That is enough.")

    monkeypatch.setattr(grid, "prepare_job", prepare)
    with threads(4), pytest.raises(RunError, match="enough"):
        compare(settings, tmp_path / "out", jobs=2)
    assert seen == [2]


def test_one_that_fails_stops_no_other(settings: Settings, tmp_path: Path) -> None:
    strategies = ["partial(patterns=nothing.*)", "lora"]
    comparison = compare(settings | {"strategies": strategies, "seeds": [0]}, tmp_path / "out")
    assert [result.status for result in comparison.results] == ["failed", "finished"]
    assert "nothing.*" in str(comparison.results[0].error)


def processes() -> list[psutil.Process]:
    """Those of this process; tests before this one may have left it children of another kind."""
    return [child for child in psutil.Process().children() if "transferkit.comparison.worker" in child.cmdline()]


class Kills(Log):
    """Ends some of the processes when the first rows are through, as the system does where no memory is left."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.left = number

    def advanced(self, rows: int) -> None:
        super().advanced(rows)
        if self.planned_rows and self.left:
            for process in processes()[: self.left]:
                process.kill()
            self.left = 0


@pytest.mark.parametrize("number", [1, 2])
def test_one_whose_process_is_ended_stops_no_other(settings: Settings, tmp_path: Path, number: int) -> None:
    long = settings | {"training.epochs": 20}
    comparison = compare(long, tmp_path / "out", listener=Kills(number))
    failed = [result.error for result in comparison.results if result.status != "finished"]
    assert failed == ["its process ended by itself (SIGKILL)"] * number
    assert len(comparison.results) == 4
    assert [result.status for result in compare(long, tmp_path / "out").results] == ["finished"] * 4


def test_what_a_library_prints_is_no_answer(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    greeting = "import sys; print('Welcome!'); print(42, flush=True); sys.stdout.buffer.write(b'Gr\\xfc\\xdfe\\n')"
    (tmp_path / "site" / "sitecustomize.py").write_text(greeting, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path / "site")
    comparison = compare(settings | {"seeds": [0]}, tmp_path / "out")
    assert [result.status for result in comparison.results] == ["finished"] * 2


def test_of_strategies_that_have_run_the_longest_is_next(settings: Settings) -> None:
    config = compare_config(None, settings | {"strategies": ["linear-probe", "lora", "full"], "seeds": [0]}, [])
    probe, lora, full = (Cell(label, run, label) for label, run in config.runs())
    assert next_of([probe, lora, full], {}) == probe
    assert next_of([probe, lora, full], {"linear-probe": 1.0, "lora": 2.0}) == full
    assert next_of([probe, lora, full], {"linear-probe": 1.0, "lora": 3.0, "full": 2.0}) == lora


def test_runs_that_were_kept_and_computed_in_another_way_are_named(settings: Settings, tmp_path: Path) -> None:
    compare(settings | {"seeds": [0]}, tmp_path / "out")
    file = tmp_path / "out" / "runs" / "lora-seed0" / "run.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    record["compute"]["threads"] = 3
    file.write_text(json.dumps(record), encoding="utf-8")
    log = Log()
    compare(settings, tmp_path / "out", jobs=1, listener=log)
    assert log.said_lines == [
        "2 of 4 runs are finished already and are kept.",
        "Some of them computed in fp32, fused attention, 3 threads; their times do not compare with those to come.",
    ]


class Interrupts(Log):
    """Presses Ctrl-C when a run is over."""

    def epoch_ended(self, record: EpochRecord) -> None:
        raise KeyboardInterrupt


def test_ctrl_c_ends_all_and_the_same_call_goes_on(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        compare(settings, tmp_path / "out", listener=Interrupts())
    assert processes() == []
    assert (tmp_path / "out" / "comparison.json").is_file()
    assert [result.status for result in compare(settings, tmp_path / "out").results] == ["finished"] * 4


@pytest.mark.parametrize("jobs", [0, 5])
def test_there_are_no_more_at_once_than_there_are_runs(settings: Settings, tmp_path: Path, jobs: int) -> None:
    with pytest.raises(ConfigError, match=f"There are 4 runs, of which {jobs} cannot be made at once; change --jobs"):
        compare(settings, tmp_path / "out", jobs=jobs)
    assert not (tmp_path / "out").exists()


def test_data_that_change_meanwhile_are_not_trained_on(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def late(*arguments: object) -> dict[str, object]:
        return workers.order(*arguments) | {"hashes": {}}  # type: ignore[arg-type]

    monkeypatch.setattr(grid, "order", late)
    comparison = compare(settings | {"seeds": [0]}, tmp_path / "out")
    reason = f"{settings['data.source']} has changed since the comparison began."
    assert [result.error for result in comparison.results] == [reason] * 2
    assert "Traceback" not in capfd.readouterr().err
