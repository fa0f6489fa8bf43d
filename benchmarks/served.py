"""One trained model in both forms: a run of TransferKit, and its export behind transformers' pipeline."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

import transferkit
from benchmarks.data import ROOT, Splits
from benchmarks.harness import Attempt, measured_whole, say
from benchmarks.recipe import MAX_LENGTH, of_strategy
from transferkit.environment import quiet_libraries

# Enough to have a model that answers differently from row to row; how good it is does not change its speed.
TRAINING_ROWS = 64
DIFFERENCES = [
    "All sides have the same weights, exported by `transferkit export`; the peer answers in fp32, and peer_bf16 is "
    "loaded in bf16, weights and all.",
    "The peer runs its batches in the order of the list; TransferKit may order rows by length.",
]
IN_BF16 = "TransferKit answers in bf16 where the processor has it."
PEAKS_ALONE = "Peaks of memory are of each side in a process of its own, from loading to the last answer."

# Of every call of a pipeline: all scores, of rows as long as TransferKit takes them.
OPTIONS: dict[str, Any] = {"top_k": None, "truncation": True, "max_length": MAX_LENGTH}
# Of one row: the label and the score of every class.
Scores = list[dict[str, Any]]


@dataclass(frozen=True)
class Served:
    """The run folder and the folder that it was exported to."""

    run: Path
    exported: Path

    def pipeline(self, bf16: bool = False) -> Any:
        """transformers' pipeline on the exported folder."""
        from transformers import pipeline

        dtype = torch.bfloat16 if bf16 else torch.float32
        return pipeline("text-classification", model=str(self.exported), device="cpu", dtype=dtype)


@contextmanager
def trained(splits: Splits, epochs: int = 1, strategy: str = "full") -> Iterator[Served]:
    """Train the family's own classifier and export it, in a temporary folder; for one epoch, on a few rows."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        recipe = of_strategy(strategy, epochs)
        settings = recipe.shared(splits.write(folder))
        settings["backbone"]["head_pooling"] = "model"
        if epochs == 1:
            settings["data"] |= {"train_size": TRAINING_ROWS, "test_size": min(TRAINING_ROWS, len(splits.test))}
        say("training and exporting the model that both sides serve")
        transferkit.train(transferkit.RunConfig.model_validate(settings | {"strategy": recipe.spec}), folder / "run")
        served = Served(folder / "run", folder / "exported")
        export(served.run, "transformers", served.exported)
        yield served


def export(run: Path, form: str, out: Path) -> None:
    """`transferkit export`."""
    command = [sys.executable, "-m", "transferkit", "export", str(run), "--to", form, "--out", str(out)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)


def ours_alone(run: Path, texts: Any, _pair: int) -> Attempt:
    """Load the run and call it on a text or a list."""
    return measured_whole(lambda: transferkit.load(run)(texts))


def peer_alone(served: Served, bf16: bool, answer: Callable[[Any], object], _pair: int) -> Attempt:
    """Load the pipeline and let `answer` call it."""
    quiet_libraries()
    return measured_whole(lambda: answer(served.pipeline(bf16)))


def as_pipeline_input(texts: tuple[str, ...]) -> str | dict[str, str]:
    """One row as the pipeline takes it."""
    return texts[0] if len(texts) == 1 else {"text": texts[0], "text_pair": texts[1]}


def call(pipe: Any, rows: list[str | dict[str, str]], batch_size: int) -> list[Scores]:
    """The scores of each row."""
    answers: list[Scores] = pipe(rows, **OPTIONS, batch_size=batch_size)
    return answers


def call_on_one(pipe: Any, text: str) -> Scores:
    """The scores of one text, given as it is: a list, of one text too, would go through a DataLoader."""
    scores: Scores = pipe(text, **OPTIONS)
    return scores


def by_label(scores: Scores) -> dict[str, float]:
    """Probabilities by label."""
    return {score["label"]: score["score"] for score in scores}
