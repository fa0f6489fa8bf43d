"""Predicting a list of texts: a loaded run beside transformers' pipeline on the same weights."""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import numpy.typing as npt

import transferkit
from benchmarks import data, harness
from benchmarks.harness import OURS, PEER, Answers, Attempt, Benchmark
from benchmarks.served import DIFFERENCES, as_pipeline_input, call, trained
from transferkit.environment import quiet_libraries

TARGETS = {"pairs": 3.5, "reviews": 3.0}
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
        self.batch_seconds = {size: self._trial(size) for size in BATCH_SIZES}
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


def main(arguments: list[str] | None = None) -> None:
    """Measure one kind of data."""
    options = parse(arguments)
    quiet_libraries()
    read = data.mrpc if options.data == "pairs" else data.imdb
    splits = read(256, test=options.rows)
    with trained(splits) as served:
        sides = Sides(transferkit.load(served.run), served.pipeline(), splits.test.texts)
        attempts = harness.alternate(options.pairs, {OURS: sides.ours, PEER: sides.peer})
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
        f"The peer's batch size is the fastest of 1, 8 and 32 on the first {TRIAL_ROWS} rows; TransferKit's its own.",
    ]
    benchmark = Benchmark(
        "inference", options.data, work, differences, len(splits.test), {PEER: TARGETS[options.data]}, splits.truth()
    )
    result = harness.summarise(benchmark, attempts)
    gap = np.abs(sides.probabilities[OURS] - sides.probabilities[PEER]).max()
    result["largest_probability_difference"] = float(gap)
    result["peer_trial_seconds_by_batch"] = {str(size): seconds for size, seconds in sides.batch_seconds.items()}
    harness.write(result, options.out)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options of the script."""
    parser = harness.arguments(__doc__)
    parser.add_argument("--data", choices=sorted(TARGETS), default="pairs", help="short pairs or long reviews")
    parser.add_argument("--rows", type=int, default=2000, help="to predict; the pairs have 1,725")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
