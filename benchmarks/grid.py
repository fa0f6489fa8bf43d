"""Seven strategies x seeds on film reviews, end to end: one comparison beside one Trainer run after another."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import transferkit
from benchmarks import data, harness
from benchmarks.harness import OURS, PEER, PEER_BF16, SUFFIXES, Answers, Attempt, Benchmark
from benchmarks.peer import DIFFERENCES, PRECISION, train_peer
from benchmarks.recipe import BACKBONE, MAX_LENGTH, STRATEGIES, of_strategy, read_answers
from transferkit.environment import quiet_libraries

TARGET = 5.0
SHARED = (
    "TransferKit tokenizes once for all runs, and those that freeze the same layers share what these give; the peer "
    "does all of it in every run."
)
SIDE_BY_SIDE = (
    "TransferKit makes {} runs at once, each in a process with its share of the threads, where it tokenizes once and "
    "what frozen layers give is shared; the peer makes one after the other and does all of it in every run. "
    "TransferKit's peak of memory is that of all processes together; libraries that they share count in each."
)


def ours(splits: data.Splits, epochs: int, seeds: Sequence[int], jobs: int, _pair: int) -> Attempt:
    """One call of `compare`, its statistics and its report included."""
    quiet_libraries()

    def work() -> tuple[float | None, Answers | None]:
        recipes = [of_strategy(strategy, epochs) for strategy in STRATEGIES]
        with TemporaryDirectory() as name:
            folder = Path(name)
            settings: dict[str, Any] = recipes[0].shared(splits.write(folder))
            settings |= {"strategies": [recipe.spec for recipe in recipes], "seeds": list(seeds)}
            config = transferkit.CompareConfig.model_validate(settings)
            comparison = transferkit.compare(config, folder / "out", jobs=min(jobs, len(STRATEGIES) * len(seeds)))
            failed = [result.error for result in comparison.results if result.status != "finished"]
            assert not failed, failed
            runs = {(result.strategy, result.seed): folder / "out" / result.run for result in comparison.results}
            answers = [read_answers(runs[label, seed], splits) for label in config.labels() for seed in seeds]
        return None, np.concatenate(answers)

    with harness.no_states_kept():
        return harness.measured(work, harness.PeakOfAll() if jobs > 1 else None)


def peer(splits: data.Splits, epochs: int, seeds: Sequence[int], bf16: bool, _pair: int) -> Attempt:
    """Every run anew: tokenize, load, train, predict."""
    quiet_libraries()

    def work() -> tuple[float | None, Answers | None]:
        answers = []
        for strategy in STRATEGIES:
            for seed in seeds:
                answers.append(train_peer(of_strategy(strategy, epochs), splits, seed, bf16).answers)
        return None, np.concatenate(answers)

    return harness.measured(work)


def sides(
    splits: data.Splits, epochs: int, seeds: Sequence[int], peers: Sequence[str], jobs: int
) -> dict[str, Callable[[int], Attempt]]:
    """What takes turns; every pair repeats the same work."""
    chosen = {name: partial(peer, splits, epochs, seeds, name == PEER_BF16) for name in peers}
    return {OURS: partial(ours, splits, epochs, seeds, jobs), **chosen}


def by_strategy(splits: data.Splits, attempts: Mapping[str, Sequence[Attempt]], seeds: int) -> dict[str, Any]:
    """Quality of every side strategy by strategy, and each peer's paired test against ours."""
    truth, found = splits.truth(), {}
    for number, strategy in enumerate(STRATEGIES):
        part = slice(number * seeds, (number + 1) * seeds)
        answers = {side: tries[0].answers[part] for side, tries in attempts.items() if tries[0].answers is not None}
        found[strategy] = {side: harness.quality(truth, those) for side, those in answers.items()} | {
            f"paired{SUFFIXES[side]}": harness.paired(truth, answers[OURS], those)
            for side, those in answers.items()
            if side != OURS
        }
    return found


def main(arguments: list[str] | None = None) -> None:
    """Measure the grid."""
    options = parse(arguments)
    splits = data.film_reviews(options.rows, options.validation_rows, options.test_rows)
    harness.say("once on a few rows, untimed: libraries load and kernels are chosen")
    few = data.film_reviews(16, validation=8, test=8)
    for side in sides(few, 1, [0], options.peers, options.jobs).values():
        side(0)
    attempts = harness.alternate(
        options.pairs, sides(splits, options.epochs, options.seeds, options.peers, options.jobs)
    )
    runs = len(STRATEGIES) * len(options.seeds)
    work = {
        "data": splits.name,
        "backbone": BACKBONE,
        "strategies": list(STRATEGIES),
        "seeds": options.seeds,
        "rows": len(splits.train),
        "validation_rows": len(splits.validation),
        "test_rows": len(splits.test),
        "epochs": options.epochs,
        "batch": of_strategy("full", options.epochs).batch_size,
        "max_length": MAX_LENGTH,
        "jobs": options.jobs,
        "pairs": options.pairs,
    }
    differences = [
        *DIFFERENCES,
        PRECISION.format("within these times where the few rows before them have not done it"),
        harness.PEAKS_ALONE.format("one epoch with one seed"),
        SIDE_BY_SIDE.format(options.jobs) if options.jobs > 1 else SHARED,
        "Timed is everything from the rows to the test scores; TransferKit's side also draws statistics and a report.",
    ]
    rows = len(splits.train) * options.epochs * runs
    # Quality is by strategy: a mean over strategies has no interval that says anything.
    benchmark = Benchmark("grid", f"{splits.name}{options.unusual}", work, differences, rows, {PEER: TARGET})
    result = harness.summarise(benchmark, attempts)
    result["by_strategy"] = by_strategy(splits, attempts, len(options.seeds))
    harness.with_peaks_alone(result, sides(splits, 1, options.seeds[:1], options.peers, options.jobs))
    harness.write(result, options.out)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options of the script."""
    parser = harness.arguments(__doc__)
    parser.add_argument("--rows", type=harness.positive, default=1000, help="of training")
    parser.add_argument(
        "--validation-rows", type=harness.positive, default=200, help="that are scored after every epoch"
    )
    parser.add_argument("--test-rows", type=harness.positive, default=400, help="that quality is measured on")
    parser.add_argument("--epochs", type=harness.positive, default=3, help="of every run")
    parser.add_argument(
        "--seeds", type=lambda text: [int(part) for part in text.split(",")], default=[0, 1], help="with commas"
    )
    parser.add_argument("--jobs", type=harness.positive, default=1, help="runs that TransferKit makes at once")
    harness.peers_option(parser)
    return harness.parsed(parser, arguments, "rows", "validation_rows", "test_rows", "epochs", "seeds", "jobs")


if __name__ == "__main__":
    harness.run(main)
