"""The time of one answer: a loaded run beside transformers' pipeline on the same weights, both warm."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import transferkit
from benchmarks import data, harness
from benchmarks.harness import OURS, PEER, PEER_BF16, SUFFIXES, Attempt, Benchmark
from benchmarks.served import DIFFERENCES, IN_BF16, by_label, call_on_one, trained
from transferkit.environment import quiet_libraries

TARGET = 1.8
WORDS = 30


def text_of(words: int) -> str:
    """The first words of the film reviews."""
    running = " ".join(texts[0] for texts in data.sentences().texts[:words])
    return " ".join(running.split()[:words])


def block(answer: Callable[[], object], calls: int, seen: list[float], _pair: int = 0) -> Attempt:
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
        predictor = transferkit.load(served.run)
        pipes = {name: served.pipeline(bf16=name == PEER_BF16) for name in options.peers}
        answers: dict[str, Callable[[], Any]] = {
            OURS: partial(predictor, text),
            **{name: partial(call_on_one, pipe, text) for name, pipe in pipes.items()},
        }
        seen: dict[str, list[float]] = {side: [] for side in answers}
        for answer in answers.values():
            block(answer, options.block, [])
        attempts = harness.alternate(
            max(1, options.calls // options.block),
            {side: partial(block, answer, options.block, seen[side]) for side, answer in answers.items()},
        )
        ours = answers[OURS]().probabilities
        theirs = {name: by_label(answers[name]()) for name in pipes}
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
        "All sides share a process: a peak of memory holds the libraries and all models.",
    ]
    benchmark = Benchmark("latency", "text", work, differences, 1, {PEER: TARGET})
    result = harness.summarise(benchmark, attempts)
    for side, times in seen.items():
        result[side] |= {"p50": float(np.percentile(times, 50)), "p99": float(np.percentile(times, 99))}
    for name, probabilities in theirs.items():
        gap = max(abs(ours[label] - p) for label, p in probabilities.items())
        result[f"largest_probability_difference{SUFFIXES[name]}"] = gap
    harness.write(result, options.out)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options of the script."""
    parser = harness.arguments(__doc__, pairs=None)
    parser.add_argument("--calls", type=int, default=200, help="of each side")
    parser.add_argument("--block", type=int, default=20, help="calls before the other side's turn")
    harness.peers_option(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
