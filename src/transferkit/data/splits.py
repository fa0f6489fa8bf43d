"""Seeded draws: splits that a source lacks, and samples of a given size; stratified where there are labels."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol, Self, TypeVar

import numpy as np

from transferkit.config import DataConfig, ParallelDataConfig
from transferkit.data.rows import Indices, Mask, TextRows, counted
from transferkit.errors import ConfigError, DataError

# Each draw has a stream of its own, so that asking for one never changes the rows of another.
_STREAMS = {"test": 0, "validation": 1, "test-size": 2, "train-size": 3, "validation-size": 4}


class LabelledRows(Protocol):
    """What a stratified draw asks of rows, of texts or of anything else."""

    @property
    def labels(self) -> Indices:
        """The number of each row's class, [rows]."""

    @property
    def where(self) -> str:
        """How messages call the rows."""

    def __len__(self) -> int: ...

    def keep(self, mask: Mask) -> Self:
        """Those for which `mask` [rows] is true, in their own order."""


AnyRows = TypeVar("AnyRows", bound=LabelledRows)


def refuse_idle_fractions(config: DataConfig | ParallelDataConfig, drawn: Collection[str]) -> None:
    """Whether every share that is set has a split that is `drawn` by it.

    Raises:
        ConfigError: one has not.
    """
    for split in ("validation", "test"):
        name = f"{split}_fraction"
        if split not in drawn and getattr(config, name) != type(config).model_fields[name].default:
            raise ConfigError(
                f"data.{name} has no effect: the {split} rows are not drawn by their share; leave it out."
            )


def draw_missing(train: AnyRows, fractions: dict[str, float], names: tuple[str, ...], seed: int) -> dict[str, AnyRows]:
    """Split `train` into what stays for training and one part per entry of `fractions` (of all its rows).

    Every class has at least one row in every part; rows keep the order of the source.

    Raises:
        DataError: a class has fewer rows than there are parts.
    """
    parts = len(fractions) + 1
    counts = np.bincount(train.labels, minlength=len(names))
    if (counts < parts).any():
        rare = int(np.argmin(counts))
        raise DataError(
            f"{train.where}: the class {names[rare]!r} has {counted(int(counts[rare]))}, too few to split in "
            f"{parts} parts (train, {', '.join(reversed(fractions))}); add rows of it, leave it out, or "
            "give the missing splits as files."
        )
    total, drawn = len(train), {}
    for left, (split, fraction) in zip(range(len(fractions), 0, -1), fractions.items(), strict=True):
        size = max(round(fraction * total), len(names))
        mask = _draw(train.labels, size, left, np.random.default_rng((seed, _STREAMS[split])))
        drawn[split], train = train.keep(mask), train.keep(~mask)
    return {"train": train, **drawn}


def sample(rows: AnyRows, split: str, size: int, seed: int) -> AnyRows:
    """A stratified sample of `size` rows of a split, with at least one of every class present.

    Raises:
        ConfigError: there are fewer rows than `size`, or more classes.
    """
    option, classes = f"--{split}-size", len(np.unique(rows.labels))
    if size > len(rows):
        raise ConfigError(
            f"{option} is {size:,}, and there are {len(rows):,} rows for {split} in {rows.where}; "
            "ask for fewer, or leave it out."
        )
    if size < classes:
        raise ConfigError(f"{option} is {size}, and {rows.where} has {classes} classes; ask for at least {classes}.")
    return rows.keep(_draw(rows.labels, size, 0, np.random.default_rng((seed, _STREAMS[f"{split}-size"]))))


def part(rows: TextRows, stream: str, size: int, seed: int) -> tuple[TextRows, TextRows]:
    """A draw of `size` rows that looks at no label, and the others; both keep the order of the source."""
    mask = np.zeros(len(rows), dtype=bool)
    mask[np.random.default_rng((seed, _STREAMS[stream])).permutation(len(rows))[:size]] = True
    return rows.keep(mask), rows.keep(~mask)


def _draw(labels: Indices, size: int, reserve: int, random: np.random.Generator) -> Mask:
    """A mask of `size` rows, drawn from each class by its share; `reserve` of each class are left."""
    mask = np.zeros(len(labels), dtype=bool)
    counts = np.bincount(labels)
    for label, number in enumerate(_shares(counts, size, reserve)):
        mask[random.permutation(np.flatnonzero(labels == label))[:number]] = True
    return mask


def _shares(counts: Indices, size: int, reserve: int) -> Indices:
    """Split `size` by largest remainder: at least one of each class present, at most all but `reserve`."""
    quota = size * counts / counts.sum()
    most = np.maximum(counts - reserve, 0)
    shares: Indices = np.clip(np.floor(quota).astype(np.int64), np.minimum(1, most), most)
    while shares.sum() < min(size, most.sum()):
        shares[np.argmax(np.where(shares < most, quota - shares, -np.inf))] += 1
    while shares.sum() > size:
        shares[np.argmax(np.where(shares > 1, shares - quota, -np.inf))] -= 1
    return shares
