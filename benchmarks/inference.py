"""Predicting a list of texts: a loaded run beside transformers' pipeline on the same weights."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import transferkit
from benchmarks import data, harness
from benchmarks.harness import OURS, PEER, PEER_BF16, SUFFIXES, Answers, Attempt, Benchmark
from benchmarks.recipe import BACKBONE, MAX_LENGTH
from benchmarks.served import (
    DIFFERENCES,
    IN_BF16,
    PEAKS_ALONE,
    Served,
    as_pipeline_input,
    by_label,
    call,
    export,
    ours_alone,
    peer_alone,
    trained,
)
from transferkit.environment import quiet_libraries

TARGETS = {"pairs": 3.5, "reviews": 3.0, "pairs-int8": 5.0}
# What 8 bits cost shows on a model that has learnt something.
INT8_EPOCHS = 3
BATCH_SIZES = (1, 8, 32)
# Rows that the best batch size of a pipeline is found on.
TRIAL_ROWS = 128

Probabilities = npt.NDArray[np.float64]


class Sides:
    """All models, loaded, on the same rows; keeps the probabilities of the last call of each."""

    def __init__(self, predictor: Any, pipes: Mapping[str, Any], texts: list[tuple[str, ...]]) -> None:
        """`pipes` by the names of their columns."""
        self._predictor, self._pipes = predictor, pipes
        self.rows: list[Any] = [row[0] if len(row) == 1 else row for row in texts]
        self.inputs = [as_pipeline_input(row) for row in texts]
        self.names = list(predictor.labels)
        self.batch_seconds = {name: self._trials(pipe) for name, pipe in pipes.items()}
        self.batch_sizes = {name: min(trials, key=trials.__getitem__) for name, trials in self.batch_seconds.items()}
        self._predictor(self.rows[:TRIAL_ROWS])
        self.probabilities: dict[str, Probabilities] = {}

    def ours(self, _pair: int) -> Attempt:
        """The loaded run, called with the list."""

        def work() -> tuple[float | None, Answers | None]:
            start = time.perf_counter()
            answers = self._predictor(self.rows)
            seconds = time.perf_counter() - start
            return seconds, self._kept(OURS, [answer.probabilities for answer in answers])

        return harness.measured(work)

    def peer(self, name: str, _pair: int) -> Attempt:
        """A pipeline, called with the list and its best batch size."""

        def work() -> tuple[float | None, Answers | None]:
            start = time.perf_counter()
            answers = call(self._pipes[name], self.inputs, self.batch_sizes[name])
            seconds = time.perf_counter() - start
            return seconds, self._kept(name, [by_label(scores) for scores in answers])

        return harness.measured(work)

    def by_name(self) -> dict[str, Callable[[int], Attempt]]:
        """What takes turns."""
        return {OURS: self.ours, **{name: partial(self.peer, name) for name in self._pipes}}

    def alone(self, served: Served, run: Path) -> dict[str, Callable[[int], Attempt]]:
        """Each side with what it loads, for a process of its own."""
        calls = {name: partial(call, rows=self.inputs, batch_size=size) for name, size in self.batch_sizes.items()}
        peers = {name: partial(peer_alone, served, name == PEER_BF16, answer) for name, answer in calls.items()}
        return {OURS: partial(ours_alone, run, self.rows), **peers}

    def _trials(self, pipe: Any) -> dict[int, float]:
        """Seconds by batch size, of two times the better."""
        # Once before: kernels are chosen.
        call(pipe, self.inputs[:8], 8)
        return {size: min(self._trial(pipe, size) for _ in range(2)) for size in BATCH_SIZES}

    def _trial(self, pipe: Any, batch_size: int) -> float:
        start = time.perf_counter()
        call(pipe, self.inputs[:TRIAL_ROWS], batch_size)
        return time.perf_counter() - start

    def _kept(self, side: str, answers: Sequence[Mapping[str, float]]) -> Answers:
        table = np.array([[answer[name] for name in self.names] for answer in answers])
        self.probabilities[side] = table
        chosen: Answers = table.argmax(axis=1)[np.newaxis]
        return chosen


def main(arguments: list[str] | None = None) -> None:
    """Measure one kind of data."""
    options = parse(arguments)
    quiet_libraries()
    read = data.mrpc if options.data == "pairs" else data.imdb
    splits = read(3000 if options.int8 else 256, test=options.rows)
    variant = f"{options.data}{'-int8' if options.int8 else ''}{options.unusual}"
    with trained(splits, INT8_EPOCHS if options.int8 else 1) as served:
        run = served.run
        if options.int8:
            run = served.run.with_name("int8")
            export(served.run, "openvino-int8", run)
        harness.write(measure(variant, splits, served, run, options.peers, options.pairs), options.out)


def measure(
    variant: str, splits: data.Splits, served: Served, run: Path, peers: Sequence[str], pairs: int
) -> dict[str, Any]:
    """The contents of the JSON file; `run` is what answers on TransferKit's side."""
    pipes = {name: served.pipeline(bf16=name == PEER_BF16) for name in peers}
    sides = Sides(transferkit.load(run), pipes, splits.test.texts)
    attempts = harness.alternate(pairs, sides.by_name())
    work = {
        "data": splits.name,
        "backbone": BACKBONE,
        "rows": len(splits.test),
        "max_length": MAX_LENGTH,
        **{f"{name}_batch": size for name, size in sides.batch_sizes.items()},
        "pairs": pairs,
    }
    differences = [
        *DIFFERENCES,
        "TransferKit answers in 8-bit integers by OpenVINO." if run != served.run else IN_BF16,
        PEAKS_ALONE,
        f"The batch size of each peer is the fastest of 1, 8 and 32 on the first {TRIAL_ROWS} rows; TransferKit's its "
        "own.",
    ]
    targets = {PEER: TARGETS.get(harness.usual(variant))}
    benchmark = Benchmark("inference", variant, work, differences, len(splits.test), targets, splits.truth())
    result = harness.summarise(benchmark, attempts)
    for name, trials in sides.batch_seconds.items():
        gap = np.abs(sides.probabilities[OURS] - sides.probabilities[name]).max()
        result[f"largest_probability_difference{SUFFIXES[name]}"] = float(gap)
        result[f"{name}_trial_seconds_by_batch"] = {str(size): seconds for size, seconds in trials.items()}
    return harness.with_peaks_alone(result, sides.alone(served, run))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options of the script."""
    parser = harness.arguments(__doc__)
    parser.add_argument("--int8", action="store_true", help="our side is the export in 8-bit integers")
    parser.add_argument("--data", choices=["pairs", "reviews"], default="pairs", help="short pairs or long reviews")
    parser.add_argument("--rows", type=harness.positive, default=2000, help="to predict; the pairs have 1,725")
    harness.peers_option(parser)
    return harness.parsed(parser, arguments, "rows")


if __name__ == "__main__":
    harness.run(main)
