"""Which two columns of a table are translations of each other: named by the user, or found by their usual forms."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from transferkit.data import workspace
from transferkit.data.arrow_types import plain_type
from transferkit.data.columns import unlike_text
from transferkit.data.json_lines import refuse_half_characters
from transferkit.data.tables import Table
from transferkit.errors import ConfigError, DataError, did_you_mean

Languages = tuple[str, str]
# The column that data sets of the hub keep both languages in, an object by language.
_TRANSLATION = "translation"
_USUAL = (("source", "target"), ("src", "tgt"), ("src", "trg"))
# As en, it or pt-BR.
_CODE = re.compile(r"[a-z]{2}([-_][A-Za-z]{2})?")


def select(table: Table, languages: Languages | None, known: Languages | None = None) -> tuple[pa.Table, Languages]:
    """The columns `source` and `target` as text, and what the table calls them.

    Args:
        table: two text columns, or a column `translation` of objects by language, and others that do not count.
        languages: the two as the user names them, or None to find them.
        known: those of another table, which are taken where they are there and `languages` is None.

    Raises:
        DataError: a language is not there, or it is not clear which two are meant.
        ConfigError: one language is named twice.
    """
    if languages is not None and languages[0] == languages[1]:
        raise ConfigError(f"--pair names {languages[0]!r} twice; a translation needs two languages.")
    names = table.columns.column_names
    columns = table.columns
    if _TRANSLATION in names and not set(languages or ()) & set(names) and _holds_objects(columns[_TRANSLATION]):
        columns = _by_language(columns[_TRANSLATION], table.where)
    if languages is None:
        languages = known if known and set(known) <= set(columns.column_names) else _found(columns, table.where)
    texts = [_text(columns, name, table.where) for name in languages]
    return pa.table(texts, names=["source", "target"]), languages


def _text(columns: pa.Table, name: str, where: str) -> pa.ChunkedArray:
    if name not in columns.column_names:
        raise DataError(f"{where} has no column or language {name!r}.{did_you_mean(name, columns.column_names)}")
    column = columns[name]
    if plain_type(column.type) != pa.string():
        raise DataError(f"{where}: the column {name!r} holds {unlike_text(column)}, not text; name two others.")
    return _composed(column.cast(pa.string()))


def _composed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A letter and its accent as one character (Unicode's NFC), as tokenizers write them.

    Two that look the same are then the same, so that a perfect translation is scored as one.
    """

    def of_chunk(chunk: pa.Array) -> pa.Array:
        composed = pc.utf8_normalize(chunk, form="NFC")
        # One that was in this form already stays where it is, which may be on the disk.
        return chunk if composed.equals(chunk) else composed

    return pa.chunked_array([of_chunk(chunk) for chunk in column.chunks], pa.string())


def _found(columns: pa.Table, where: str) -> Languages:
    """The only two columns of text, or the only two that are called as languages usually are."""
    texts = [name for name in columns.column_names if unlike_text(columns[name]) is None]
    by_name = {name.lower(): name for name in texts}
    usual = next(([by_name[one], by_name[two]] for one, two in _USUAL if {one, two} <= by_name.keys()), [])
    for names in (texts, usual, [name for name in texts if _CODE.fullmatch(name)]):
        if len(names) == 2:
            return names[0], names[1]
    if len(texts) < 2:
        there = f"the text column {texts[0]} alone" if texts else "no text column"
        raise DataError(
            f"{where} has {there}; a translation needs two: add the translations as a column, or name two files whose "
            "lines belong together with --data and --target-data."
        )
    raise DataError(f"{where} has the text columns {', '.join(texts)}; say with --pair which is translated into which.")


def _holds_objects(column: pa.ChunkedArray) -> bool:
    """Whether a column is of objects, as such or as JSON; the first that is there tells."""
    if pa.types.is_struct(column.type):
        return True
    if plain_type(column.type) != pa.string():
        return False
    present = column.drop_null()
    return len(present) > 0 and present[0].as_py().lstrip().startswith("{")


def _by_language(column: pa.ChunkedArray, where: str) -> pa.Table:
    """Objects such as {"en": "Hello.", "it": "Ciao."} as a column for each language."""
    if pa.types.is_struct(column.type):
        return pa.table({field.name: pc.struct_field(column, field.name) for field in column.type})
    parts = _objects(column, where)
    head = next(parts)
    schema = pa.schema([(name, pa.string()) for name in dict.fromkeys(chain.from_iterable(head))])
    batches = (pa.RecordBatch.from_pylist(part, schema=schema) for part in chain([head], parts))
    return workspace.open_table(workspace.write(batches, schema))


def _objects(column: pa.ChunkedArray, where: str) -> Iterator[list[dict[str, Any]]]:
    """The objects of each chunk; the languages are those met in the first one, as with the keys of JSON lines."""
    row = 0
    for chunk in column.chunks:
        texts = chunk.to_pylist()
        yield [{} if text is None else _object(text, row + number, where) for number, text in enumerate(texts, start=1)]
        row += len(texts)


def _object(text: str, row: int, where: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        # Not JSON, a number of thousands of digits, or thousands of brackets in one another.
        found = None
    if isinstance(found, dict) and all(value is None or isinstance(value, str) for value in found.values()):
        refuse_half_characters(found, f"{where}, row {row:,}, the column translation")
        return found
    raise DataError(
        f"{where}, row {row:,}: the column translation does not hold an object of texts by language, such as "
        '{"en": "Hello.", "it": "Ciao."}; mend the row, or name two text columns with --pair.'
    )
