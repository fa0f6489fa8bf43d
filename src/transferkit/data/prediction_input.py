"""Texts to predict, streamed from a file: rows without labels, a batch at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from transferkit.data import columns, tabular
from transferkit.data.blanks import is_blank
from transferkit.data.chunks import Chunk
from transferkit.data.tables import Table
from transferkit.data.text_lines import FileOptions
from transferkit.environment import user_path
from transferkit.errors import ConfigError, DataError

# A row as it stands in the file, each cell a text (or a list or object of JSON), and its text (or the two of a pair).
InputRow = tuple[dict[str, Any], tuple[str, ...]]


def iter_texts(
    path: str | Path,
    *,
    is_pair: bool,
    may_be_empty: bool = False,
    named: Sequence[str] = (),
    usual: Sequence[str] = (),
    added: Sequence[str] = (),
    options: FileOptions = FileOptions(),  # noqa: B008
    batch_size: int = 1024,
    said: Callable[[str], None] = lambda _: None,
) -> Iterator[list[InputRow]]:
    """Batches of rows of a CSV, TSV, JSON lines or Parquet file, without holding the file.

    What is wrong with the file as a whole is said by the call, before there is a first batch.

    Args:
        path: the file.
        is_pair: whether two texts make a row.
        may_be_empty: whether a row without a text is one all the same.
        named: the text column, or the two of a pair, as the user names them; they must be there.
        usual: the columns that the model was trained on, taken where nothing is named and the file has them.
        added: the columns that are written beside those of the file, which may have none of these names.
        options: encoding and quoting.
        batch_size: the most rows of a batch.
        said: hears a sentence where the file has other columns than the usual ones.

    Raises:
        DataError: the file or a column is missing, a column has the name of an added one, or a row lacks the text
            that it needs; the message names the column or the line.
        ConfigError: an option says nothing about a file of this kind, or `named` are not one column for each text.
    """
    _check_number(named, 2 if is_pair else 1)
    path = user_path(path)
    if not path.is_file():
        raise tabular.missing(path)
    kind, parts = tabular.chunks(path, replace(options, whole=True))
    tabular.refuse_idle(options, kind.options, str(path))
    first = next(parts)
    if not first.batch.num_rows:
        raise DataError(f"{path} has columns and no rows; there is nothing to predict.")
    table = Table(pa.Table.from_batches([first.batch]), str(path), kind.has_header)
    _check_free(path, table.columns.column_names, added)
    texts = columns.find_texts(table, named or usual, is_pair=is_pair, named=bool(named), option="--column")
    _check_text(path, table.columns.schema, texts)
    if not named and usual and list(texts) != list(usual):
        absent = [name for name in usual if name not in table.columns.column_names]
        said(f"{path} has no column {_both(absent)}; read is {_both(texts)}. --column names another.")
    return _batches(path, chain([first], parts), texts, batch_size, may_be_empty)


def _batches(
    path: Path, parts: Iterable[Chunk], texts: tuple[str, ...], size: int, may_be_empty: bool
) -> Iterator[list[InputRow]]:
    for chunk in parts:
        for start in range(0, chunk.batch.num_rows, size):
            rows = _rows(chunk, start, size)
            if not may_be_empty:
                _refuse_empty(path, chunk.starts[start : start + size], rows, texts)
            yield [(row, tuple(row[name] for name in texts)) for row in rows]


def _both(names: Sequence[str]) -> str:
    return " and ".join(map(repr, names))


def _check_free(path: Path, names: Sequence[str], added: Sequence[str]) -> None:
    taken = next((name for name in added if name in names), None)
    if taken is not None:
        raise DataError(f"{path} has a column {taken!r} already, which the answers would replace; rename it.")


def _check_text(path: Path, schema: pa.Schema, texts: Sequence[str]) -> None:
    for name in texts:
        kind = schema.field(name).type
        held = "lists or structures" if pa.types.is_nested(kind) else "bytes" if _is_binary(kind) else None
        if held is not None:
            raise DataError(f"{path}: the column {name!r} holds {held}, not text; name a column of text with --column.")


def _is_binary(kind: pa.DataType) -> bool:
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


def _check_number(named: Sequence[str], wanted: int) -> None:
    if named and not len(named) == len(set(named)) == wanted:
        reads, advice = {1: ("single texts", "one column"), 2: ("pairs of texts", "two columns")}[wanted]
        raise ConfigError(
            f"The run reads {reads}, and --column names {', '.join(map(repr, named))}; name {advice} with it."
        )


def _rows(chunk: Chunk, start: int, size: int) -> list[dict[str, Any]]:
    nested = {field.name for field in chunk.batch.schema if pa.types.is_nested(field.type)}
    return [
        {name: _json(value) if name in nested else _text(value) for name, value in record.items()}
        for record in chunk.batch.slice(start, size).to_pylist()
    ]


def _refuse_empty(path: Path, lines: Sequence[int], rows: Sequence[dict[str, Any]], texts: Sequence[str]) -> None:
    for line, row in zip(lines, rows, strict=True):
        empty = next((name for name in texts if is_blank(row[name])), None)
        if empty is not None:
            raise DataError(f"{path}, line {line}: the column {empty!r} is empty; give it a text or leave the row out.")


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _json(value: Any) -> Any:
    """A list or an object of what JSON knows: all else in it as text, and nothing for what is not a number."""
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    if isinstance(value, dict):
        return {name: _json(item) for name, item in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)
