"""Sentences with their translations: from a configuration to clean splits."""

from __future__ import annotations

from dataclasses import dataclass

import datasets
import numpy as np
import pyarrow as pa

from transferkit.config import ParallelDataConfig
from transferkit.data import overlap, parallel_sources, splits, workspace
from transferkit.data.cleaning import readable
from transferkit.data.parallel_sources import LANGUAGES, Pairs
from transferkit.data.rows import Indices, counted
from transferkit.errors import ConfigError, DataError

SPLITS = ("train", "validation", "test")
Notes = list[str]


@dataclass(frozen=True)
class ParallelData:
    """Memory-mapped rows with the text columns `source` and `target`, by split."""

    splits: dict[str, datasets.Dataset]
    languages: tuple[str, str]
    source: str
    empty: int  # rows without source or target, in all splits
    leaked: int  # rows taken out since their source or target also stands in a later split
    notes: tuple[str, ...]  # a sentence for each choice made for the user


def prepare_parallel(config: ParallelDataConfig) -> ParallelData:
    """Read, clean and split the rows of a translation run.

    Raises:
        DataError: the data cannot be read, or too little of it is left.
        ConfigError: a setting does not fit the data.
    """
    rows, notes = parallel_sources.read(config)
    kept, empty = _readable(rows)
    kept, drawn = _draw(kept, config)
    kept, leaked = _separate(kept)
    return ParallelData(
        splits={split: _dataset(kept[split]) for split in SPLITS},
        languages=rows["train"].languages,
        source=config.source,
        empty=empty,
        leaked=sum(leaked.values()),
        notes=(*notes, *_said_empty(empty), *drawn, *_said_leaked(leaked)),
    )


@dataclass(frozen=True)
class _Part:
    """Rows of a table, ascending."""

    texts: pa.Table
    rows: Indices

    def __len__(self) -> int:
        return len(self.rows)


def _readable(pairs: dict[str, Pairs]) -> tuple[dict[str, _Part], int]:
    """The rows of each split with both texts, and how many rows lack one."""
    kept, empty = {}, 0
    for split, own in pairs.items():
        good = np.logical_and(*(readable(own.texts.column(side)) for side in LANGUAGES))
        kept[split] = _Part(own.texts, np.flatnonzero(good))
        empty += int(len(good) - good.sum())
        if not good.any():
            raise DataError(f"{own.where} holds no row with a source and a target; there is nothing to learn from.")
    return kept, empty


def _draw(kept: dict[str, _Part], config: ParallelDataConfig) -> tuple[dict[str, _Part], Notes]:
    """Draw the splits that are missing from the training rows, then as many rows as are asked for."""
    found, notes, total = dict(kept), Notes(), len(kept["train"])
    sizes = {"test": config.test_size, "validation": config.validation_size, "train": config.train_size}
    fractions = {"test": config.test_fraction, "validation": config.validation_fraction}
    missing = {split: sizes[split] or max(1, round(f * total)) for split, f in fractions.items() if split not in found}
    if sum(missing.values()) >= total:
        raise ConfigError(f"There are {counted(total)}, too few to draw {_parts(missing)}; give more.")
    for split, size in missing.items():
        found[split], found["train"] = _drawn(found["train"], split, size, config.split_seed)
    if missing:
        notes.append(f"Of {total:,} rows, {_parts(missing)} were drawn with split seed {config.split_seed}.")
    for split, wanted in sizes.items():
        if wanted is None or split in missing:
            continue
        if wanted > len(found[split]):
            raise ConfigError(f"--{split}-size is {wanted:,}, and there are {len(found[split]):,} rows for {split}.")
        notes.append(f"{wanted:,} of {len(found[split]):,} {split} rows were drawn.")
        found[split], _ = _drawn(found[split], f"{split}-size", wanted, config.split_seed)
    return found, notes


def _drawn(part: _Part, stream: str, size: int, seed: int) -> tuple[_Part, _Part]:
    drawn, left = splits.part(part.rows, stream, size, seed)
    return _Part(part.texts, drawn), _Part(part.texts, left)


def _separate(kept: dict[str, _Part]) -> tuple[dict[str, _Part], dict[str, int]]:
    """Take rows whose source or target stands in a later split out of the earlier one."""
    separate, leaked = dict(kept), {}
    for split, later in (("validation", ("test",)), ("train", ("validation", "test"))):
        own = kept[split]
        fresh = np.ones(len(own), dtype=bool)
        for side in LANGUAGES:
            known = np.concatenate([_fingerprints(separate[other], side) for other in later])
            fresh &= np.isin(_fingerprints(own, side), known, invert=True)
        separate[split] = _Part(own.texts, own.rows[fresh])
        leaked[split] = int(len(fresh) - fresh.sum())
        if not fresh.any():
            raise DataError(f"Every {split} row also stands in {' or '.join(later)}; give other rows for {split}.")
    return separate, leaked


def _fingerprints(part: _Part, side: str) -> np.typing.NDArray[np.uint64]:
    return overlap.fingerprints(part.texts.column(side), part.rows)


def _dataset(part: _Part) -> datasets.Dataset:
    texts = part.texts.take(pa.array(part.rows))
    return datasets.Dataset.from_file(str(workspace.write(texts.to_batches(), texts.schema)))


def _parts(sizes: dict[str, int]) -> str:
    return " and ".join(f"{size:,} for {split}" for split, size in sizes.items())


def _said_empty(empty: int) -> Notes:
    return [f"{counted(empty)} without source or target left out."] if empty else []


def _said_leaked(leaked: dict[str, int]) -> Notes:
    later = {"train": "validation or test", "validation": "test"}
    return [
        f"{counted(number)} taken out of {split}, since the same source or target stands in {later[split]}."
        for split, number in leaked.items()
        if number
    ]
