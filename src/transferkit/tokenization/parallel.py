"""The tokenizers of a translator: one for both languages or one each, and what they make of the rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from transferkit.config import TokenizerConfig
from transferkit.data import workspace
from transferkit.data.parallel_batching import ParallelTable
from transferkit.environment import uncollected, user_path
from transferkit.errors import ConfigError, DataError, RunError
from transferkit.formatting import clip
from transferkit.tokenization.trained import TrainedTokenizer

if TYPE_CHECKING:
    from transferkit.data.parallel import ParallelData
    from transferkit.data.rows import Indices

_JOINT, _SIDES = "joint.json", ("source.json", "target.json")
_WINDOW = 1 << 12
_SCHEMA = pa.schema([(name, pa.list_(pa.int32())) for name in ("source", "target")])


@dataclass(frozen=True)
class Tokenizers:
    """Of the source and of the target; the same one where it is joint."""

    source: TrainedTokenizer
    target: TrainedTokenizer

    @property
    def is_joint(self) -> bool:
        """Whether both languages share a vocabulary."""
        return self.source is self.target

    @property
    def sizes(self) -> tuple[int, int]:
        """Entries of the source and of the target vocabulary."""
        return len(self.source), len(self.target)

    @classmethod
    def build(cls, data: ParallelData, config: TokenizerConfig) -> Tokenizers:
        """Read those that `config` names, or train them on the training rows.

        Raises:
            DataError: there are none to read, or nothing to learn from.
            ConfigError: those to read are one for each language, the other way round.
        """
        if config.folder is not None:
            folder = user_path(config.folder)
            found = cls.load(folder)
            if not found.is_joint and _languages(folder) == data.languages[::-1]:
                source, target = data.languages
                raise ConfigError(
                    f"The tokenizers in {config.folder} are from {target!r} into {source!r}, and the data is from "
                    f"{source!r} into {target!r}; turn it round with --pair, or leave tokenizer.folder out."
                )
            return found
        sides = [_texts(data, side) for side in ("source", "target")]
        corpora = [chain(*sides)] if config.joint else sides
        trained = [
            TrainedTokenizer.train(corpus, config.kind, config.vocabulary, config.min_frequency) for corpus in corpora
        ]
        return cls(trained[0], trained[-1])

    @classmethod
    def load(cls, folder: Path) -> Tokenizers:
        """Read what `save` wrote into `folder`, or into the folder `tokenizer` of a run.

        Raises:
            DataError: there are none, or one is damaged.
        """
        inside = folder / "tokenizer" if (folder / "tokenizer").is_dir() else folder
        if (inside / _JOINT).is_file():
            joint = TrainedTokenizer.load(inside / _JOINT)
            return cls(joint, joint)
        if not any((inside / name).is_file() for name in _SIDES):
            raise DataError(
                f"There are no tokenizers in {folder}; name the folder of a whole translation run, or of tokenizers."
            )
        return cls(*(TrainedTokenizer.load(inside / name) for name in _SIDES))

    @classmethod
    def of_run(cls, folder: Path, expected: str) -> Tokenizers:
        """Those that a run was trained with, by their hash.

        Raises:
            DataError: there are none.
            RunError: they are others.
        """
        found = cls.load(folder)
        if found.hash() != expected:
            raise RunError(f"The tokenizers in {folder / 'tokenizer'} are not those that the run was trained with.")
        return found

    def save(self, folder: Path) -> None:
        """Write a JSON file for each tokenizer."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.is_joint:
            self.source.save(folder / _JOINT)
        else:
            for one, name in zip((self.source, self.target), _SIDES, strict=True):
                one.save(folder / name)

    def hash(self) -> str:
        """SHA-256 of all that decides how both sides become ids."""
        return hashlib.sha256(f"{self.source.hash()} {self.target.hash()}".encode()).hexdigest()


@dataclass(frozen=True)
class Tokenized:
    """The rows of a split that are short enough, and what was seen of all of them."""

    table: ParallelTable
    kept: Indices
    # Tokens of source and target with their ends, of all rows: int32 [rows] each.
    lengths: tuple[np.ndarray, np.ndarray]
    unknown: int  # tokens that the vocabulary lacks

    @property
    def too_long(self) -> int:
        """How many rows were left out."""
        return len(self.lengths[0]) - len(self.kept)


@uncollected()
def tokenize(data: ParallelData, split: str, tokenizers: Tokenizers, max_length: int, is_strict: bool) -> Tokenized:
    """Tokenize a split into memory-mapped ids.

    Args:
        data: the rows.
        split: which of them.
        tokenizers: of both sides.
        max_length: the most tokens of a source or a target, its end among them; longer rows are left out.
        is_strict: refuse them instead.

    Raises:
        DataError: a row is too long and `is_strict`, or all of them are.
    """
    sides = (tokenizers.source, tokenizers.target)
    kept: list[np.ndarray] = []
    lengths: list[list[np.ndarray]] = [[], []]
    unknown, first = 0, 0

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal unknown, first
        for rows in data.splits[split].iter(_WINDOW):
            ids = [
                [[*row, one.end_id] for row in one.encode(rows[name])]
                for one, name in zip(sides, ("source", "target"), strict=True)
            ]
            own = [np.array([len(row) for row in column], dtype=np.int32) for column in ids]
            good = np.maximum(*own) <= max_length
            if is_strict and not good.all():
                row = int(np.argmin(good))
                raise _too_long(rows["source"][row], first + row, [int(side[row]) for side in own], split)
            for column, new in zip(lengths, own, strict=True):
                column.append(new)
            unknown += sum(row.count(sides[0].unknown_id) for column in ids for row in column)
            kept.append(first + np.flatnonzero(good))
            first += len(good)
            columns = [[row for row, is_good in zip(column, good, strict=True) if is_good] for column in ids]
            yield pa.record_batch([pa.array(column, pa.list_(pa.int32())) for column in columns], schema=_SCHEMA)

    table = workspace.open_table(workspace.write(batches(), _SCHEMA))
    if not len(table):
        raise DataError(f"Every {split} row is longer than {max_length} tokens; raise --max-length.")
    return Tokenized(
        ParallelTable.from_arrow(table, sides[1].start_id, sides[1].padding_id),
        np.concatenate(kept),
        (np.concatenate(lengths[0]), np.concatenate(lengths[1])),
        unknown,
    )


def _too_long(text: str, row: int, lengths: list[int], split: str) -> DataError:
    source, target = lengths
    return DataError(
        f"Row {row + 1:,} of {split} ({clip(text, 40)!r}) has {source} and {target} tokens, more than --max-length "
        "allows; raise it, or leave such rows out with --on-too-long drop."
    )


def _texts(data: ParallelData, side: str) -> Iterator[str]:
    for rows in data.splits["train"].select_columns([side]).iter(_WINDOW):
        yield from rows[side]


def _languages(folder: Path) -> tuple[str, str] | None:
    """From which language into which the run translates whose folder this is, or whose folder `tokenizer`.

    None where no run says so.
    """
    for file in (folder / "run.json", folder.parent / "run.json"):
        try:
            source, target = json.loads(file.read_text(encoding="utf-8"))["data"]["languages"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        return source, target
    return None
