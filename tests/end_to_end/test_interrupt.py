"""Ctrl-C, pressed on a real process: what was reached is kept, and a comparison goes on from there."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

import transferkit
from tests.end_to_end.test_cli import reviews


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "transferkit", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, process: subprocess.Popen[str], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not path.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    assert path.exists(), process.communicate()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return reviews(tmp_path / "reviews.csv")


def test_a_stopped_run_predicts(tmp_path: Path, data: Path, backbone: Callable[[str], Path]) -> None:
    out = tmp_path / "run"
    process = start("train", "--data", data, "--backbone", backbone("bert"), "--epochs", 100_000, "--out", out)
    wait_for(out / "metrics.jsonl", process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    result = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert result["status"] == "interrupted"
    assert result["best_epoch"] >= 1
    assert result["metrics"] == {}
    assert transferkit.load(out)("a good film").label in {"pos", "neg"}
    assert (out / "report.html").is_file()


def test_a_stopped_comparison_goes_on(tmp_path: Path, data: Path, backbone: Callable[[str], Path]) -> None:
    out = tmp_path / "comparison"
    strategies = "linear-probe,lora(epochs=100000)"
    arguments = ["compare", "--data", data, "--backbone", backbone("bert"), "--out", out, "--strategies"]
    process = start(*arguments, strategies, "--set", "linear-probe.epochs=1")
    wait_for(out / "runs" / "lora-seed0" / "metrics.jsonl", process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    first = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    assert [r["status"] for r in first["results"]] == ["finished", "interrupted"]
    assert (out / "report.html").is_file()

    weights = out / "runs" / "linear-probe-seed0" / "model" / "capsule.safetensors"
    before = weights.stat().st_mtime_ns
    again = start(*arguments, "linear-probe(epochs=1),lora(epochs=1)", "--json")
    answer, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert [r["status"] for r in json.loads(answer)["results"]] == ["finished", "finished"]
    assert weights.stat().st_mtime_ns == before, "the finished run was repeated"


@pytest.fixture
def side_by_side(
    tmp_path: Path, data: Path, backbone: Callable[[str], Path]
) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """A comparison in `tmp_path` with two runs that go on for long, and the processes that make them."""
    process = start(
        "compare", "--data", data, "--backbone", backbone("bert"), "--out", tmp_path / "comparison", "--jobs", 2,
        "--strategies", "lora(epochs=100000),full(epochs=100000)",
    )  # fmt: skip
    for run in ("lora-seed0", "full-seed0"):
        wait_for(tmp_path / "comparison" / "runs" / run / "metrics.jsonl", process)
    workers = psutil.Process(process.pid).children()
    assert len(workers) == 2
    return process, workers


def test_a_stopped_comparison_leaves_no_process_behind(
    tmp_path: Path, side_by_side: tuple[subprocess.Popen[str], list[psutil.Process]]
) -> None:
    process, workers = side_by_side
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert not any(worker.is_running() for worker in workers)
    comparison = json.loads((tmp_path / "comparison" / "comparison.json").read_text(encoding="utf-8"))
    assert comparison["results"] == []


def test_processes_end_where_that_is_killed_which_has_started_them(
    side_by_side: tuple[subprocess.Popen[str], list[psutil.Process]],
) -> None:
    process, workers = side_by_side
    process.kill()
    process.communicate(timeout=60)
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert alive == []
