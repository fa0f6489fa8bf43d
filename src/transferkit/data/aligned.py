"""Two text files whose lines belong together, plain or gzipped."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, zip_longest
from pathlib import Path

import pyarrow as pa

from transferkit.data import tabular, workspace
from transferkit.data.chunks import CHUNK_ROWS
from transferkit.data.languages import Languages
from transferkit.data.tables import Source, Table
from transferkit.data.text_lines import FileOptions, lines
from transferkit.environment import user_path
from transferkit.errors import ConfigError, DataError


def read(source: str, target: str, languages: Languages | None, options: FileOptions) -> Source:
    """A column for each file.

    Args:
        source: the one file.
        target: the other.
        languages: what the columns are called; None for what the names of the files do not share, en and it for
            `talks.en.gz` and `talks.it.gz`. If they are the two found names in another order, each file keeps its own
            name; if they are two others, the files are called by them.
        options: how the characters are read.

    Raises:
        DataError: a file is not there or not text, or one has more lines than the other.
        ConfigError: one of the found names is among `languages`, and the other is not.
    """
    paths = (user_path(source), user_path(target))
    for path in paths:
        if not path.is_file():
            raise tabular.missing(path)
    names = _names(*paths)
    if languages is not None:
        names = _renamed(names, languages)
    schema = pa.schema([(name, pa.string()) for name in names])
    table = workspace.open_table(workspace.write(_batches(paths, schema, options), schema))
    where = f"{paths[0]} and {paths[1]}"
    if not len(table):
        raise DataError(f"{where} are empty; there is nothing to learn from.")
    return Source({"train": Table(table, where)}, options_used=frozenset({"encoding"}))


def _names(source: Path, target: Path) -> Languages:
    if source == target:
        raise DataError(f"{source} is given as source and as target; name two files.")
    names = [path.name.removesuffix(".gz") for path in (source, target)]
    endings = [Path(name).suffix.removeprefix(".") or name for name in names]
    for first, second in (endings, names, [str(source), str(target)]):
        if first != second:
            break
    return first, second


def _renamed(names: Languages, languages: Languages) -> Languages:
    """What two files of these names are called where the user names `languages`."""
    shared = len(set(names) & set(languages))
    if shared == 1:
        raise ConfigError(
            f"--pair names {languages[0]!r} and {languages[1]!r}, and the two files are called {names[0]!r} and "
            f"{names[1]!r}; name these or two others, or leave it out."
        )
    return names if shared else languages


def _batches(paths: tuple[Path, Path], schema: pa.Schema, options: FileOptions) -> Iterator[pa.RecordBatch]:
    both = zip_longest(*(_lines(path, options) for path in paths))
    while rows := list(islice(both, CHUNK_ROWS)):
        sides = list(zip(*rows, strict=True))
        if any(side[-1] is None for side in sides):
            raise _unequal(paths, options)
        texts = [[line.rstrip("\r\n") for line in side] for side in sides]
        yield pa.record_batch([pa.array(side, pa.string()) for side in texts], schema=schema)


def _lines(path: Path, options: FileOptions) -> Iterator[str]:
    """Those that LF ends: a CR within a sentence would shift all pairs behind it."""
    return lines(path, options.encoding, newline="\n")


def _unequal(paths: tuple[Path, Path], options: FileOptions) -> DataError:
    first, second = (sum(1 for _ in _lines(path, options)) for path in paths)
    return DataError(
        f"{paths[0]} has {first:,} lines and {paths[1]} has {second:,}; lines that belong together must have the "
        "same number."
    )
