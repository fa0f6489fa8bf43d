"""Facts about rows, on rows small enough to count by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from datasets import Dataset

from transferkit.data.inspection import Lengths, class_counts, content_hash, duplicate_rows


def rows(texts: list[str], labels: list[int], pairs: list[str] | None = None) -> Dataset:
    columns: dict[str, list[object]] = {"text": list(texts), "label": list(labels)}
    return Dataset.from_dict(columns if pairs is None else {**columns, "text_pair": list(pairs)})


def test_truncation_is_counted_in_rows_and_tokens() -> None:
    lengths = Lengths.of(np.array([5, 10, 15, 30]), max_length=10)
    assert lengths.truncated_rows == pytest.approx(0.5)
    assert lengths.truncated_tokens == pytest.approx((5 + 20) / 60)
    assert lengths.statistics == {"mean": 15, "median": 12.5, "p95": pytest.approx(27.75), "max": 30}
    assert sum(count for _, count in lengths.histogram) == 4


def test_a_bin_holds_the_lengths_from_its_edge_to_the_next() -> None:
    everything = Lengths.of(np.arange(1, 101), max_length=100).histogram
    edges = [edge for edge, _ in everything]
    assert [count for _, count in everything] == [end - start for start, end in pairwise([*edges, 101])]


def test_rows_of_one_length_have_one_bin() -> None:
    assert Lengths.of(np.array([7, 7]), max_length=10).histogram == ((7, 2),)


def test_classes_are_counted_also_where_one_is_absent() -> None:
    assert class_counts(rows(["a", "b", "c"], [2, 0, 2]), 4) == (1, 0, 2, 0)


def test_duplicates_are_rows_whose_text_stands_more_than_once() -> None:
    assert duplicate_rows(rows(["a", "b", "a", "a", "c"], [0, 0, 1, 0, 0])) == 3
    assert duplicate_rows(rows(["a", " a", "b"], [0, 0, 0])) == 2
    assert duplicate_rows(rows(["a", "a", "a"], [0, 0, 0], pairs=["x", "y", "x"])) == 2


def test_the_hash_depends_on_texts_labels_and_order() -> None:
    same = content_hash(rows(["a", "b"], [0, 1]))
    assert same == content_hash(rows(["a", "b"], [0, 1]))
    others = [
        rows(["a", "c"], [0, 1]), rows(["a", "b"], [1, 1]), rows(["b", "a"], [1, 0]), rows(["ab", ""], [0, 1]),
        rows(["a", "b"], [0, 1], pairs=["", ""]),
    ]  # fmt: skip
    others += [rows(["a", "bc"], [0, 1], pairs=["d", "e"]), rows(["a", "b"], [0, 1], pairs=["cd", "e"])]
    hashes = {content_hash(other) for other in others}
    assert len(hashes) == len(others)
    assert same not in hashes
