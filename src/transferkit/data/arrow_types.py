"""Column types: one for text, and dictionary columns for named classes (`datasets.ClassLabel`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def plain_type(kind: pa.DataType) -> pa.DataType:
    """`string` for every way in which Arrow stores text, and any other type as it is."""
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    return pa.string() if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) else kind


def is_left_out(kind: pa.DataType) -> bool:
    """Whether a column is of lists or of objects that hold more than texts, which nothing here reads."""
    texts = pa.types.is_struct(kind) and all(plain_type(field.type) == pa.string() for field in kind)
    return pa.types.is_nested(kind) and not texts


def with_class_names(table: pa.Table, features: Mapping[str, Any]) -> pa.Table:
    """The table with each column of named classes as a dictionary column, which keeps names and order."""
    from datasets import ClassLabel

    for name, kind in features.items():
        if isinstance(kind, ClassLabel):
            table = table.set_column(table.column_names.index(name), name, _named(table[name], kind.names))
    return table


def _named(ids: pa.ChunkedArray, names: list[str]) -> pa.ChunkedArray:
    """Class numbers as names; -1, by which data sets of the hub mark a missing label, becomes null."""
    codes = pc.if_else(pc.less(ids, 0), None, ids).cast(pa.int32())
    kind = pa.dictionary(pa.int32(), pa.string())
    dictionary = pa.array(names, pa.string())
    return pa.chunked_array([pa.DictionaryArray.from_arrays(chunk, dictionary) for chunk in codes.chunks], kind)
