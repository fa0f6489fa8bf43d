"""What one training is asked to do, for both sides, and TransferKit's side of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from safetensors.numpy import load_file

import transferkit
from benchmarks.data import Splits
from benchmarks.harness import Answers
from transferkit.adaptation.strategies import make_strategy
from transferkit.config import BackboneConfig, StrategySpec, TrainingConfig
from transferkit.evaluation.results import RunResult

# The strategies in the order of the README's table.
STRATEGIES = ("scratch", "linear-probe", "partial", "bitfit", "bottleneck", "lora", "full")
BACKBONE = "minilm"
MAX_LENGTH = 256
# A published setting, and what PEFT's own examples use.
LORA = {"rank": 8, "alpha": 16.0, "targets": ["query", "value"]}


@dataclass(frozen=True)
class Recipe:
    """One strategy and its numbers; what is not said here is TransferKit's default, on both sides."""

    strategy: str
    epochs: int
    options: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 32
    weight_decay: float = TrainingConfig().weight_decay
    head_dropout: float = BackboneConfig().head_dropout

    @property
    def spec(self) -> StrategySpec:
        """As a configuration names it."""
        return StrategySpec(name=self.strategy, options=self.options)

    @property
    def learning_rate(self) -> float:
        """The strategy's own."""
        return make_strategy(self.spec).learning_rate

    def steps(self, rows: int) -> int:
        """Of the optimizer, in all epochs."""
        return self.epochs * math.ceil(rows / self.batch_size)

    def warmup_steps(self, rows: int) -> int:
        """Steps before the full learning rate."""
        return math.ceil(self.steps(rows) * make_strategy(self.spec).warmup_ratio)

    def shared(self, data: dict[str, Any]) -> dict[str, Any]:
        """The sections of a configuration apart from strategy and seed."""
        return {
            "data": data,
            "tokenization": {"max_length": MAX_LENGTH},
            "backbone": {"name": BACKBONE},
            "training": {"epochs": self.epochs, "batch_size": self.batch_size},
        }


def of_strategy(strategy: str, epochs: int, last_layers: int = 2) -> Recipe:
    """The recipe that the benchmarks use for a strategy by name."""
    options: dict[str, dict[str, Any]] = {"lora": LORA, "partial": {"layers": last_layers}}
    return Recipe(strategy, epochs, options.get(strategy, {}))


def train_ours(recipe: Recipe, splits: Splits, seed: int) -> tuple[RunResult, Answers]:
    """One run by the public call, and its answers on the test rows [1, rows]."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        settings = recipe.shared(splits.write(folder)) | {"strategy": recipe.spec, "seed": seed}
        result = transferkit.train(transferkit.RunConfig.model_validate(settings), folder / "run")
        return result, read_answers(folder / "run", splits)


def read_answers(run: Path, splits: Splits) -> Answers:
    """Predicted classes of a run folder, [1, rows]."""
    predictions = load_file(run / "predictions.safetensors")
    # Paired statistics need the same rows in the same order.
    assert np.array_equal(predictions["labels"], splits.truth()), "the run was tested on other rows"
    answers: Answers = predictions["logits"].argmax(axis=1)[np.newaxis]
    return answers
