from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from transferkit.data import columns
from transferkit.data.tables import Table
from transferkit.errors import ConfigError, DataError


def table(*names: str, **values: list[Any]) -> Table:
    text = {name: ["some words", "more words"] for name in names}
    return Table(pa.table(text | values), "data.csv", has_header=True)


def select(of: Table, *texts: str, label: str | None = None, is_pair: bool | None = None) -> tuple[Any, str]:
    found = columns.select(of, texts, label, is_pair=is_pair, named=True)
    return found.text_names, found.label_name


@pytest.mark.parametrize(
    ("names", "texts", "label"),
    [
        (("label", "content"), ("content",), "label"),
        (("title", "description", "class"), ("description",), "class"),
        (("Review Text", "Stars"), ("Review Text",), "Stars"),
        (("product", "consumer_complaint_narrative"), ("consumer_complaint_narrative",), "product"),
        (("Quality", "#1 ID", "#1 String", "#2 String"), ("#1 String", "#2 String"), "Quality"),
        (("premise", "hypothesis", "label"), ("premise", "hypothesis"), "label"),
        (("text", "text_a", "text_b", "label"), ("text_a", "text_b"), "label"),
        (("question", "sentence", "label"), ("question", "sentence"), "label"),
        (("sentence1", "text", "label"), ("text",), "label"),
        (("content", "text", "target", "label"), ("text",), "label"),
    ],
)
def test_columns_are_found_by_their_usual_names(names: tuple[str, ...], texts: tuple[str, ...], label: str) -> None:
    assert select(table(*names)) == (texts, label)
    assert select(table(*reversed(names))) == (texts, label)


def test_a_single_text_is_taken_from_a_table_with_a_pair_where_pairs_are_not_wanted() -> None:
    assert select(table("question", "sentence", "label"), is_pair=False)[0] == ("sentence",)


def test_named_columns_come_before_usual_ones() -> None:
    assert select(table("text", "notes", "label", "kind"), "notes", label="kind") == (("notes",), "kind")


def test_columns_named_for_another_table_are_taken_where_they_are() -> None:
    of = table("text", "notes", "label")
    assert columns.select(of, ("notes",), "label", is_pair=False, named=False).text_names == ("notes",)
    assert columns.select(of, ("absent",), "gone", is_pair=False, named=False).text_names == ("text",)


def test_unknown_columns_offer_the_nearest_names() -> None:
    with pytest.raises(DataError, match=r"no column 'reveiw'. Did you mean review"):
        select(table("review", "label"), "reveiw")
    with pytest.raises(DataError, match=r"no column 'lable'. Did you mean label"):
        select(table("review", "label"), label="lable")


def test_a_first_line_that_is_a_row_is_pointed_at() -> None:
    with pytest.raises(
        DataError, match=r"first line, which names 'Nature is large', 'English'.*put column names above"
    ):
        select(table("Nature is large", "English"))


@pytest.mark.parametrize("labels", [['["joy"]', '["joy", "love"]'], ['{"a": 1}', None]])
def test_lists_and_objects_are_no_labels(labels: list[str | None]) -> None:
    of = Table(pa.table({"text": ["a", "b"], "labels": labels}), "in.jsonl")
    with pytest.raises(DataError, match="the label column 'labels' holds lists or objects, and a row has one label"):
        columns.select(of, (), None, is_pair=False, named=True)


@pytest.mark.parametrize("labels", [["[POS]", "[NEG]"], ["{spam}", "{ham}"]])
def test_names_of_classes_may_stand_in_brackets(labels: list[str]) -> None:
    assert select(table("text", label=labels)) == (("text",), "label")


def test_a_missing_label_or_pair_says_which_option_names_it() -> None:
    with pytest.raises(DataError, match=r"no label column.*--label"):
        select(table("text", "other"))
    with pytest.raises(DataError, match=r"no pair of text columns.*--pair"):
        select(table("text", "label"), is_pair=True)


def test_one_column_cannot_be_two_things() -> None:
    with pytest.raises(ConfigError, match="names the column 'a' twice"):
        select(table("a", "label"), "a", "a")
    with pytest.raises(ConfigError, match="both as text and as label"):
        select(table("a", "label"), "a", label="a")


@pytest.mark.parametrize(
    ("values", "held"),
    [
        ([1, 2], "numbers"),
        ([0.5, None], "numbers"),
        (["1", " -2.5e3"], "numbers"),
        (["1,000", ""], "numbers"),
        ([True, False], "true or false"),
        ([["a"], ["b"]], "lists or structures"),
        (['["a"]', "[]"], "lists"),
        ([{"a": 1}, {"a": 2}], "lists or structures"),
        ([b"a", b"b"], "values of the type binary"),
    ],
)
def test_a_column_that_is_not_text_is_refused_and_text_is_pointed_at(values: list[Any], held: str) -> None:
    with pytest.raises(DataError, match=f"'content' holds {held}, not text; text is in: body"):
        select(table("body", "label", content=values), "content")


@pytest.mark.parametrize("values", [["1", "one"], ["", None], ["[sic] words", "more"]])
def test_words_among_numbers_are_text(values: list[Any]) -> None:
    assert columns.unlike_text(pa.chunked_array([pa.array(values, pa.string())])) is None
