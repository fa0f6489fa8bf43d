"""A loaded run is what training left, wherever it is asked from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

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
