"""JSON lines: one object a line, streamed; every value becomes text, so columns may mix kinds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from transferkit.data.chunks import CHUNK_ROWS, Chunk
from transferkit.data.text_lines import FileOptions, lines
from transferkit.errors import DataError

_HALF = re.compile("[\\ud800-\\udfff]")
Row = tuple[int, dict[str, Any]]


def chunks(path: Path, options: FileOptions) -> Iterator[Chunk]:
    """The objects of a file; the columns are the keys met in the first chunk, a key that is absent is null.

    Raises:
        DataError: the file is empty, a line is not a JSON object, or with `options.whole` has a key that is met later;
            the message names the line.
    """
    rows = _rows(path, options)
    first = list(islice(rows, CHUNK_ROWS))
    if not first:
        raise DataError(f"{path} is empty; it needs one JSON object a line.")
    names = list(dict.fromkeys(chain.from_iterable(row for _, row in first)))
    yield _chunk(path, names, first)
    while part := list(islice(rows, CHUNK_ROWS)):
        if options.whole:
            _refuse_late(path, names, part)
        yield _chunk(path, names, part)


def _rows(path: Path, options: FileOptions) -> Iterator[Row]:
    for number, line in enumerate(lines(path, options.encoding), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line, parse_constant=lambda _: None)
        except json.JSONDecodeError as error:
            advice = "each line must be one whole JSON object"
            raise DataError(f"{path}, line {number}: not JSON ({error.msg}, column {error.colno}); {advice}.") from None
        except (ValueError, RecursionError):
            raise DataError(
                f"{path}, line {number}: holds a number of thousands of digits, or thousands of brackets in "
                "one another; leave the line out."
            ) from None
        if not isinstance(value, dict):
            raise DataError(
                f"{path}, line {number}: holds a JSON {type(value).__name__}; each line must be one object, "
                'such as {"text": "...", "label": "..."}.'
            )
        yield number, value


def _chunk(path: Path, names: list[str], rows: list[Row]) -> Chunk:
    columns = [[_text(row.get(name)) for _, row in rows] for name in names]
    try:
        batch = pa.record_batch([pa.array(column, pa.string()) for column in columns], names=names)
    except UnicodeEncodeError:
        for number, row in rows:
            refuse_half_characters(row, f"{path}, line {number}")
        raise
    return Chunk(batch, [number for number, _ in rows])


def _refuse_late(path: Path, names: list[str], rows: list[Row]) -> None:
    late = ((number, key) for number, row in rows for key in row if key not in names)
    if found := next(late, None):
        number, key = found
        raise DataError(
            f"{path}, line {number}: has the key {key!r}, which none of the first {CHUNK_ROWS:,} rows has; "
            "give it to the first row too, as null."
        )


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def refuse_half_characters(value: Any, place: str) -> None:
    """Refuse half of a surrogate pair, which JSON may write, as \\ud83d, and no text can hold.

    Args:
        value: what was read of JSON.
        place: what the message calls the place where it stands.

    Raises:
        DataError: a key or a text of `value` holds one.
    """
    if _HALF.search(json.dumps(value, ensure_ascii=False)):
        raise DataError(f"{place}: holds half of a surrogate pair (\\ud800 to \\udfff); mend the escape.") from None
