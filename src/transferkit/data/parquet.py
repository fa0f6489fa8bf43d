"""Parquet files, streamed by batches of rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from transferkit.data.arrow_types import is_left_out, plain_type, with_class_names
from transferkit.data.chunks import CHUNK_ROWS, Chunk, refuse_repeated
from transferkit.data.text_lines import FileOptions
from transferkit.errors import DataError, first_line


def chunks(path: Path, options: FileOptions) -> Iterator[Chunk]:
    """The rows of a file; at least one chunk.

    Columns of lists, or of objects other than of texts, keep their type, but without `options.whole` no values. Of the
    other options none counts: a Parquet file says itself how it is to be read.

    Raises:
        DataError: the file is not Parquet, is damaged, or has two columns of one name.
    """
    with _refused(path):
        file = pa.parquet.ParquetFile(path)
        schema = file.schema_arrow
        names = schema.names
    with file:
        refuse_repeated(names, str(path), "give each column a name of its own")
        features = _features(schema)
        flat = [field.name for field in schema if not is_left_out(field.type)]
        row = 1
        for batch in _batches(path, file, None if options.whole else flat):
            table = _conform(pa.Table.from_batches([batch]), schema)
            table = with_class_names(table, features) if features else table
            yield Chunk(table.to_batches()[0], range(row, row + batch.num_rows))
            row += batch.num_rows
        if row == 1:
            yield Chunk(pa.RecordBatch.from_pylist([], schema=schema), [])


def _batches(path: Path, file: pa.parquet.ParquetFile, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
    """The rows with the values of `columns`, or of all."""
    batches = file.iter_batches(CHUNK_ROWS, columns=columns)
    while True:
        with _refused(path):
            batch = next(batches, None)
            if batch is None:
                return
            # A damaged page may still be read, as text that is not UTF-8.
            batch.validate(full=True)
        yield batch


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    """What Arrow cannot read, as an error that names the file."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeError) as error:
        reason = first_line(error).rstrip(".")
        raise DataError(f"{path} cannot be read as Parquet: {reason}; fetch or write the file again.") from None


def _features(schema: pa.Schema) -> Mapping[str, Any]:
    """The column types that `datasets` noted in a file it wrote; none in other files."""
    if b"huggingface" not in (schema.metadata or {}):
        return {}
    # Imported here: prediction reads plain files and is not to wait for a second.
    from datasets import Features

    features: Mapping[str, Any] = Features.from_arrow_schema(schema)
    return features


def _conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """All columns of `schema`, text of every storage kind as plain strings; those that were not read as nulls."""
    read = set(table.column_names)
    columns = {
        field.name: table[field.name].cast(plain_type(field.type))
        if field.name in read
        else pa.nulls(len(table), field.type)
        for field in schema
    }
    return pa.table(columns)
