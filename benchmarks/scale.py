"""Time and memory from a thousand rows to tens of thousands: reading and splitting, tokenizing, a linear probe."""

from __future__ import annotations

import argparse
import csv
import gc
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks import data, harness
from transferkit.environment import PeakMemory, describe, quiet_libraries, release_memory

STAGES = ("prepare", "tokenize", "linear-probe")
# Wanted: times lie on a line within a tenth of each, and memory grows by less than a kilobyte a row.
MOST_DEVIATION, MOST_BYTES_PER_ROW = 0.1, 1024
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# What is soon done is done again for so long, and the least counts: others on the machine only add to it.
REPEATED_SECONDS = 30.0
DIFFERENCES = [
    "There is no peer: each size is held against the others.",
    f"Prepare and tokenize are repeated in one process for {REPEATED_SECONDS:.0f} seconds, and the least time counts; "
    "the probe trains once.",
    "Every size is a process of its own. Its memory is what the system counts as resident, and that holds the pages "
    "of memory-mapped files that were touched, which the system may take back.",
    "What TransferKit measures of the machine it has measured beforehand, on the smallest size and once for all: every "
    "size computes in the same way, and no peak of memory is that of measuring.",
    "The probe trains on the rows that the split leaves for training, about seven of ten; seconds are per row of file.",
    "It keeps its features on the disk (--prefix-cache disk). In memory, where they are by default while a quarter of "
    "what is free holds them, they take 1,536 bytes a row in fp32 and 768 in bf16.",
]


def write_rows(path: Path, rows: int) -> None:
    """`rows` reviews, none twice: sentences in turn, each with five words for its number, so all cost the same."""
    reviews = data.sentences()
    # In the package the labels come in blocks, and a small file is to have both.
    order = np.random.default_rng(data.SPLIT_SEED).permutation(len(reviews))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for number in range(rows):
            source = int(order[number % len(order)])
            said = " ".join(DIGITS[int(digit)] for digit in f"{number:05d}")
            writer.writerow([f"{reviews.texts[source][0]} {said}", reviews.labels[source]])


def work_on(path: Path) -> dict[str, dict[str, float]]:
    """Seconds and peak memory of every stage on the rows of one file; in a process of its own."""
    import transferkit
    from transferkit.config import TokenizationConfig
    from transferkit.data import workspace
    from transferkit.data.preparation import prepare
    from transferkit.models.hub import locate
    from transferkit.tokenization.pretrained import TextTokenizer

    quiet_libraries()
    config = transferkit.RunConfig.model_validate(
        {
            "data": {"source": str(path)},
            "strategy": "linear-probe",
            "training": {"epochs": 1, "prefix_cache": "disk"},
        }
    )
    tokenizer = TextTokenizer.load(locate("minilm").folder, TokenizationConfig(), allowed_length=256)

    def tokenize() -> None:
        for rows in splits.values():
            tokenizer.tokenize(rows, workspace.new_file())

    def probe() -> float | None:
        with TemporaryDirectory() as folder:
            return transferkit.train(config, Path(folder) / "run").train_seconds

    splits: dict[str, Any] = {}

    def read() -> None:
        splits.clear()
        splits.update(prepare(config.data).splits)

    found = {"prepare": _stage(read, REPEATED_SECONDS)}
    found["tokenize"] = _stage(tokenize, REPEATED_SECONDS)
    # The run reads rows of its own.
    splits.clear()
    found["linear-probe"] = _stage(probe)
    return found


def at_size(path: Path, cache: str) -> dict[str, dict[str, float]]:
    """`work_on` in a process of its own, which keeps in the folder `cache` what it measures of the machine."""
    command = [sys.executable, "-m", "benchmarks.scale", "--worker", str(path)]
    environment = os.environ | {"TRANSFERKIT_CACHE": cache}
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=data.ROOT, env=environment)
    found: dict[str, dict[str, float]] = json.loads(answer.stdout.splitlines()[-1])
    return found


def growth(sizes: Sequence[int], values: Sequence[float]) -> dict[str, float | None]:
    """The line that `values` are nearest to, each by its share, and how far from it the farthest is.

    What every process pays once, whatever its rows, is in `constant` and in no growth.
    """
    measured = np.array(values)
    slope, constant = np.polyfit(sizes, measured, 1, w=1 / measured)
    shares = np.abs((slope * np.array(sizes) + constant) / measured - 1)
    return {
        "slope": float(slope),
        "constant": float(constant),
        # Through two there is always a line.
        "max_deviation": float(shares.max()) if len(sizes) > 2 else None,
    }


def stage_summary(sizes: Sequence[int], found: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Of one stage: seconds and memory by size, what they grow by, and whether that is as wanted."""
    seconds, peaks = [one["seconds"] for one in found], [one["peak_memory_bytes"] for one in found]
    time_growth, memory_growth = growth(sizes, seconds), growth(sizes, peaks)
    deviation, slope = time_growth["max_deviation"], memory_growth["slope"]
    assert slope is not None
    return {
        "seconds": seconds,
        "seconds_per_row": [value / size for value, size in zip(seconds, sizes, strict=True)],
        "seconds_growth": time_growth,
        "linear_as_wanted": None if deviation is None else deviation <= MOST_DEVIATION,
        "peak_memory_bytes": peaks,
        "bytes_per_row": slope,
        "memory_as_wanted": slope < MOST_BYTES_PER_ROW,
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure every size."""
    options = parse(arguments)
    if options.worker:
        print(json.dumps(work_on(options.worker)))
        return
    found = []
    with TemporaryDirectory() as folder, TemporaryDirectory() as cache:
        paths = [Path(folder) / f"{size}.csv" for size in options.sizes]
        for size, path in zip(options.sizes, paths, strict=True):
            write_rows(path, size)
        harness.say("once on the smallest, uncounted: the machine is measured")
        at_size(paths[0], cache)
        # Or the smallest would find its features there.
        shutil.rmtree(Path(cache) / "prefix")
        for size, path in zip(options.sizes, paths, strict=True):
            found.append(at_size(path, cache))
            harness.say(f"{size:,} rows: " + ", ".join(f"{s} {found[-1][s]['seconds']:.2f} s" for s in STAGES))
    result = {
        "schema": harness.SCHEMA,
        "name": "scale",
        "variant": f"film-reviews{options.unusual}",
        "work": {"data": "film-reviews", "backbone": "minilm", "sizes": options.sizes, "epochs": 1},
        "differences": DIFFERENCES,
        "target": None,
        "targets": {"max_deviation": MOST_DEVIATION, "bytes_per_row": MOST_BYTES_PER_ROW},
        "stages": {stage: stage_summary(options.sizes, [one[stage] for one in found]) for stage in STAGES},
        "environment": describe(),
        "threads": describe()["threads"],
        "date": harness.today(),
    }
    harness.write(result, options.out)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options of the script."""
    parser = harness.arguments(__doc__, pairs=None)
    parser.add_argument(
        "--sizes",
        type=lambda text: [harness.positive(part) for part in text.split(",")],
        default=[1000, 4000, 16000, 64000],
        help="rows, from few to many, with commas",
    )
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = harness.parsed(parser, arguments, "sizes")
    if len(options.sizes) < 2:
        parser.error("--sizes: growth needs two sizes or more.")
    return options


def _stage(work: Callable[[], float | None], again_for: float = 0.0) -> dict[str, float]:
    """Of `work`, which returns its own seconds or None for all of them: the least, and the peak of memory.

    It is done once, and again until `again_for` seconds are over.
    """

    def seconds() -> float:
        start = time.perf_counter()
        own = work()
        return time.perf_counter() - start if own is None else own

    gc.collect()
    release_memory()
    with PeakMemory() as memory:
        end = time.perf_counter() + again_for
        least = seconds()
        while time.perf_counter() < end:
            least = min(least, seconds())
    return {"seconds": least, "peak_memory_bytes": memory.bytes}


if __name__ == "__main__":
    harness.run(main)
