"""What the benchmarks of translation share: the sentences, the sizes, and a translator trained by TransferKit."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import SPLIT_SEED, data_file
from transferkit.config import TranslationConfig, TranslationTraining, TranslatorConfig
from transferkit.parsing import build

DATA = "libreoffice_help"
LANGUAGES = ("en", "it")
# The library's own, which the peers are given too.
MODEL, TRAINING = TranslatorConfig(), TranslationTraining()
MAX_TOKENS = 100


@dataclass(frozen=True)
class Pairs:
    """Sentences and their translations, side by side."""

    sources: list[str]
    targets: list[str]

    def take(self, index: Sequence[int]) -> Pairs:
        """The pairs at `index`, in that order."""
        return Pairs([self.sources[i] for i in index], [self.targets[i] for i in index])

    def apart_from(self, others: Pairs) -> Pairs:
        """The pairs of which neither side stands in `others`."""
        sources, targets = set(others.sources), set(others.targets)
        both = enumerate(zip(self.sources, self.targets, strict=True))
        return self.take([i for i, (source, target) in both if source not in sources and target not in targets])

    def __len__(self) -> int:
        return len(self.sources)

    def write(self, path: Path) -> str:
        """As a file with a column for each language, whose path it returns."""
        rows = ["\t".join(LANGUAGES), *(f"{a}\t{b}" for a, b in zip(self.sources, self.targets, strict=True))]
        path.write_text("\n".join(rows) + "\n", encoding="utf-8")
        return str(path)


def pairs(test: int, validation: int = 100) -> dict[str, Pairs]:
    """The help of LibreOffice, English to Italian, by split; no side of a pair stands in another split too."""
    with gzip.open(data_file("en_it", "libreoffice_help.en-it.tsv.gz"), "rt", encoding="utf-8") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
    everything = Pairs([row[0] for row in rows], [row[1] for row in rows])
    order = np.random.default_rng(SPLIT_SEED).permutation(len(everything)).tolist()
    tested = everything.take(order[:test])
    rest = everything.take(order[test:]).apart_from(tested)
    held, left = (rest.take(range(*part)) for part in ((0, validation), (validation, len(rest))))
    return {"train": left.apart_from(held), "validation": held, "test": tested}


def configuration(
    splits: dict[str, Pairs],
    folder: Path,
    tokenizers: Path | None = None,
    model: TranslatorConfig = MODEL,
    **training: Any,
) -> TranslationConfig:
    """Of a run on the splits, which are written to `folder`.

    Args:
        splits: training, validation and test pairs.
        folder: where to write them.
        tokenizers: a folder with tokenizers; None trains them.
        model: its sizes.
        training: settings of that section.
    """
    files = {split: some.write(folder / f"{split}.tsv") for split, some in splits.items()}
    settings = {
        "data": {"source": files["train"], "validation": files["validation"], "test": files["test"]},
        "tokenizer": {"max_length": MAX_TOKENS, "folder": None if tokenizers is None else str(tokenizers)},
        "model": model.model_dump(),
        "training": training,
    }
    return build(TranslationConfig, settings, "benchmark")
