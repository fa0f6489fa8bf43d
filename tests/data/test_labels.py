from __future__ import annotations

import random
from typing import Any

import pyarrow as pa
import pytest

from transferkit.data import labels
from transferkit.errors import ConfigError, DataError


def column(values: list[Any]) -> tuple[pa.Array, tuple[str, ...] | None]:
    texts, order = labels.as_text(pa.chunked_array([pa.array(values)]), "train")
    return texts.drop_null(), order


def learn(values: list[Any], label_names: tuple[str, ...] | None = None) -> labels.LabelMap:
    texts, order = column(values)
    return labels.learn(texts, order, label_names, "train")


def encode(values: list[Any], classes: labels.LabelMap) -> list[int]:
    found: list[int] = labels.encode(column(values)[0], classes, "test").tolist()
    return found


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["pos", "neg", "pos"], ("neg", "pos")),
        ([10, 9, 1], ("1", "9", "10")),
        (["10", "9", "-1"], ("-1", "9", "10")),
        ([1.0, 2.0, float("nan")], ("1", "2")),
        (["1.0", "2.0"], ("1", "2")),
        ([True, False], ("false", "true")),
        (["10", "9", "x"], ("10", "9", "x")),
        (["1.0", "2.5"], ("1.0", "2.5")),
        ([" pos", "neg ", "pos"], ("neg", "pos")),
    ],
)
def test_names_are_sorted_whatever_the_order_of_the_rows(values: list[Any], names: tuple[str, ...]) -> None:
    assert learn(values).names == names
    assert learn(random.Random(0).sample(values, len(values))).names == names


def test_named_classes_keep_their_own_order_and_lose_those_without_rows() -> None:
    coded = pa.DictionaryArray.from_arrays(pa.array([2, 0, 2, None]), pa.array(["z", "unused", "a"]))
    texts, order = labels.as_text(pa.chunked_array([coded]), "train")
    classes = labels.learn(texts.drop_null(), order, None, "train")
    assert classes.names == ("z", "a")
    assert labels.encode(texts.drop_null(), classes, "train").tolist() == [1, 0, 1]


def test_codes_and_names_meet() -> None:
    classes = learn([4, 2, 3, 1], ("World", "Sports", "Business", "Sci/Tech"))
    assert encode([4, 1], classes) == [3, 0]
    assert encode(["Sci/Tech", "World", "2"], classes) == [3, 0, 1]
    assert encode([2.0, 3.0], classes) == [1, 2]


def test_names_that_are_the_labels_themselves_set_their_order() -> None:
    classes = learn(["low", "high", "middle"], ("low", "middle", "high"))
    assert encode(["high", "low"], classes) == [2, 0]


@pytest.mark.parametrize("names", [("a", "b"), ("a", "a", "b"), ("a", "b", "c", "d")])
def test_names_must_be_one_for_each_class(names: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="train has 3 classes: 1, 2, 3"):
        learn([1, 2, 3], names)


def test_a_name_may_not_be_the_code_of_another_class() -> None:
    with pytest.raises(ConfigError, match="gives the name '1' to a class"):
        learn([1, 2, 3], ("0", "1", "2"))


def test_unknown_labels_are_named_and_label_names_offered_where_the_counts_match() -> None:
    classes = learn([1, 2])
    with pytest.raises(DataError, match=r"lacks: World\. .*leave those rows out"):
        encode(["World", "1"], classes)
    with pytest.raises(DataError, match=r"lacks: Sports, World.*--label-names, one name for each of 1, 2"):
        encode(["World", "Sports"], classes)


def test_one_class_and_a_class_for_each_row_are_refused() -> None:
    with pytest.raises(DataError, match="every row has the label 'a'"):
        learn(["a", "a"])
    with pytest.raises(DataError, match=r"every row has the label '(a long story ){7}a long s…'"):
        learn(["a long story " * 99] * 2)
    with pytest.raises(DataError, match="60 different values in 60 rows"):
        learn(list(range(60)))
    with pytest.raises(DataError, match="labels are strings"):
        column([["a"], ["b"]])


def test_rows_for_a_trained_model_may_hold_names_or_codes() -> None:
    names = ("neg", "pos")
    by_name, by_code = column(["pos", "pos"])[0], column([0, 1, 1])[0]
    assert labels.encode(by_name, labels.known(names, None, by_name, "x"), "x").tolist() == [1, 1]
    assert labels.encode(by_code, labels.known(names, names, by_code, "x"), "x").tolist() == [0, 1, 1]
    with pytest.raises(DataError, match="lacks: 0, 1"):
        labels.encode(by_code, labels.known(names, None, by_code, "x"), "x")


def test_names_of_codes_are_numbered_as_the_model_numbers_them() -> None:
    by_code = pa.array(["0", "1", "1", "2"])
    names = ("bad", "fair", "good")
    known = labels.known(names, ("good", "fair", "bad"), by_code, "x")
    assert labels.encode(by_code, known, "x").tolist() == [2, 1, 1, 0]
    some = pa.array(["0", "1"])
    assert labels.encode(some, labels.known(names, ("good", "bad"), some, "x"), "x").tolist() == [2, 0]


@pytest.mark.parametrize(
    ("values", "label_names", "message"),
    [
        (["0", "1"], ("good", "odd"), "gives the name 'odd', and the run has no such class; it has bad, good"),
        (["bad", "good"], ("good", "bad"), "no effect: x holds the names of the classes"),
        (["0", "1", "2"], ("good", "bad"), "gives 2 different names, and x has 3 classes"),
    ],
)
def test_names_of_codes_that_do_not_fit_the_model_are_refused(
    values: list[str], label_names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        labels.known(("bad", "good"), label_names, pa.array(values), "x")


@pytest.mark.parametrize(("values", "expected"), [([-1, -1], True), (["", None], True), ([-1, 1], False)])
def test_secret_labels_are_recognized(values: list[Any], expected: bool) -> None:
    assert labels.is_unlabelled(labels.as_text(pa.chunked_array([pa.array(values)]), "x")[0]) is expected
