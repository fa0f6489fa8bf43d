"""The time of one answer: a loaded run beside transformers' pipeline on the same weights, both warm."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import transferkit
from benchmarks import data, harness
from benchmarks.harness import OURS, PEER, Attempt, Benchmark
from benchmarks.served import DIFFERENCES, IN_BF16, call, trained
from transferkit.environment import quiet_libraries

TARGET = 1.8
WORDS = 30


def text_of(words: int) -> str:
    """The first words of the film reviews."""
    running = " ".join(texts[0] for texts in data.sentences().texts[:words])
    return " ".join(running.split()[:words])


def block(answer: Callable[[], object], calls: int, seen: list[float]) -> Attempt:
    """`calls` answers one after another; the seconds are their median, and all go to `seen`."""

    def work() -> tuple[float | None, None]:
        times = []
        for _ in range(calls):
            start = time.perf_counter()
            answer()
            times.append(time.perf_counter() - start)
        seen.extend(times)
        return float(np.median(times)), None

    return harness.measured(work)


def main(arguments: list[str] | None = None) -> None:
    """Measure one text."""
    options = parse(arguments)
    quiet_libraries()
    text = text_of(WORDS)
    with trained(data.film_reviews(256)) as served:
        predictor, pipe = transferkit.load(served.run), served.pipeline()
        answers: dict[str, Callable[[], Any]] = {
            OURS: lambda: predictor(text),
            PEER: lambda: call(pipe, [text], batch_size=1),
        }
        seen: dict[str, list[float]] = {side: [] for side in answers}
        for answer in answers.values():
            block(answer, options.block, [])
        attempts = harness.alternate(
            max(1, options.calls // options.block),
            {
                OURS: lambda _: block(answers[OURS], options.block, seen[OURS]),
                PEER: lambda _: block(answers[PEER], options.block, seen[PEER]),
            },
        )
        gap = max(abs(p - answers[PEER]()[0][name]) for name, p in answers[OURS]().probabilities.items())
    work = {
        "data": "film-reviews",
        "backbone": "minilm",
        "words": WORDS,
        "calls": len(seen[OURS]),
        "block": options.block,
    }
    differences = [
        *DIFFERENCES,
        IN_BF16,
        "seconds and ratios are of the median answer of each block.",
        "Both sides share a process: a peak of memory holds the libraries and both models.",
    ]
    benchmark = Benchmark("latency", "text", work, differences, 1, {PEER: TARGET})
    result = harness.summarise(benchmark, attempts)
    for side, times in seen.items():
        result[side] |= {"p50": float(np.percentile(times, 50)), "p99": float(np.percentile(times, 99))}
    result["largest_probability_difference"] = gap
    harness.write(result, options.out)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options of the script."""
    parser = harness.arguments(__doc__, pairs=None)
    parser.add_argument("--calls", type=int, default=200, help="of each side")
    parser.add_argument("--block", type=int, default=20, help="calls before the other side's turn")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
