"""Runs that are made up, and what is made of them."""

import numpy as np

from tests.report import samples
from transferkit.comparison.evidence import compare_pairs, summarise
from transferkit.comparison.verdict import decide
from transferkit.evaluation.metrics import score
from transferkit.evaluation.results import RunResult

COSTS = {  # trainable parameters, seconds, bytes
    "full": (22_700_000, 140.0, 90_800_000),
    "lora": (221_570, 90.0, 1_100_000),
    "linear-probe": (770, 20.0, 4_000),
    "scratch": (22_700_000, 130.0, 90_800_000),
}
LABELS = np.arange(1000) % 2
BASELINE = {"accuracy": 0.5}
CIRCUMSTANCES = {
    "task": "classification",
    "created": "2026-01-31T10:00:00+00:00",
    "config": {},
    "environment": {},
    "data": samples.data_facts(),
}


def answers(accuracy, shift=0, labels=LABELS):
    """Predictions right on the first `accuracy` share of the rows, after a shift of the rows."""
    right = np.roll(np.arange(len(labels)) < round(accuracy * len(labels)), shift)
    return np.where(right, labels, 1 - labels)


def finished(strategy, seed, predicted, labels=LABELS):
    scores = score(labels, np.eye(2)[predicted], ("neg", "pos"))
    parameters, seconds, stored = COSTS[strategy]
    return RunResult(
        strategy=strategy,
        seed=seed,
        run=f"runs/{strategy}-seed{seed}",
        status="finished",
        trainable_parameters=parameters,
        train_seconds=seconds + seed,
        stored_bytes=stored,
        metrics=scores.metrics,
        intervals=scores.intervals,
        collapsed=scores.collapsed,
        scores=scores,
    )


def read(verdict):
    """The reason as it reads, its non-breaking spaces as spaces."""
    return verdict.reason.replace("\u00a0", " ")


def compared(predictions, labels=LABELS, extra=(), margin=0.01):
    runs = [
        finished(strategy, seed, predicted, labels)
        for strategy, by_seed in predictions.items()
        for seed, predicted in by_seed.items()
    ]
    summaries = summarise([*runs, *extra], predictions, labels)
    pairs = compare_pairs(summaries, predictions, labels)
    return summaries, pairs, decide(summaries, pairs, BASELINE, margin)
