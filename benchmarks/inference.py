"""Predicting a list of texts: a loaded run beside transformers' pipeline on the same weights."""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import transferkit
from benchmarks import data, harness
from benchmarks.harness import OURS, PEER, Answers, Attempt, Benchmark
from benchmarks.served import DIFFERENCES, IN_BF16, Served, as_pipeline_input, call, export, trained
from transferkit.environment import quiet_libraries

TARGETS = {"pairs": 3.5, "reviews": 3.0, "pairs-int8": 5.0}
# What 8 bits cost shows on a model that has learnt something.
INT8_EPOCHS = 3
BATCH_SIZES = (1, 8, 32)
# Rows that the pipeline's best batch size is found on.
TRIAL_ROWS = 128

Probabilities = npt.NDArray[np.float64]


class Sides:
    """Both models, loaded, on the same rows; keeps the probabilities of the last call of each."""

    def __init__(self, predictor: Any, pipe: Any, texts: list[tuple[str, ...]]) -> None:
        self._predictor, self._pipe = predictor, pipe
        self._ours: list[Any] = [row[0] if len(row) == 1 else row for row in texts]
        self._theirs = [as_pipeline_input(row) for row in texts]
        self.names = list(predictor.labels)
        # Once before: kernels are chosen.
        call(pipe, self._theirs[:8], 8)
        self.batch_seconds = {size: min(self._trial(size) for _ in range(2)) for size in BATCH_SIZES}
        self.batch_size = min(self.batch_seconds, key=self.batch_seconds.__getitem__)
        self._predictor(self._ours[:TRIAL_ROWS])
        self.probabilities: dict[str, Probabilities] = {}

    def ours(self, _: int) -> Attempt:
        """The loaded run, called with the list."""

        def work() -> tuple[float | None, Answers | None]:
            start = time.perf_counter()
            answers = self._predictor(self._ours)
            seconds = time.perf_counter() - start
            return seconds, self._kept(OURS, [answer.probabilities for answer in answers])

        return harness.measured(work)

    def peer(self, _: int) -> Attempt:
        """The pipeline, called with the list and its best batch size."""

        def work() -> tuple[float | None, Answers | None]:
            start = time.perf_counter()
            answers = call(self._pipe, self._theirs, self.batch_size)
            seconds = time.perf_counter() - start
            return seconds, self._kept(PEER, answers)

        return harness.measured(work)

    def _trial(self, batch_size: int) -> float:
        start = time.perf_counter()
        call(self._pipe, self._theirs[:TRIAL_ROWS], batch_size)
        return time.perf_counter() - start

    def _kept(self, side: str, answers: list[dict[str, float]]) -> Answers:
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


def peer_alone(served: Served, texts: list[tuple[str, ...]], batch_size: int, _pair: int) -> Attempt:
    """Load the pipeline and call it."""
    quiet_libraries()

    def work() -> tuple[float | None, Answers | None]:
        call(served.pipeline(), [as_pipeline_input(row) for row in texts], batch_size)
        return None, None

    return harness.measured(work)


def main(arguments: list[str] | None = None) -> None:
    """Measure one kind of data."""
    options = parse(arguments)
    quiet_libraries()
    read = data.mrpc if options.data == "pairs" else data.imdb
    splits = read(3000 if options.int8 else 256, test=options.rows)
    variant = f"{options.data}-int8" if options.int8 else options.data
    with trained(splits, INT8_EPOCHS if options.int8 else 1) as served:
        run = served.run
        if options.int8:
            run = served.run.with_name("int8")
            export(served.run, "openvino-int8", run)
        sides = Sides(transferkit.load(run), served.pipeline(), splits.test.texts)
        attempts = harness.alternate(options.pairs, {OURS: sides.ours, PEER: sides.peer})
        texts = splits.test.texts
        alone = {
            OURS: harness.peak_alone(partial(ours_alone, run, texts)),
            PEER: harness.peak_alone(partial(peer_alone, served, texts, sides.batch_size)),
        }
    work = {
        "data": splits.name,
        "backbone": "minilm",
        "rows": len(splits.test),
        "max_length": 256,
        "peer_batch": sides.batch_size,
        "pairs": options.pairs,
    }
    differences = [
        *DIFFERENCES,
        "TransferKit answers in 8-bit integers by OpenVINO." if options.int8 else IN_BF16,
        "Peaks of memory are of each side in a process of its own, from loading to the last answer.",
        f"The peer's batch size is the fastest of 1, 8 and 32 on the first {TRIAL_ROWS} rows; TransferKit's its own.",
    ]
    benchmark = Benchmark(
        "inference", variant, work, differences, len(splits.test), {PEER: TARGETS.get(variant)}, splits.truth()
    )
    result = harness.summarise(benchmark, attempts)
    for side, peak in alone.items():
        result[side]["peak_memory_bytes"] = peak
    gap = np.abs(sides.probabilities[OURS] - sides.probabilities[PEER]).max()
    result["largest_probability_difference"] = float(gap)
    result["peer_trial_seconds_by_batch"] = {str(size): seconds for size, seconds in sides.batch_seconds.items()}
    harness.write(result, options.out)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options of the script."""
    parser = harness.arguments(__doc__)
    parser.add_argument("--int8", action="store_true", help="our side is the export in 8-bit integers")
    parser.add_argument("--data", choices=["pairs", "reviews"], default="pairs", help="short pairs or long reviews")
    parser.add_argument("--rows", type=int, default=2000, help="to predict; the pairs have 1,725")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
