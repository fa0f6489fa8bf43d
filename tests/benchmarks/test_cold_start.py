"""Starts from the shell: of a whole model and of a capsule, each said to be what it is."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import transferkit
from benchmarks import cold_start, data, harness, results_table, served

OURS, PEER = harness.OURS, harness.PEER


def test_a_process_is_timed_with_what_it_printed() -> None:
    attempt, printed = cold_start.process([sys.executable, "-c", "import time; time.sleep(0.2); print('done')"])
    assert printed == "done\n"
    assert attempt.seconds >= 0.2
    assert attempt.peak_memory_bytes > 10**6


def test_a_process_that_fails_is_no_measurement() -> None:
    with pytest.raises(SystemExit, match="ended with exit code 3"):
        cold_start.process([sys.executable, "-c", "raise SystemExit(3)"])


@pytest.mark.parametrize(("strategy", "variant"), [("full", "predict"), ("lora", "predict-lora")])
def test_a_run_of_each_kind_is_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, strategy: str, variant: str
) -> None:
    asked: list[str] = []

    @contextmanager
    def trained(_splits: data.Splits, epochs: int = 1, strategy: str = "") -> Iterator[served.Served]:
        asked.append(strategy)
        yield served.Served(tmp_path / "run", tmp_path / "exported")

    def process(command: list[str]) -> tuple[harness.Attempt, str]:
        seconds = 1.0 if "transferkit" in command else 2.0
        return harness.Attempt(seconds, seconds, 10**6), "pos\t0.9\n"

    monkeypatch.setattr(cold_start, "trained", trained)
    monkeypatch.setattr(cold_start, "process", process)
    cold_start.main(["--strategy", strategy, "--pairs", "2", "--out", str(tmp_path)])
    result = json.loads((tmp_path / f"cold_start-{variant}.json").read_text(encoding="utf-8"))
    assert asked == [result["work"]["strategy"]] == [strategy]
    assert (result["ratio_median"], result["same_answer"]) == (2.0, True)
    assert (variant == "predict") == ("small_starts" in result)
    assert cold_start.LOADED[strategy] in result["differences"]
    assert results_table.row(result, 1)[:3] == [f"cold_start {variant}", "one text", "pipeline"]


def test_what_is_served_is_trained_by_the_strategy_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    configs: list[Any] = []
    stub = SimpleNamespace(RunConfig=transferkit.RunConfig, train=lambda config, _: configs.append(config))
    monkeypatch.setattr(served, "transferkit", stub)
    monkeypatch.setattr(served, "export", lambda *_: None)
    rows = data.Rows([("a film",), ("a plot",)], ["a", "b"])
    with served.trained(data.Splits("some", rows, rows, rows), strategy="lora"):
        assert [config.strategy.name for config in configs] == ["lora"]
