"""Labels as numbers: the map is learnt from the training rows alone and does not depend on their order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transferkit.data.arrow_types import plain_type
from transferkit.data.rows import Indices
from transferkit.errors import ConfigError, DataError
from transferkit.formatting import clip

# pandas writes a column of integers with a gap as 1.0, 2.0.
_WHOLE = re.compile(r"(-?(?:0|[1-9]\d*))(?:\.0+)?")

# Of a label in a message, which is shown as it is up to there: a wrong column may hold whole documents.
_LETTERS = 100
# However few the rows are, this many different labels may be classes.
_FEW = 20


@dataclass(frozen=True)
class LabelMap:
    """The names of the classes in the order of their numbers, and the codes that also stand for them."""

    names: tuple[str, ...]
    codes: tuple[str, ...]  # as the training rows spell them

    @property
    def ids(self) -> Mapping[str, int]:
        """Class numbers by code and by name; where both are used, a code comes first."""
        numbered = {name: number for number, name in enumerate(self.names)}
        return numbered | {code: number for number, code in enumerate(self.codes)}


def as_text(label: pa.ChunkedArray, where: str) -> tuple[pa.ChunkedArray, tuple[str, ...] | None]:
    """A label column as strings, and the order of its classes where the data set has one.

    Raises:
        DataError: the column holds lists, structures or bytes.
    """
    kind = label.type
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raise DataError(f"{where}: the label column holds {kind} values; labels are strings, integers or true/false.")
    if pa.types.is_floating(kind):
        label = pc.if_else(pc.is_nan(label), None, label)
    order = None
    if pa.types.is_dictionary(kind) and label.num_chunks:
        order = tuple(name.strip() for name in label.chunk(0).dictionary.to_pylist())
    return label.cast(plain_type(kind)).cast(pa.string()), order


def is_unlabelled(label: pa.ChunkedArray) -> bool:
    """Whether no row has a label: all are null or -1, as in test splits that benchmarks keep secret."""
    return all(value is None or value.strip() in ("", "-1") for value in pc.unique(label).to_pylist())


def learn(label: pa.Array, order: Sequence[str] | None, label_names: Sequence[str] | None, where: str) -> LabelMap:
    """The map of the classes in the training rows.

    Args:
        label: the labels of the rows in use.
        order: the data set's own order of its classes, if it has one.
        label_names: names for the sorted classes, if the user gives them.
        where: the source, for messages.

    Raises:
        DataError: there is one class only, or more than one for two rows.
        ConfigError: the names are not one for each class.
    """
    values = {value.strip() for value in pc.unique(label).to_pylist()}
    codes = tuple(name for name in order if name in values) if order else _sorted(values)
    if len(codes) == 1:
        raise DataError(f"{where}: every row has the label {_shown(codes[0])!r}; at least two classes are needed.")
    if len(codes) > max(_FEW, len(label) // 2):
        raise DataError(
            f"{where}: the label column has {len(codes):,} different values in {len(label):,} rows: it does "
            "not tell classes apart; name another one with --label."
        )
    if label_names is None:
        return LabelMap(codes, codes)
    return _named(codes, tuple(label_names), where)


def known(names: Sequence[str], label_names: Sequence[str] | None, label: pa.Array, where: str) -> LabelMap:
    """The map of a trained model, whose classes are `names`, for rows with these names or with codes for them.

    Args:
        names: the classes in the order of their numbers.
        label_names: which of them the sorted codes of the rows stand for, if the user says so.
        label: the labels of the rows in use.
        where: the source, for messages.

    Raises:
        ConfigError: `label_names` are not one for each code, are not classes of the model, or are not needed.
    """
    if label_names is None:
        return LabelMap(tuple(names), tuple(names))
    values = {value.strip() for value in pc.unique(label).to_pylist()}
    if values <= set(names):
        raise ConfigError(f"--label-names has no effect: {where} holds the names of the classes; leave it out.")
    given = _named(_sorted(values), tuple(label_names), where)
    foreign = [name for name in given.names if name not in names]
    if foreign:
        raise ConfigError(
            f"--label-names gives the name {foreign[0]!r}, and the run has no such class; it has {_listed(names)}."
        )
    codes = dict(zip(given.names, given.codes, strict=True))
    return LabelMap(tuple(names), tuple(codes.get(name, name) for name in names))


def encode(label: pa.Array, classes: LabelMap, where: str) -> Indices:
    """The class number of each row.

    Raises:
        DataError: there are labels that the map lacks; they are named.
    """
    spelt = pc.unique(label)
    ids = classes.ids
    numbers = [_lookup(value.strip(), ids) for value in spelt.to_pylist()]
    foreign = sorted(value for value, number in zip(spelt.to_pylist(), numbers, strict=True) if number is None)
    if foreign:
        raise _unknown(foreign, len(numbers), classes, where)
    encoded: Indices = np.array(numbers, dtype=np.int64)[pc.index_in(label, value_set=spelt).to_numpy()]
    return encoded


def _sorted(values: set[str]) -> tuple[str, ...]:
    """Whole numbers by size, anything else by its characters; never by the order of rows or of hashing."""
    whole = {match[1] for value in values if (match := _WHOLE.fullmatch(value))}
    if all(_WHOLE.fullmatch(value) for value in values):
        return tuple(sorted(whole, key=int))
    return tuple(sorted(values))


def _lookup(value: str, ids: Mapping[str, int]) -> int | None:
    whole = _WHOLE.fullmatch(value)
    return ids.get(value, ids.get(whole[1]) if whole else None)


def _named(codes: tuple[str, ...], names: tuple[str, ...], where: str) -> LabelMap:
    if len(names) != len(codes) or len(set(names)) != len(names):
        raise ConfigError(
            f"--label-names gives {len(set(names))} different names, and {where} has {len(codes)} classes: "
            f"{_listed(codes)}; give one name for each, in this order."
        )
    if set(names) == set(codes):
        return LabelMap(names, names)
    crossed = [name for number, name in enumerate(names) if name in codes and codes.index(name) != number]
    if crossed:
        raise ConfigError(
            f"--label-names gives the name {crossed[0]!r} to a class, and another is called so in {where}; "
            f"choose names other than {_listed(codes)}."
        )
    return LabelMap(names, codes)


def _unknown(foreign: list[str], found: int, classes: LabelMap, where: str) -> DataError:
    advice = "leave those rows out, or train on rows of these classes too."
    if len(foreign) == found == len(classes.names) and classes.names == classes.codes:
        advice = (
            f"if they are the same {found} classes, name those of the training data with --label-names, "
            f"one name for each of {_listed(classes.names)} in this order."
        )
    return DataError(
        f"{where} holds labels that the training data lacks: {_listed(foreign)}. The training data has "
        f"{_listed(classes.names)}; {advice}"
    )


def _listed(values: Sequence[str]) -> str:
    return ", ".join(_shown(value) for value in values[:20]) + (
        f" and {len(values) - 20} more" if len(values) > 20 else ""
    )


def _shown(label: str) -> str:
    return label if len(label) <= _LETTERS else clip(label, _LETTERS)
