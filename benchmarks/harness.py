"""Both sides in turn, what came of it as numbers, and the file they are written to."""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from subprocess import CalledProcessError
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import psutil

from transferkit.environment import PeakMemory, cache_folder, describe, release_memory
from transferkit.errors import TransferKitError
from transferkit.evaluation.statistics import accuracy_interval, combine_p, mcnemar_p, mean_interval

SCHEMA = "transferkit/benchmark/1"
RESULTS = Path(__file__).parent / "results"
WITHOUT_BF16 = "without-bf16"
OURS, PEER, PEER_BF16 = "transferkit", "peer", "peer_bf16"
# The suffix of the fields of a column: the peer in fp32 is the main one.
SUFFIXES = {PEER: "", PEER_BF16: "_bf16"}
# What a script and `transferkit` end with after a user's mistake.
MISTAKE = 2

# A difference of trainings, by how much of one was measured.
PEAKS_ALONE = (
    "Peaks of memory are of {} of each side in a process of its own, with the libraries, and with TransferKit's "
    "measuring of the machine, as a user's first run has it."
)

Answers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Attempt:
    """One side's work, once.

    Attributes:
        seconds: of the part that is compared.
        total_seconds: of everything around it too, so that cost moved out of that part still shows.
        peak_memory_bytes: the most resident memory of the process meanwhile, what was there before included.
        answers: predicted classes by number, [runs, test rows]; None where nothing was predicted.
    """

    seconds: float
    total_seconds: float
    peak_memory_bytes: int
    answers: Answers | None = None


@dataclass(frozen=True)
class Benchmark:
    """What was measured, apart from the numbers.

    Attributes:
        rows: that one attempt puts through; for training, rows times epochs.
        truth: classes of the test rows by number, [test rows]; None where nothing is predicted.
        targets: the least ratio that is wanted, by peer.
        new_seeds: whether every pair has a seed of its own; else all pairs repeat the same answers.
    """

    name: str
    variant: str
    work: dict[str, Any]
    differences: list[str]
    rows: int
    targets: Mapping[str, float]
    truth: Answers | None = None
    new_seeds: bool = False


def arguments(description: str | None, pairs: int | None = 5) -> argparse.ArgumentParser:
    """A parser with the options that the scripts share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for the JSON file; that of this kind of machine unless said")
    if pairs is not None:
        parser.add_argument("--pairs", type=positive, default=pairs, help="times that the sides take turns")
    return parser


def positive(text: str) -> int:
    """The type of an option that counts something."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above zero")
    return int(text)


def peers_option(parser: argparse.ArgumentParser) -> None:
    """Add --peers: by their precision, as the names of their columns.

    A peer in bf16 is there by itself where TransferKit takes bf16 by itself.
    """
    # A script that measures what a process holds loads torch only where it needs it.
    from transferkit.training.precision import has_native_bf16

    names = {"fp32": PEER, "bf16": PEER_BF16}
    default = "fp32,bf16" if has_native_bf16() else "fp32"

    def read(text: str) -> list[str]:
        unknown = [part for part in text.split(",") if part not in names]
        if unknown:
            raise argparse.ArgumentTypeError(f"there is no peer {unknown[0]!r}; choose from {', '.join(names)}")
        return [names[part] for part in text.split(",")]

    parser.add_argument("--peers", type=read, default=default, help="fp32, bf16 or both with a comma between")


def parsed(parser: argparse.ArgumentParser, arguments: list[str] | None, *work: str) -> argparse.Namespace:
    """The options, and as `unusual` those of `work` that are not what they are unless said: "+name=value" each.

    A variant ends with it, so that each work has a file of its own. What leaves the work as it is, such as --pairs, is
    not among `work`, nor is what the variant begins with.
    """
    options = parser.parse_args(arguments)
    given = {name: getattr(options, name) for name in work}
    unusual = {name: value for name, value in given.items() if value != parser.get_default(name)}
    options.unusual = "".join(f"+{name}={_written(value)}" for name, value in unusual.items())
    return options


def _written(value: int | list[int]) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def usual(variant: str) -> str:
    """The variant that differs from `variant` by nothing but what is unusual."""
    return variant.partition("+")[0]


def run(main: Callable[[], None]) -> None:
    """Call `main` as a script does: a user's mistake ends it with one sentence and exit code 2."""
    try:
        main()
    except TransferKitError as error:
        say(str(error))
        sys.exit(MISTAKE)
    except CalledProcessError as error:
        if error.returncode != MISTAKE:
            raise
        # Its sentence is said.
        sys.exit(MISTAKE)


def say(text: str) -> None:
    """A line of progress; standard output is for the JSON alone."""
    print(text, file=sys.stderr, flush=True)


class PeakOfAll(PeakMemory):
    """The same of the process and those that it has started; libraries that they share count in each."""

    # To look for processes takes some milliseconds.
    INTERVAL_SECONDS = 0.5

    def now(self) -> int:
        """Bytes at this moment."""
        total = super().now()
        for child in self._process.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                total += child.memory_info().rss
        return total


def measured(work: Callable[[], tuple[float | None, Answers | None]], memory: PeakMemory | None = None) -> Attempt:
    """Run `work`, which returns the seconds of the part that counts (None: all of it) and its answers.

    `memory` is of this process alone unless said: to look for others takes time.
    """
    gc.collect()
    release_memory()
    with memory or PeakMemory() as memory:
        start = time.perf_counter()
        seconds, answers = work()
        total = time.perf_counter() - start
    return Attempt(total if seconds is None else seconds, total, memory.bytes, answers)


def measured_whole(work: Callable[[], object]) -> Attempt:
    """Run `work`, of which all counts, and whose answers are not compared."""

    def unanswered() -> tuple[None, None]:
        work()
        return None, None

    return measured(unanswered)


def peak_alone(side: Callable[[int], Attempt]) -> int:
    """The peak of memory of `side` in a process of its own, which holds nothing of the other side.

    Nothing has been measured or kept for it before, so that it measures the machine as a user's first run does.
    """
    spawn = get_context("spawn")
    with (
        TemporaryDirectory() as cache,
        ProcessPoolExecutor(1, mp_context=spawn, initializer=_use_cache, initargs=(cache,)) as pool,
    ):
        return pool.submit(side, 0).result().peak_memory_bytes


def _use_cache(folder: str) -> None:
    os.environ["TRANSFERKIT_CACHE"] = folder


@contextmanager
def no_states_kept() -> Iterator[None]:
    """Inside the context no states of frozen layers are on the disk, so that computing them is within what is timed.

    What was measured of the machine is known, and what is measured now is known afterwards.
    """
    usual = cache_folder()
    with TemporaryDirectory() as folder:
        _copy_figures(usual, Path(folder))
        with patch.dict(os.environ, {"TRANSFERKIT_CACHE": folder}):
            yield
        _copy_figures(Path(folder), usual)


def _copy_figures(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for file in source.glob("*.json"):
        shutil.copy(file, target)


def with_peaks_alone(result: dict[str, Any], sides: Mapping[str, Callable[[int], Attempt]]) -> dict[str, Any]:
    """`result` with the peak of each side's memory from `peak_alone`."""
    for name, side in sides.items():
        result[name]["peak_memory_bytes"] = peak_alone(side)
        say(f"{name} alone: {result[name]['peak_memory_bytes'] / 1e6:,.0f} MB")
    return result


def alternate(pairs: int, sides: Mapping[str, Callable[[int], Attempt]]) -> dict[str, list[Attempt]]:
    """Call every side once a pair with the number of the pair; who begins changes from pair to pair.

    A machine that slows down or warms up in the course of the job so does it to all sides alike.
    """
    attempts: dict[str, list[Attempt]] = {name: [] for name in sides}
    names = list(sides)
    for pair in range(pairs):
        first = pair % len(names)
        for name in [*names[first:], *names[:first]]:
            attempt = sides[name](pair)
            attempts[name].append(attempt)
            say(f"pair {pair + 1} of {pairs}: {name} {attempt.seconds:.3f} s")
    return attempts


def summarise(benchmark: Benchmark, attempts: Mapping[str, Sequence[Attempt]]) -> dict[str, Any]:
    """The contents of the JSON file."""
    import torch

    result: dict[str, Any] = {
        "schema": SCHEMA,
        "name": benchmark.name,
        "variant": benchmark.variant,
        "work": benchmark.work,
        "differences": benchmark.differences,
    }
    for peer, suffix in SUFFIXES.items():
        if peer in attempts or peer == PEER:
            result |= _ratios(attempts[OURS], attempts.get(peer), benchmark.targets.get(peer), suffix)
    for side in (OURS, PEER, PEER_BF16):
        if side in attempts:
            result[side] = _side(benchmark, attempts[side])
    for peer, suffix in SUFFIXES.items():
        if peer in attempts:
            result[f"paired{suffix}"] = _paired(benchmark, attempts[OURS], attempts[peer])
    return result | {"environment": describe(), "threads": torch.get_num_threads(), "date": today()}


def today() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def results_folder() -> Path:
    """Where results of this kind of machine are: a processor without bf16 has tables of its own."""
    # As in `peers_option`, not before it is needed.
    from transferkit.training.precision import has_native_bf16

    return RESULTS if has_native_bf16() else RESULTS / WITHOUT_BF16


def write(result: Mapping[str, Any], folder: Path | None) -> Path:
    """Print the result and write it to `folder`, or where those of this kind of machine are."""
    folder = folder or results_folder()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result['name']}-{result['variant']}.json"
    text = json.dumps(result, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
    print(text)
    say(f"written to {path.name}")
    return path


def quality(truth: Answers, answers: Answers) -> dict[str, Any]:
    """Accuracy over all runs with its interval, and the F1 of the last class.

    Args:
        truth: [rows].
        answers: [runs, rows].
    """
    right = answers == truth
    last = truth.max()
    hits = int(((answers == last) & (truth == last)).sum())
    named = int((answers == last).sum()) + int((truth == last).sum()) * len(answers)
    return {
        "accuracy": float(right.mean()),
        "accuracy_interval": list(accuracy_interval(right.T)),
        "f1": 2 * hits / named,
    }


def paired(truth: Answers, ours: Answers, theirs: Answers) -> dict[str, Any]:
    """McNemar's test run by run, put together, and our accuracy less theirs with its interval over rows and runs.

    All answers are [runs, rows].
    """
    right, other = ours == truth, theirs == truth
    p = combine_p([mcnemar_p(a, b) for a, b in zip(right, other, strict=True)])
    gaps = right.astype(np.float64) - other
    return {"mcnemar_p": p, "difference": float(gaps.mean()), "difference_interval": list(mean_interval(gaps.T))}


def ratios(ours: Sequence[Attempt], theirs: Sequence[Attempt]) -> dict[str, float]:
    """Their seconds over ours: of the medians, and the least and the most of the pairs."""
    middle = median(attempt.seconds for attempt in theirs) / median(attempt.seconds for attempt in ours)
    pairs = [b.seconds / a.seconds for a, b in zip(ours, theirs, strict=True)]
    return {"median": middle, "min": min(pairs), "max": max(pairs)}


def _ratios(
    ours: Sequence[Attempt], theirs: Sequence[Attempt] | None, target: float | None, suffix: str
) -> dict[str, Any]:
    found: dict[str, float] = ratios(ours, theirs) if theirs else {}
    return {f"target{suffix}": target} | {f"ratio{suffix}_{name}": found.get(name) for name in ("median", "min", "max")}


def _side(benchmark: Benchmark, attempts: Sequence[Attempt]) -> dict[str, Any]:
    seconds = [attempt.seconds for attempt in attempts]
    answers = _answers(benchmark, attempts)
    return {
        "seconds": seconds,
        "median": median(seconds),
        "total_seconds": [attempt.total_seconds for attempt in attempts],
        "rows_per_second": benchmark.rows / median(seconds),
        "peak_memory_bytes": max(attempt.peak_memory_bytes for attempt in attempts),
        "quality": None if answers is None or benchmark.truth is None else quality(benchmark.truth, answers),
    }


def _paired(benchmark: Benchmark, ours: Sequence[Attempt], theirs: Sequence[Attempt]) -> dict[str, Any] | None:
    a, b = _answers(benchmark, ours), _answers(benchmark, theirs)
    return None if a is None or b is None or benchmark.truth is None else paired(benchmark.truth, a, b)


def _answers(benchmark: Benchmark, attempts: Sequence[Attempt]) -> Answers | None:
    """[runs, rows]; attempts that repeat each other count once."""
    kept = attempts if benchmark.new_seeds else attempts[:1]
    found = [attempt.answers for attempt in kept if attempt.answers is not None]
    return np.concatenate(found) if found else None
