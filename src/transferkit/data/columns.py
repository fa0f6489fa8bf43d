"""Which columns hold text and label: named by the user, or found by the names that they usually have."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from transferkit.data.arrow_types import plain_type
from transferkit.data.cleaning import readable
from transferkit.data.labels import as_text, is_unlabelled
from transferkit.data.tables import Table
from transferkit.errors import ConfigError, DataError, did_you_mean

# In order of preference; lower case, and only the letters and digits: `Review Text` is `reviewtext`.
TEXT_NAMES = (
    *(
        "text",
        "sentence",
        "content",
        "review",
        "comment",
        "message",
        "body",
        "description",
        "narrative",
        "tweet",
    ),
    *(
        "document",
        "question",
        "consumercomplaintnarrative",
        "texts",
        "fulltext",
        "textraw",
        "rawtext",
        "cleantext",
    ),
    *(
        "reviewtext",
        "reviewbody",
        "commenttext",
        "commentbody",
        "messagetext",
        "tweettext",
        "posttext",
        "post",
    ),
    *("utterance", "query", "snippet", "phrase", "passage", "article", "abstract", "headline", "title"),
)
PAIR_NAMES = (
    *(("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("text1", "text2")),
    *(("texta", "textb"), ("sentencea", "sentenceb"), ("question", "sentence"), ("1string", "2string")),
)
LABEL_NAMES = (
    *(
        "label",
        "labels",
        "class",
        "category",
        "target",
        "sentiment",
        "quality",
        "product",
        "language",
        "stars",
    ),
    *("intent", "topic", "y"),
)
# What every cell of a column without text looks like; a cell may also be blank.
_NUMBERS = r"^\s*([-+]?(\d[\d,]*\.?\d*|\.\d+)([eE][-+]?\d+)?)?\s*$"
_LISTS = r"(?s)^\s*(\[.*\]|\{.*\})?\s*$"


@dataclass(frozen=True)
class Selection:
    """The columns of one table that count: `text` (and `text_pair`), and the label beside them."""

    texts: pa.Table
    label: pa.ChunkedArray  # strings
    order: tuple[str, ...] | None  # of the classes, where the data set has one
    where: str
    text_names: tuple[str, ...]
    label_name: str

    @property
    def is_pair(self) -> bool:
        """Whether each row holds two texts."""
        return len(self.text_names) == 2


def select(table: Table, texts: Sequence[str], label: str | None, *, is_pair: bool | None, named: bool) -> Selection:
    """Find and check the columns of `table`.

    Args:
        table: the raw columns.
        texts: the text column or the two of a pair; empty to find them by their usual names.
        label: the label column, or None to find it likewise.
        is_pair: whether pairs are wanted; None takes a pair where one is wholly there, else a single text.
        named: whether `texts` and `label` are for this table; where not, they are taken if they are there.

    Raises:
        DataError: a column is not there, is not found, or holds no text.
    """
    text_names = find_texts(table, texts, is_pair=is_pair, named=named)
    label_name = find_label(table, label, text_names, named=named)
    if label_name is None:
        others = [name for name in table.columns.column_names if name not in text_names]
        raise _none_found(table, "label column", others, "--label")
    for name in text_names:
        _check_text(table, name, label_name)
    chosen = [table.columns[name].cast(plain_type(table.columns[name].type)) for name in text_names]
    label_texts, order = as_text(table.columns[label_name], table.where)
    if order is None and _all_match(label_texts, _LISTS) and _is_json(label_texts):
        raise DataError(
            f"{table.where}: the label column {label_name!r} holds lists or objects, and a row has one label; name "
            "another with --label, or write one label a row."
        )
    named_texts = pa.table(chosen, names=["text", "text_pair"][: len(chosen)])
    return Selection(named_texts, label_texts, order, table.where, text_names, label_name)


def _is_json(column: pa.ChunkedArray) -> bool:
    """Whether the first cell that is not blank is JSON, as a list of a JSON file is, and a class `[POS]` is not."""
    first = next(value for value in column.to_pylist() if value and value.strip())
    try:
        json.loads(first)
    except ValueError:
        return False
    return True


def find_texts(
    table: Table, texts: Sequence[str], *, is_pair: bool | None, named: bool, option: str | None = None
) -> tuple[str, ...]:
    """The name of the text column, or of the two that are a pair; `option` names them, else --text or --pair does."""
    names = table.columns.column_names
    if len(texts) == 2 and texts[0] == texts[1]:
        raise ConfigError(f"--pair names the column {texts[0]!r} twice; name two columns.")
    missing = [name for name in texts if name not in names]
    if missing and named:
        raise _unknown(table, missing[0])
    if texts and not missing:
        return tuple(texts)
    usual = _by_usual_name(names)
    pairs = [pair for pair in PAIR_NAMES if usual.keys() >= set(pair)] if is_pair is not False else []
    if pairs:
        return tuple(usual[name] for name in pairs[0])
    single = next((usual[name] for name in TEXT_NAMES if name in usual), None)
    if is_pair or single is None:
        what, usual_option = ("pair of text columns", "--pair") if is_pair else ("text column", "--text")
        raise _none_found(table, what, names, option or usual_option)
    return (single,)


def find_label(table: Table, label: str | None, texts: Sequence[str], *, named: bool) -> str | None:
    """The name of the label column, or None where it is not named and has no usual name."""
    names = [name for name in table.columns.column_names if name not in texts]
    if label in names:
        return label
    if label is not None and named:
        if label in texts:
            raise ConfigError(f"The column {label!r} is named both as text and as label; name two columns.")
        raise _unknown(table, label)
    usual = _by_usual_name(names)
    return next((usual[name] for name in LABEL_NAMES if name in usual), None)


def is_labelled(table: Table, label: str, texts: Sequence[str]) -> bool:
    """Whether a table has a label column with any label; the test splits of many benchmarks have none."""
    name = find_label(table, label, texts, named=False)
    return name is not None and not is_unlabelled(as_text(table.columns[name], table.where)[0])


def unlike_text(column: pa.ChunkedArray) -> str | None:
    """What a column holds in place of text, or None where it is text."""
    kind = column.type
    tests = {
        "numbers": pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind),
        "true or false": pa.types.is_boolean(kind),
        "lists or structures": pa.types.is_nested(kind),
        "dates or times": pa.types.is_temporal(kind),
        "named classes": pa.types.is_dictionary(kind),
    }
    held = next((what for what, holds in tests.items() if holds), None)
    if held is not None:
        return held
    if plain_type(kind) != pa.string():
        return f"values of the type {kind}"
    return next((what for what, form in (("numbers", _NUMBERS), ("lists", _LISTS)) if _all_match(column, form)), None)


def _all_match(column: pa.ChunkedArray, form: str) -> bool:
    """Whether every cell has the form; the first thousand tell most columns apart."""
    head = column.slice(0, 1000)
    return bool(
        pc.all(pc.match_substring_regex(head, form)).as_py()
        and pc.all(pc.match_substring_regex(column, form)).as_py()
        and readable(column).any()
    )


def _check_text(table: Table, name: str, label: str) -> None:
    held = unlike_text(table.columns[name])
    if held is None:
        return
    others = [other for other in table.columns.column_names if other not in (name, label)]
    textual = [other for other in others if unlike_text(table.columns[other]) is None]
    advice = f"text is in: {', '.join(textual)}" if textual else "name a column that holds text with --text"
    raise DataError(f"{table.where}: the column {name!r} holds {held}, not text; {advice}.")


def _by_usual_name(names: Sequence[str]) -> dict[str, str]:
    """Column names by their plain form; of two with the same form the first counts."""
    return {re.sub(r"[^a-z0-9]", "", name.lower()): name for name in reversed(names)}


def _unknown(table: Table, name: str) -> DataError:
    return DataError(f"{table.where} has no column {name!r}.{did_you_mean(name, table.columns.column_names)}")


def _none_found(table: Table, what: str, names: Sequence[str], option: str) -> DataError:
    shown = ", ".join(repr(name if len(name) <= 40 else name[:37] + "...") for name in names[:20]) or "nothing"
    if not table.has_header:
        return DataError(f"{table.where}: no {what} has a usual name among {shown}. Name it with {option}.")
    return DataError(
        f"{table.where}: no {what} has a usual name in the first line, which names {shown}. Name it with "
        f"{option}, or, if that line is a row like the others, put column names above it, such as text,label."
    )
