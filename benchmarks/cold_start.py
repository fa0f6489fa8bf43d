"""From the shell to the first answer: `transferkit predict` beside a script of five lines with pipeline."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks import data, harness
from benchmarks.harness import OURS, PEER, Attempt, Benchmark
from benchmarks.recipe import BACKBONE
from benchmarks.served import IN_BF16, Served, trained
from transferkit.environment import PeakMemory, quiet_libraries

# At most 0.6 of the peer's time.
TARGET = 1 / 0.6
HELP_SECONDS, IMPORT_SECONDS = 0.5, 0.3
# A run that keeps a whole model, and one of a capsule, whose base has to be found, checked and loaded.
VARIANTS = {"full": "predict", "lora": "predict-lora"}
LOADED = {
    "full": "TransferKit checks the tokenizer by its hash and loads the weights unchecked; the peer loads those "
    "that were exported, in fp32, and checks nothing.",
    "lora": "TransferKit checks the tokenizer and the base by their hashes, loads the base and merges the adapter; the "
    "peer loads the merged weights, in fp32, and checks nothing.",
}
TEXT = "A warm and funny film."
SCRIPT = """\
import sys
from transformers import pipeline
classify = pipeline("text-classification", model=sys.argv[1], device="cpu")
answer = classify(sys.argv[2])[0]
print(answer["label"], answer["score"], sep="\\t")
"""


def process(command: list[str]) -> tuple[Attempt, str]:
    """Run `command` to its end: seconds, peak memory of that process, and what it printed."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as child:
        # Sampled: what the kernel keeps as the high-water mark of a child holds its parent's memory too.
        peaks = [0]
        watcher = threading.Thread(target=_watch, args=(child.pid, peaks), daemon=True)
        watcher.start()
        printed = child.communicate()[0].decode()
        seconds = time.perf_counter() - start
        watcher.join()
    if child.returncode:
        raise SystemExit(f"{Path(command[0]).name} {command[1:3]} ended with exit code {child.returncode}.")
    return Attempt(seconds, seconds, max(peaks)), printed


def _watch(pid: int, peaks: list[int]) -> None:
    """Note the resident memory of a process until it ends."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        while memory := process.memory_info().rss:
            peaks.append(memory)
            time.sleep(PeakMemory.INTERVAL_SECONDS)


def small_starts(pairs: int) -> dict[str, Any]:
    """Seconds to the help text and to the imported package."""
    commands = {
        "transferkit --help": ([sys.executable, "-m", "transferkit", "--help"], HELP_SECONDS),
        "import transferkit": ([sys.executable, "-c", "import transferkit"], IMPORT_SECONDS),
    }
    found = {}
    for name, (command, most) in commands.items():
        process(command)
        seconds = [process(command)[0].seconds for _ in range(pairs)]
        found[name] = {"seconds": seconds, "median": median(seconds), "target_seconds": most}
        harness.say(f"{name}: {median(seconds):.3f} s")
    return found


def commands_on(served: Served) -> dict[str, list[str]]:
    """What each side is started with."""
    return {
        OURS: [sys.executable, "-m", "transferkit", "predict", str(served.run), TEXT],
        PEER: [sys.executable, "-c", SCRIPT, str(served.exported), TEXT],
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure the starts."""
    options = parse(arguments)
    quiet_libraries()
    with trained(data.film_reviews(256), strategy=options.strategy) as served:
        commands = commands_on(served)
        # Once untimed: the files are then in the system's cache for both.
        labels = {side: process(command)[1].split("\t")[0] for side, command in commands.items()}
        attempts = harness.alternate(
            options.pairs,
            {
                OURS: lambda _: process(commands[OURS])[0],
                PEER: lambda _: process(commands[PEER])[0],
            },
        )
    work = {
        "data": "one text",
        "backbone": BACKBONE,
        "strategy": options.strategy,
        "text": TEXT,
        "pairs": options.pairs,
    }
    differences = [
        "Every start is a new process; files are in the system's cache, and the hub is switched off for both.",
        LOADED[options.strategy],
        IN_BF16,
        "Peak memory is the most of twenty samples a second, of the one process that was started.",
    ]
    benchmark = Benchmark("cold_start", VARIANTS[options.strategy], work, differences, 1, {PEER: TARGET})
    result = harness.summarise(benchmark, attempts)
    result["same_answer"] = labels[OURS] == labels[PEER]
    if options.strategy == "full":
        result["small_starts"] = small_starts(options.pairs)
    harness.write(result, options.out)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options of the script."""
    parser = harness.arguments(__doc__)
    parser.add_argument("--strategy", choices=list(VARIANTS), default="full", help="that the run was trained by")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    harness.run(main)
