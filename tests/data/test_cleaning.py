from __future__ import annotations

import pyarrow as pa
import pytest

from transferkit.data import cleaning
from transferkit.errors import DataError


def usable(texts: list[str | None], labels: list[str | None], pair: list[str | None] | None = None) -> cleaning.Kept:
    columns = {"text": pa.array(texts, pa.string())}
    if pair is not None:
        columns["text_pair"] = pa.array(pair, pa.string())
    return cleaning.usable(pa.table(columns), pa.chunked_array([pa.array(labels, pa.string())]), "data.csv")


@pytest.mark.parametrize("empty", [None, "", " \t\n", "\u00a0\u3000", "\u200b", "\ufeff"])
def test_a_few_rows_without_text_are_dropped_and_counted(empty: str | None) -> None:
    kept = usable(["words"] * 7 + [empty] + ["words"] * 12, ["x"] * 20)
    assert kept.dropped == 1
    assert 7 not in kept.indices
    assert len(kept.indices) == 19


def test_missing_labels_and_second_texts_count_as_well() -> None:
    assert usable(["words"] * 40, ["x"] * 39 + [None], [""] + ["words"] * 39).dropped == 2


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        (["words"] * 18 + ["", " "], ["x"] * 20, r"2 of 20 rows \(10.0%\) have no text, row 19 is the first"),
        (
            ["words"] * 20,
            ["x", "", None] + ["x"] * 17,
            r"2 of 20 rows \(10.0%\) have no label, row 2 is the first",
        ),
        ([""] + ["words"] * 19, ["x"] * 19 + [None], "have no text or label, row 1 is the first"),
    ],
)
def test_more_than_a_few_are_refused(texts: list[str | None], labels: list[str | None], message: str) -> None:
    with pytest.raises(DataError, match=message):
        usable(texts, labels)


def test_a_text_of_one_emoji_is_text() -> None:
    assert usable(["👍", "é", "漢"], ["x", "y", "x"]).dropped == 0
