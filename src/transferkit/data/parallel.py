"""Sentences with their translations: from a configuration to clean splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import datasets
import numpy as np

from transferkit.config import ParallelDataConfig
from transferkit.data import aligned, gathering, languages, overlap, sources, splits
from transferkit.data.cleaning import readable
from transferkit.data.gathering import Notes
from transferkit.data.rows import TextRows, counted
from transferkit.data.tables import Source, Table
from transferkit.data.text_lines import FileOptions
from transferkit.environment import uncollected
from transferkit.errors import ConfigError, DataError

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class ParallelData:
    """Memory-mapped rows with the text columns `source` and `target`, by split."""

    splits: dict[str, datasets.Dataset]
    languages: tuple[str, str]
    source: str
    empty: int  # rows without source or target, in all splits
    leaked: int  # rows taken out since their source or target also stands in a later split
    notes: tuple[str, ...]  # a sentence for each choice made for the user


@uncollected()
def prepare_parallel(config: ParallelDataConfig) -> ParallelData:
    """Read, clean and split the rows of a translation run.

    Raises:
        DataError: the data cannot be read, or too little of it is left.
        ConfigError: a setting does not fit the data.
    """

    def read_main(name: str, options: FileOptions) -> Source:
        if config.target_file is not None:
            return aligned.read(name, config.target_file, config.languages, options)
        return sources.read(name, options)

    tables, gathered = gathering.gather(config, read_main)
    rows, pair, said = _select(tables, config)
    rows, empty = _readable(rows)
    # Before the draw too: what is drawn is then not taken out again for standing in a split that came along.
    rows, leaked = _separate(rows)
    rows, drawn = _draw_missing(rows, config)
    rows, leaked_by_drawing = _separate(rows)
    leaked += leaked_by_drawing
    rows, sampled = _sample(rows, tables, config)
    return ParallelData(
        splits={split: rows[split].dataset() for split in SPLITS},
        languages=pair,
        source=config.source,
        empty=empty,
        leaked=leaked.total(),
        notes=(*gathered, *said, *_said_empty(empty), *drawn, *_said_leaked(leaked), *sampled),
    )


def _select(
    tables: Mapping[str, Table], config: ParallelDataConfig
) -> tuple[dict[str, TextRows], languages.Languages, Notes]:
    """The two texts of each split, in the same languages as those of training."""
    rows, notes = {}, Notes()
    known = None
    for split in SPLITS:
        if split not in tables:
            continue
        table = tables[split]
        texts, found = languages.select(table, config.languages, known)
        if config.languages is None and found != known:
            notes.append(f"{table.where}: from {found[0]!r} into {found[1]!r}; --pair says it otherwise.")
        known = known or found
        rows[split] = TextRows(texts, np.arange(len(texts)), table.where)
    assert known is not None, "every source has training rows"
    return rows, known, notes


def _readable(rows: Mapping[str, TextRows]) -> tuple[dict[str, TextRows], int]:
    """The rows of each split with both texts, and how many rows lack one."""
    kept, empty = {}, 0
    for split, own in rows.items():
        good = np.logical_and(*(readable(column) for column in own.texts.columns))
        if not good.any():
            raise DataError(f"{own.where} holds no row with a source and a target; there is nothing to learn from.")
        kept[split] = own.keep(good)
        empty += len(own) - len(kept[split])
    return kept, empty


def _draw_missing(rows: Mapping[str, TextRows], config: ParallelDataConfig) -> tuple[dict[str, TextRows], Notes]:
    """Draw the splits that are missing from the training rows."""
    found, total = dict(rows), len(rows["train"])
    wanted = {
        "test": config.test_size or max(1, round(config.test_fraction * total)),
        "validation": config.validation_size or max(1, round(config.validation_fraction * total)),
    }
    missing = {split: size for split, size in wanted.items() if split not in rows}
    splits.refuse_idle_fractions(config, [split for split in missing if getattr(config, f"{split}_size") is None])
    if sum(missing.values()) >= total:
        raise ConfigError(f"The data has {counted(total)}, too few to draw {_parts(missing)}; give more.")
    for split, size in missing.items():
        found[split], found["train"] = splits.part(found["train"], split, size, config.split_seed)
    if not missing:
        return found, []
    return found, [f"Of {total:,} rows, {_parts(missing)} were drawn with split seed {config.split_seed}."]


def _separate(rows: Mapping[str, TextRows]) -> tuple[dict[str, TextRows], Counter[str]]:
    """Take rows whose source or target stands in a later split out of the earlier one."""
    separate, leaked = dict(rows), Counter[str]()
    for split, later in (("validation", ("test",)), ("train", ("validation", "test"))):
        others = [separate[other] for other in later if other in rows]
        if split not in rows or not others:
            continue
        own = rows[split]
        fresh = np.logical_and(
            *(overlap.not_in(own.only(side), [other.only(side) for other in others]) for side in own.texts.column_names)
        )
        if not fresh.any():
            raise DataError(f"Every {split} row also stands in {' or '.join(later)}; give other rows for {split}.")
        separate[split] = own.keep(fresh)
        leaked[split] = len(own) - len(separate[split])
    return separate, leaked


def _sample(
    rows: Mapping[str, TextRows], tables: Mapping[str, Table], config: ParallelDataConfig
) -> tuple[dict[str, TextRows], Notes]:
    """As many rows as are asked for, of the splits that the sources brought along."""
    sampled, notes = dict(rows), Notes()
    sizes = {"train": config.train_size, "validation": config.validation_size, "test": config.test_size}
    for split, size in sizes.items():
        own = rows[split]
        if size is None or split not in tables:
            continue
        if size > len(own):
            raise ConfigError(f"--{split}-size is {size:,}, and there are {len(own):,} rows for {split}.")
        sampled[split], _ = splits.part(own, f"{split}-size", size, config.split_seed)
        notes.append(f"{size:,} of {len(own):,} {split} rows were drawn.")
    return sampled, notes


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
