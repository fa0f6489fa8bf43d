from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from transferkit.data import overlap, splits
from transferkit.data.rows import Rows
from transferkit.errors import ConfigError, DataError

BOTH = {"test": 0.2, "validation": 0.1}


def rows(*counts: int, texts: list[str] | None = None) -> Rows:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    table = pa.table({"text": texts or [f"text {i}" for i in range(len(labels))]})
    return Rows.of(table, np.arange(len(labels)), labels, "data.csv")


def test_drawn_splits_hold_every_row_once_in_the_order_of_the_source() -> None:
    drawn = splits.draw_missing(rows(600, 300, 100), BOTH, ("a", "b", "c"), seed=0)
    assert {split: len(part) for split, part in drawn.items()} == {
        "train": 700,
        "test": 200,
        "validation": 100,
    }
    assert sorted(np.concatenate([part.indices for part in drawn.values()])) == list(range(1000))
    assert all((np.diff(part.indices) > 0).all() for part in drawn.values())


def test_drawn_splits_keep_the_shares_of_the_classes() -> None:
    drawn = splits.draw_missing(rows(600, 300, 100), BOTH, ("a", "b", "c"), seed=0)
    assert np.bincount(drawn["test"].labels).tolist() == [120, 60, 20]
    assert np.bincount(drawn["validation"].labels).tolist() == [60, 30, 10]


def test_the_seed_alone_decides() -> None:
    first, again, other = (splits.draw_missing(rows(50, 50), BOTH, ("a", "b"), seed)["test"] for seed in (1, 1, 2))
    assert first.indices.tolist() == again.indices.tolist() != other.indices.tolist()


def test_a_rare_class_stands_in_every_part() -> None:
    for part in splits.draw_missing(rows(3, 1000, 3), BOTH, ("a", "b", "c"), seed=0).values():
        assert set(part.labels) == {0, 1, 2}


def test_a_class_with_too_few_rows_is_named() -> None:
    with pytest.raises(DataError, match=r"class 'rare' has 2 rows, too few to split in 3 parts"):
        splits.draw_missing(rows(100, 2), BOTH, ("common", "rare"), seed=0)
    with pytest.raises(DataError, match=r"class 'rare' has 1 row, too few to split in 2 parts \(train, validation\)"):
        splits.draw_missing(rows(100, 1), {"validation": 0.1}, ("common", "rare"), seed=0)


def test_a_sample_has_the_size_asked_for_and_every_class() -> None:
    sampled = splits.sample(rows(997, 2, 1), "train", 100, seed=0)
    assert np.bincount(sampled.labels).tolist() == [98, 1, 1]
    assert len(splits.sample(rows(33, 33, 34), "test", 10, seed=0)) == 10


def test_a_sample_cannot_be_larger_than_what_there_is() -> None:
    with pytest.raises(ConfigError, match="--train-size is 101, and there are 100 rows for train"):
        splits.sample(rows(50, 50), "train", 101, seed=0)
    with pytest.raises(ConfigError, match=r"--test-size is 2, and data.csv has 3 classes"):
        splits.sample(rows(50, 25, 25), "test", 2, seed=0)


def test_rows_of_other_splits_are_found_by_their_text() -> None:
    first = rows(2, 2, texts=["a", " b ", "c", "d"])
    assert overlap.not_in(first, [rows(1, 1, texts=["b", "x"]), rows(1, texts=["d\n"])]).tolist() == [
        True,
        False,
        True,
        False,
    ]


def test_an_accent_of_its_own_makes_no_other_text() -> None:
    composed, decomposed = rows(1, texts=["perch\u00e9"]), rows(1, texts=["perche\u0301"])
    assert overlap.not_in(composed, [decomposed]).tolist() == [False]


def test_pairs_are_the_same_when_both_texts_are() -> None:
    table = pa.table({"text": ["a", "a", "b"], "text_pair": ["b", "c", "a"]})
    pairs = Rows.of(table, np.arange(3), np.zeros(3, dtype=np.int64), "x")
    assert overlap.not_in(pairs, [pairs.keep(np.array([True, False, False]))]).tolist() == [False, True, True]
