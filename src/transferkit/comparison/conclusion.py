"""From the predictions of finished runs to what is said of them: summaries, pairs, verdict, mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import RootModel

from transferkit import run_folder
from transferkit.comparison.evidence import compare_pairs, failing, summarise
from transferkit.comparison.verdict import decide
from transferkit.evaluation.metrics import log_probabilities
from transferkit.evaluation.mistakes import side_by_side
from transferkit.evaluation.results import Comparison, Mistake, RunResult, read_json, write_json
from transferkit.job import Job

# Logits [rows, classes] of each finished run on the same test rows, by strategy and seed.
Logits = Mapping[str, Mapping[int, np.ndarray]]

# The surest mistakes shown of each strategy.
MISTAKES_PER_STRATEGY = 25


class _Mistakes(RootModel[list[Mistake]]):
    """`mistakes.json`."""


def conclude(
    results: Sequence[RunResult], logits: Logits, labels: np.ndarray, margin: float, **circumstances: Any
) -> Comparison:
    """Compare the finished runs.

    Args:
        results: all runs, finished or not.
        logits: of the finished ones.
        labels: true classes [rows].
        margin: the accuracy that may be given up for a cheaper strategy.
        circumstances: the fields of `Comparison` that are not found but known: task, data and so on.
    """
    predictions = {name: {seed: one.argmax(1) for seed, one in seeds.items()} for name, seeds in logits.items()}
    summaries = summarise(results, predictions, labels)
    pairs = compare_pairs(summaries, predictions, labels)
    counted = {seed for summary in summaries for seed in summary.seeds}
    uncounted = sorted({result.seed for result in results if result.status == "finished"} - counted)
    baseline = next((dict(result.scores.baseline) for result in results if result.scores), {})
    if baseline:
        # With more than two classes F1 is macro F1.
        baseline.setdefault("f1", baseline["f1_macro"])
    return Comparison(
        baseline=baseline,
        results=tuple(results),
        summaries=summaries,
        pairs=pairs,
        verdict=decide(summaries, pairs, baseline, margin, uncounted, failing(results, summaries)),
        **circumstances,
    )


def read_logits(out: Path, results: Sequence[RunResult]) -> tuple[np.ndarray, Logits]:
    """True classes [rows], none where no run finished, and the logits of the finished runs in `out`.

    Raises:
        RunError: those of a run are missing or damaged.
    """
    labels, logits = np.empty(0, dtype=np.int64), dict[str, dict[int, np.ndarray]]()
    for result in results:
        if result.status == "finished":
            labels, of_run = run_folder.read_predictions(out / result.run)
            logits.setdefault(result.strategy, {})[result.seed] = of_run
    return labels, logits


def write_mistakes(out: Path, job: Job, labels: np.ndarray, logits: Logits) -> None:
    """Write the surest mistakes of each strategy, of its first seed, side by side to `mistakes.json`."""
    probabilities = {name: np.exp(log_probabilities(next(iter(seeds.values())))) for name, seeds in logits.items()}
    rows = job.data.splits["test"]

    def texts(row: int) -> tuple[str, ...]:
        return tuple(value for name, value in rows[row].items() if name != "label")

    found = side_by_side(labels, probabilities, job.data.labels, texts, MISTAKES_PER_STRATEGY)
    write_json(out / run_folder.MISTAKES_FILE, [mistake.model_dump(mode="json") for mistake in found])


def read_comparison(folder: Path) -> tuple[Comparison, list[Mistake]]:
    """What `folder` says: of a comparison, or of a single run as a comparison of one.

    Raises:
        RunError: a file of it is missing or damaged.
    """
    path = folder / run_folder.MISTAKES_FILE
    mistakes = read_json(path, _Mistakes).root if path.is_file() else []
    if (folder / run_folder.COMPARISON_FILE).is_file():
        comparison = read_json(folder / run_folder.COMPARISON_FILE, Comparison)
    else:
        comparison = _comparison_of_one(folder)
    return comparison, mistakes


def _comparison_of_one(folder: Path) -> Comparison:
    record, result = run_folder.read_record(folder), run_folder.read_result(folder)
    labels, logits = read_logits(folder, [result])
    return conclude(
        [result], logits, labels, margin=0.0,
        task=record.task, created=record.created, config=record.config.model_dump(mode="json"),
        environment=record.environment, data=record.data,
    )  # fmt: skip
