"""CSV by RFC 4180 and tab-separated files, streamed: every cell is text, every row as long as the header."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from transferkit.data.chunks import CHUNK_ROWS, Chunk, refuse_repeated
from transferkit.data.text_lines import FileOptions, lines
from transferkit.errors import DataError

# A whole document may stand in one cell. The limit is of the csv module as a whole, not of one reader;
# 2**31 - 1 is the most that a C long holds on every platform.
_LONGEST_FIELD = 2**31 - 1


@dataclass(frozen=True)
class Dialect:
    """What stands between two cells, and whether quotes enclose cells or are text."""

    delimiter: str
    quoted: bool


def chunks(path: Path, dialect: Dialect, options: FileOptions) -> Iterator[Chunk]:
    """The rows below the header; at least one chunk, so that the columns of a file without rows are known.

    Raises:
        DataError: the file is empty, or a row is ragged or mis-quoted; the message names the line.
    """
    rows = _rows(path, dialect, options)
    _, first = next(rows, (0, None))
    if first is None:
        raise DataError(f"{path} is empty; it needs a header line and rows.")
    header = _header(path, first, dialect)
    starts: list[int] = []
    cells: list[list[str]] = []
    for line, row in rows:
        if len(row) != len(header):
            raise _ragged(path, line, len(row), len(header), dialect)
        starts.append(line)
        cells.append(row)
        if len(cells) == CHUNK_ROWS:
            yield _chunk(header, starts, cells)
            starts, cells = [], []
    yield _chunk(header, starts, cells)


def _rows(path: Path, dialect: Dialect, options: FileOptions) -> Iterator[tuple[int, list[str]]]:
    """Each row with the line it starts on; blank lines are passed over."""
    csv.field_size_limit(_LONGEST_FIELD)
    record: list[str] = []

    def remembered() -> Iterator[str]:
        for line in lines(path, options.encoding):
            record.append(line)
            yield line

    reader = csv.reader(
        remembered(),
        delimiter=dialect.delimiter,
        quoting=csv.QUOTE_MINIMAL if dialect.quoted else csv.QUOTE_NONE,
        strict=True,
    )
    well_quoted = _record_pattern(dialect.delimiter)
    start = 1
    try:
        for row in reader:
            if dialect.quoted and any('"' in cell for cell in row) and not well_quoted.fullmatch("".join(record)):
                raise _misquoted(path, start, "a quote stands inside a cell that is not quoted")
            if row:
                yield start, row
            start = reader.line_num + 1
            record.clear()
    except csv.Error as error:
        unclosed = "unexpected end" in str(error)
        raise _misquoted(path, start, "a quote is opened and never closed" if unclosed else str(error)) from None


def _record_pattern(delimiter: str) -> re.Pattern[str]:
    """RFC 4180, section 2: a cell is quoted as a whole, or holds no quote; the csv module lets `a"b` pass."""
    cell = rf'(?:"[^"]*+(?:""[^"]*+)*+"|[^"\r\n{delimiter}]*+)'
    return re.compile(rf"{cell}(?:{delimiter}{cell})*+\r?\n?")


def _header(path: Path, cells: list[str], dialect: Dialect) -> list[str]:
    names = [cell.strip() for cell in cells]
    refuse_repeated(names, f"{path}, line 1", "the first line must name every column, and each name once")
    other = next((mark for mark in (";", "\t", ",") if mark in names[0]), None)
    if len(names) == 1 and other is not None:
        raise DataError(
            f"{path}, line 1: the columns seem to be separated by {other!r}, and {dialect.delimiter!r} is "
            "expected; save the file with commas as .csv or with tabs as .tsv."
        )
    return names


def _chunk(header: list[str], starts: list[int], cells: list[list[str]]) -> Chunk:
    columns = zip(*cells, strict=True) if cells else [()] * len(header)
    return Chunk(pa.record_batch([pa.array(column, pa.string()) for column in columns], names=header), starts)


def _ragged(path: Path, line: int, found: int, expected: int, dialect: Dialect) -> DataError:
    if dialect.quoted:
        advice = "quote the cells that hold the separator, or read quotes as text with --quoting none"
    else:
        advice = "a cell may not hold the separator; where quotes enclose cells, give --quoting csv"
    return DataError(f"{path}, line {line}: the row has {found} cells and the header has {expected}; {advice}.")


def _misquoted(path: Path, line: int, what: str) -> DataError:
    return DataError(
        f"{path}, line {line}: the row is mis-quoted: {what}. Quote the whole cell and double the quotes "
        "inside it, or read quotes as text with --quoting none."
    )
