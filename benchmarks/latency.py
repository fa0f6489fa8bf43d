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
from benchmarks.recipe import BACKBONE
from benchmarks.served import (
    DIFFERENCES,
    IN_BF16,
    PEAKS_ALONE,
    Served,
    by_label,
    call_on_one,
    ours_alone,
    peer_alone,
    trained,
)
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
    with trained(data.film_reviews(256)) as served:
        harness.write(measure(served, options), options.out)


def measure(served: Served, options: argparse.Namespace) -> dict[str, Any]:
    """The contents of the JSON file."""
    text, size = text_of(WORDS), options.block
    in_bf16 = {name: name == PEER_BF16 for name in options.peers}
    asked = partial(call_on_one, text=text)
    answers: dict[str, Callable[[], Any]] = {
        OURS: partial(transferkit.load(served.run), text),
        **{name: partial(asked, served.pipeline(bf16)) for name, bf16 in in_bf16.items()},
    }
    seen: dict[str, list[float]] = {side: [] for side in answers}
    for answer in answers.values():
        block(answer, size, [])
    attempts = harness.alternate(
        options.calls // size, {side: partial(block, answer, size, seen[side]) for side, answer in answers.items()}
    )
    work = {
        "data": "film-reviews",
        "backbone": BACKBONE,
        "words": WORDS,
        "calls": options.calls,
        "block": size,
    }
    differences = [
        *DIFFERENCES,
        IN_BF16,
        PEAKS_ALONE,
        "seconds and ratios are of the median answer of each block.",
    ]
    benchmark = Benchmark("latency", f"text{options.unusual}", work, differences, 1, {PEER: TARGET})
    result = harness.summarise(benchmark, attempts)
    for side, times in seen.items():
        result[side] |= {"p50": float(np.percentile(times, 50)), "p99": float(np.percentile(times, 99))}
    ours = answers[OURS]().probabilities
    for name in options.peers:
        gap = max(abs(ours[label] - p) for label, p in by_label(answers[name]()).items())
        result[f"largest_probability_difference{SUFFIXES[name]}"] = gap
    alone = {name: partial(peer_alone, served, bf16, asked) for name, bf16 in in_bf16.items()}
    return harness.with_peaks_alone(result, {OURS: partial(ours_alone, served.run, text), **alone})


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options of the script."""
    parser = harness.arguments(__doc__, pairs=None)
    parser.add_argument("--calls", type=harness.positive, default=200, help="of each side")
    parser.add_argument("--block", type=harness.positive, default=20, help="calls before the other side's turn")
    harness.peers_option(parser)
    options = harness.parsed(parser, arguments, "calls", "block")
    if options.calls % options.block:
        parser.error(
            f"--calls {options.calls} is no multiple of --block {options.block}, the calls of a turn; give one."
        )
    return options


if __name__ == "__main__":
    harness.run(main)
