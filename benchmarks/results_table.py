"""The Markdown of `benchmarks/results/*.json`, written between the marks of a page or printed.

Another kind of machine has a folder of its own there, and tables of its own.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.data import ROOT
from benchmarks.harness import OURS, PEER, PEER_BF16, RESULTS, SCHEMA, SUFFIXES, run, usual
from transferkit.errors import DataError
from transferkit.formatting import points, points_interval

PAGE = ROOT / "docs" / "reference" / "benchmarks.md"
DASH = "\N{EN DASH}"
START, END = "<!-- results:start -->", "<!-- results:end -->"
PEER_NAMES = {
    "finetune": "Trainer",
    "finetune lora": "Trainer + PEFT",
    "grid": "Trainer + PEFT",
    "inference": "pipeline",
    "latency": "pipeline",
    "cold_start": "pipeline",
    "decoding greedy": "textbook's loop",
    "decoding beam": "generate",
    "translation_training": "Seq2SeqTrainer",
    "translation_quality": "Marian, Seq2SeqTrainer",
}
# Of what a page's reader wants to know about the work; the rest stands in the JSON.
SHOWN = {
    "data": "{}",
    "rows": "{:,} row{s}",
    "epochs": "{} epoch{s}",
    "batch": "batch {}",
    "peer_batch": "peer batch {}",
    "batch_tokens": "{:,} tokens a batch",
}
HEADINGS = (
    "Benchmark", "Work", "Peer", f"Times as fast (min {DASH} max)", "Target", "Against bf16 peer", "Target",
    "Accuracy: ours / peer; difference", "Peak memory: ours / peer", "Where",
)  # fmt: skip
PACKAGES = ("transferkit", "torch", "transformers", "peft")
# With fewer, the least and the most ratio say little of how they vary, and the row says how many there were.
ENOUGH_PAIRS = 5


def read(folder: Path) -> list[dict[str, Any]]:
    """All results in the folder, by file name."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    return [result for result in found if result.get("schema") == SCHEMA]


def render_folders(folder: Path) -> str:
    """The tables of `folder`, then those of each folder in it under its name.

    Raises:
        DataError: there are no results in one of them.
    """
    parts = []
    for place in (folder, *sorted(path for path in folder.glob("*") if path.is_dir())):
        results = read(place)
        if not results:
            raise DataError(f"There are no results in {place}; run a benchmark first.")
        heading = [] if place == folder else [f"### {place.name.replace('-', ' ').capitalize()}"]
        parts += [*heading, render(results)]
    return "\n\n".join(parts)


def render(results: Iterable[Mapping[str, Any]]) -> str:
    """The tables, and below them where each row was measured."""
    results = list(results)
    places: list[str] = []
    compared = [row(result, _place(result, places)) for result in results if OURS in result]
    grown = [line for result in results if "stages" in result for line in scale_rows(result, _place(result, places))]
    started = [line for result in results for line in start_rows(result)]
    parts = [
        table(HEADINGS, compared),
        table(
            ("Decoding", "By", "Sentences a second", "Same outputs", "Mean tokens (true)", "BLEU"),
            [line for result in results if result["name"] == "decoding" for line in decoding_rows(result)],
        ),
        table(
            ("Translator", "By", "Seconds of training", "Epochs", "BLEU, greedy", "chrF"),
            [line for result in results if "budget" in result for line in budget_rows(result)],
        ),
        table(("Scale", "Rows", "Seconds a row, fitted", "Off the line", "Bytes a row", "Where"), grown),
        table(("Start", "Seconds", "Target"), started),
        "\n".join(f"{number}. {place}" for number, place in enumerate(places, start=1)),
    ]
    return "\n\n".join(part for part in parts if part)


def row(result: Mapping[str, Any], place: int) -> list[str]:
    """One benchmark with a peer."""
    work = result["work"]
    against = PEER if PEER in result else PEER_BF16
    ours, peer = result[OURS], result.get(against)
    return [
        f"{result['name']} {result['variant']}",
        ", ".join(form.format(work[key], s="s" * (work[key] != 1)) for key, form in SHOWN.items() if key in work),
        _peer_name(result["name"], result["variant"]),
        _ratio(result, ""),
        _number(result.get("target")),
        _ratio(result, "_bf16"),
        _number(result.get("target_bf16")),
        f"{_accuracy(ours)} / {_accuracy(peer)}{_difference(result.get(f'paired{SUFFIXES[against]}'))}",
        f"{_megabytes(ours['peak_memory_bytes'])} / {_megabytes(peer['peak_memory_bytes'] if peer else None)}",
        str(place),
    ]


def scale_rows(result: Mapping[str, Any], place: int) -> list[list[str]]:
    """One row for each stage."""
    sizes = result["work"]["sizes"]
    lines = []
    for stage, found in result["stages"].items():
        deviation = found["seconds_growth"]["max_deviation"]
        lines.append(
            [
                stage,
                f"{min(sizes):,} {DASH} {max(sizes):,}",
                f"{found['seconds_growth']['slope']:.2e}",
                DASH if deviation is None else f"{100 * deviation:.0f} %",
                f"{found['bytes_per_row']:,.0f}",
                str(place),
            ]
        )
    return lines


def decoding_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """One row for each side that translated; the same outputs are those of the peer in fp32."""
    work = result["work"]
    return [
        [
            result["variant"],
            name.replace("_", " in ").replace(PEER, _peer_name(result["name"], result["variant"])),
            f"{work['rows'] / side['median']:,.1f}",
            f"{100 * side['equal_to_peer']:.1f} %",
            f"{side['mean_tokens']:.1f} ({work['true_mean_tokens']:.1f})",
            f"{side['bleu']:.2f}",
        ]
        for name, side in result.items()
        if isinstance(side, dict) and "equal_to_peer" in side
    ]


def budget_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """One row for each side of a translator that was trained for the same time."""
    return [
        [
            f"{result['variant']}, {side['test_rows']:,} sentences",
            name.replace(PEER, PEER_NAMES[result["name"]]),
            f"{side['train_seconds']:,.0f}",
            f"{side['epochs']:.1f}",
            *(f"{side['scores'][key]:.1f} ({_interval(side['intervals'][key])})" for key in ("bleu", "chrf")),
        ]
        for name, side in result["budget"].items()
    ]


def start_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """The starts that have a target in seconds."""
    return [
        [f"`{name}`", f"{found['median']:.2f}", f"{found['target_seconds']:g}"]
        for name, found in result.get("small_starts", {}).items()
    ]


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Markdown; empty without rows."""
    lines = [" | ".join(cells) for cells in rows]
    if not lines:
        return ""
    names = list(headings)
    return "\n".join(f"| {line} |" for line in [" | ".join(names), " | ".join("---" for _ in names), *lines])


def replace_block(page: str, block: str) -> str:
    """`page` with `block` between its marks.

    Raises:
        DataError: the marks are not both there, in this order.
    """
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise DataError(f"The page has no block from {START} to {END}; put both marks where the tables belong.")
    return f"{before}{START}\n{block}\n{END}{after}"


def main(arguments: list[str] | None = None) -> None:
    """Write or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("page", nargs="?", type=Path, default=PAGE, help="the page with the marks")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON files")
    parser.add_argument("--print", action="store_true", help="print instead of writing")
    options = parser.parse_args(arguments)
    block = render_folders(options.results)
    if options.print:
        print(block)
        return
    if not options.page.is_file():
        raise DataError(f"There is no page {options.page}; name one with the marks {START} and {END}.")
    options.page.write_text(replace_block(options.page.read_text(encoding="utf-8"), block), encoding="utf-8")


def _place(result: Mapping[str, Any], places: list[str]) -> int:
    """The number of the machine, the versions and the day of a result, new where no other has the same."""
    environment = result["environment"]
    packages = environment["packages"]
    versions = ", ".join(f"{name} {packages[name]}" for name in PACKAGES if packages.get(name))
    threads = f"{result['threads']} thread{'s' if result['threads'] != 1 else ''}"
    place = f"{environment['processor']}, {environment['cores']} cores, {threads}; {versions}; {result['date'][:10]}"
    if place not in places:
        places.append(place)
    return places.index(place) + 1


def _peer_name(name: str, variant: str) -> str:
    return PEER_NAMES.get(f"{name} {usual(variant)}") or PEER_NAMES.get(name, DASH)


def _ratio(result: Mapping[str, Any], suffix: str) -> str:
    middle = result.get(f"ratio{suffix}_median")
    if middle is None:
        return DASH
    pairs = len(result[OURS]["seconds"])
    if pairs == 1:
        return f"{middle:.2f} (one pair)"
    number = f", {pairs} pairs" if pairs < ENOUGH_PAIRS else ""
    return f"{middle:.2f} ({result[f'ratio{suffix}_min']:.2f} {DASH} {result[f'ratio{suffix}_max']:.2f}{number})"


def _number(value: float | None) -> str:
    return DASH if value is None else f"{value:.3g}"


def _accuracy(side: Mapping[str, Any] | None) -> str:
    quality = side.get("quality") if side else None
    if not quality:
        return DASH
    low, high = quality["accuracy_interval"]
    return f"{100 * quality['accuracy']:.1f} % ({100 * low:.1f} {DASH} {100 * high:.1f})"


def _difference(paired: Mapping[str, Any] | None) -> str:
    """In points with its interval, which alone says whether ours is worse; empty where it was not recorded."""
    if not paired or "difference_interval" not in paired:
        return ""
    low, high = paired["difference_interval"]
    worse = ", significantly worse" if high < 0 else ""
    return f"; {points(paired['difference'])} ({points_interval((low, high))}){worse}"


def _interval(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.1f} {DASH} {ends[1]:.1f}"


def _megabytes(size: int | None) -> str:
    return DASH if size is None else f"{size / 1e6:,.0f} MB"


if __name__ == "__main__":
    run(main)
