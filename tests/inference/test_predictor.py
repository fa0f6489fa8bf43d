"""A loaded run is what training left, wherever it is asked from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import transferkit
from tests.small_data import write_csv
from transferkit.errors import AdaptationError
from transferkit.settings import run_config

TEXTS = ["the film was a very good story", "bad", "this movie is not funny"]


@pytest.fixture
def train(backbone: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """Train a strategy on a tiny backbone and return the run."""
    rows = [(f"{TEXTS[number % 3]} {number}", "good" if number % 3 == 0 else "bad") for number in range(30)]
    data = write_csv(tmp_path / "data.csv", ("text", "label"), rows)

    def trained(strategy: str, base: str | None = None) -> Path:
        settings = {
            "data.source": str(data),
            "backbone.name": base or str(backbone("bert")),
            "backbone.head_pooling": "mean",
            "strategies": [strategy],
            "training.epochs": 1,
        }
        transferkit.train(run_config(None, settings, []), tmp_path / "run")
        return tmp_path / "run"

    return trained


@pytest.mark.parametrize("strategy", ["full", "scratch", "partial"])
def test_a_base_that_was_trained_away_does_not_answer(train: Callable[..., Path], strategy: str) -> None:
    model = transferkit.load(train(strategy)).model
    with pytest.raises(AdaptationError, match="The base cannot answer"), transferkit.disabled(model):
        pass


@pytest.mark.parametrize("strategy", ["full", "lora"])
def test_what_is_read_on_first_use_is_read_from_where_the_run_was_loaded(
    train: Callable[..., Path], backbone: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    strategy: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    shutil.copytree(backbone("bert"), "base")
    expected = transferkit.load(train(strategy, base="base"), precision="fp32").logits([("good",)])
    # Run and base have moved, so that the base too is found by a name that holds in one working directory alone.
    (tmp_path / "there").mkdir()
    for name in ("run", "base"):
        Path(name).rename(tmp_path / "there" / name)
    monkeypatch.chdir("there")
    predictor = transferkit.load("run", precision="bf16")
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(predictor.logits([("good",)]), expected)
    assert predictor.tokenizer.max_length == predictor.record.tokenizer.max_length
    assert predictor.model.pooling == "mean"


@pytest.mark.parametrize("name", ["link", "."])
def test_a_base_is_found_by_its_folder_whatever_it_was_called_by(
    train: Callable[..., Path], backbone: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:  # fmt: skip
    link = tmp_path / "link"
    link.symlink_to(backbone("bert"))
    monkeypatch.chdir(link if name == "." else tmp_path)
    run = train("lora", base=name)
    link.unlink()
    monkeypatch.chdir(run)
    assert transferkit.load(run)("good").label in ("good", "bad")
