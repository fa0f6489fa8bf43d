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
from benchmarks.served import DIFFERENCES, IN_BF16, Served, as_pipeline_input, by_label, call, export, trained
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
        self._ours: list[Any] = [row[0] if len(row) == 1 else row for row in texts]
        self._theirs = [as_pipeline_input(row) for row in texts]
        self.names = list(predictor.labels)
        self.batch_seconds = {name: self._trials(pipe) for name, pipe in pipes.items()}
        self.batch_sizes = {name: min(trials, key=trials.__getitem__) for name, trials in self.batch_seconds.items()}
        self._predictor(self._ours[:TRIAL_ROWS])
        self.probabilities: dict[str, Probabilities] = {}

    def ours(self, _pair: int) -> Attempt:
        """The loaded run, called with the list."""

        def work() -> tuple[float | None, Answers | None]:
            start = time.perf_counter()
            answers = self._predictor(self._ours)
            seconds = time.perf_counter() - start
            return seconds, self._kept(OURS, [answer.probabilities for answer in answers])

        return harness.measured(work)

    def peer(self, name: str, _pair: int) -> Attempt:
        """A pipeline, called with the list and its best batch size."""

        def work() -> tuple[float | None, Answers | None]:
            start = time.perf_counter()
            answers = call(self._pipes[name], self._theirs, self.batch_sizes[name])
            seconds = time.perf_counter() - start
            return seconds, self._kept(name, [by_label(scores) for scores in answers])

        return harness.measured(work)

    def by_name(self) -> dict[str, Callable[[int], Attempt]]:
        """What takes turns."""
        return {OURS: self.ours, **{name: partial(self.peer, name) for name in self._pipes}}

    def _trials(self, pipe: Any) -> dict[int, float]:
        """Seconds by batch size, of two times the better."""
        # Once before: kernels are chosen.
        call(pipe, self._theirs[:8], 8)
        return {size: min(self._trial(pipe, size) for _ in range(2)) for size in BATCH_SIZES}

    def _trial(self, pipe: Any, batch_size: int) -> float:
        start = time.perf_counter()
        call(pipe, self._theirs[:TRIAL_ROWS], batch_size)
        return time.perf_counter() - start

    def _kept(self, side: str, answers: Sequence[Mapping[str, float]]) -> Answers:
        table = np.array([[answer[name] for name in self.names] for answer in answers])
        self.probabilities[side] = table
        chosen: Answers = table.argmax(axis=1)[np.newaxis]
        return chosen


def ours_alone(run: Path, texts: list[tuple[str, ...]], _pair: int) -> Attempt:
    """Load the run and call it."""
    rows: list[Any] = [row[0] if len(row) == 1 else row for row in texts]

    def work() -> tuple[float | None, Answers | None]:
        transferkit.load(run)(rows)
        return None, None

    return harness.measured(work)


def peer_alone(served: Served, bf16: bool, texts: list[tuple[str, ...]], batch_size: int, _pair: int) -> Attempt:
    """Load the pipeline and call it."""
    quiet_libraries()

    def work() -> tuple[float | None, Answers | None]:
        call(served.pipeline(bf16), [as_pipeline_input(row) for row in texts], batch_size)
        return None, None

    return harness.measured(work)


def main(arguments: list[str] | None = None) -> None:
    """Measure one kind of data."""
    options = parse(arguments)
    quiet_libraries()
    read = data.mrpc if options.data == "pairs" else data.imdb
    splits = read(3000 if options.int8 else 256, test=options.rows)
    texts = splits.test.texts
    variant = f"{options.data}-int8" if options.int8 else options.data
    with trained(splits, INT8_EPOCHS if options.int8 else 1) as served:
        run = served.run
        if options.int8:
            run = served.run.with_name("int8")
            export(served.run, "openvino-int8", run)
        pipes = {name: served.pipeline(bf16=name == PEER_BF16) for name in options.peers}
        sides = Sides(transferkit.load(run), pipes, texts)
        attempts = harness.alternate(options.pairs, sides.by_name())
        alone = {OURS: harness.peak_alone(partial(ours_alone, run, texts))}
        for name, size in sides.batch_sizes.items():
            alone[name] = harness.peak_alone(partial(peer_alone, served, name == PEER_BF16, texts, size))
    work = {
        "data": splits.name,
        "backbone": "minilm",
        "rows": len(splits.test),
        "max_length": 256,
        **{f"{name}_batch": size for name, size in sides.batch_sizes.items()},
        "pairs": options.pairs,
    }
    differences = [
        *DIFFERENCES,
        "TransferKit answers in 8-bit integers by OpenVINO." if options.int8 else IN_BF16,
        "Peaks of memory are of each side in a process of its own, from loading to the last answer.",
        f"The batch size of each peer is the fastest of 1, 8 and 32 on the first {TRIAL_ROWS} rows; TransferKit's its "
        "own.",
    ]
    benchmark = Benchmark(
        "inference", variant, work, differences, len(splits.test), {PEER: TARGETS.get(variant)}, splits.truth()
    )
    result = harness.summarise(benchmark, attempts)
    for side, peak in alone.items():
        result[side]["peak_memory_bytes"] = peak
    for name, trials in sides.batch_seconds.items():
        gap = np.abs(sides.probabilities[OURS] - sides.probabilities[name]).max()
        result[f"largest_probability_difference{SUFFIXES[name]}"] = float(gap)
        result[f"{name}_trial_seconds_by_batch"] = {str(size): seconds for size, seconds in trials.items()}
    harness.write(result, options.out)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options of the script."""
    parser = harness.arguments(__doc__)
    parser.add_argument("--int8", action="store_true", help="our side is the export in 8-bit integers")
    parser.add_argument("--data", choices=["pairs", "reviews"], default="pairs", help="short pairs or long reviews")
    parser.add_argument("--rows", type=int, default=2000, help="to predict; the pairs have 1,725")
    harness.peers_option(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
