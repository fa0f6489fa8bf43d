"""Batches: padded, of like lengths, in an order that the seed decides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from transferkit.data import batching
from transferkit.data.batching import FeatureTable, LengthGroupedSampler, ListColumn, split

ROWS = [[5, 6, 7], [8], [9, 10], [11, 12, 13, 14], [15]]


@pytest.fixture
def column() -> pa.ChunkedArray:
    """The rows in two chunks with an empty one between, as a streamed file has them."""
    kind = pa.list_(pa.int32())
    return pa.chunked_array([pa.array(ROWS[:2], kind), pa.array([], kind), pa.array(ROWS[2:], kind)])


@pytest.fixture
def table(column: pa.ChunkedArray) -> FeatureTable:
    return FeatureTable.from_arrow(pa.table({"input_ids": column, "label": [0, 1, 0, 1, 1]}), pad_token_id=99)


def test_a_column_gives_each_row_across_chunks(column: pa.ChunkedArray) -> None:
    lists = ListColumn.from_arrow(column)
    assert [lists[row].tolist() for row in range(5)] == ROWS
    assert lists.lengths.tolist() == [3, 1, 2, 4, 1]


def test_a_slice_of_a_column_is_read_from_its_own_start(column: pa.ChunkedArray) -> None:
    lists = ListColumn.from_arrow(column.slice(1, 3))
    assert [lists[row].tolist() for row in range(3)] == ROWS[1:4]


def test_columns_are_joined_in_place(column: pa.ChunkedArray) -> None:
    first, second = ListColumn.from_arrow(column), ListColumn.from_lists(ROWS[3:])
    lists = ListColumn.joined([first, second])
    assert [lists[row].tolist() for row in range(7)] == [*ROWS, *ROWS[3:]]
    assert lists.lengths.tolist() == [3, 1, 2, 4, 1, 4, 1]
    assert np.shares_memory(lists[6], second[1])


@pytest.fixture
def _no_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "LENGTH_STEP", 1)


@pytest.mark.usefixtures("_no_steps")
def test_a_batch_is_padded_to_its_longest_row_and_masked(table: FeatureTable) -> None:
    batch = table.__getitems__([2, 0])
    assert batch["input_ids"].tolist() == [[9, 10, 99], [5, 6, 7]]
    assert batch["attention_mask"].tolist() == [[True, True, False], [True, True, True]]
    assert batch["attention_mask"].dtype == torch.bool
    assert batch["labels"].tolist() == [0, 0]
    assert "token_type_ids" not in batch


@pytest.mark.parametrize(("step", "width"), [(1, 1), (2, 2), (3, 3), (8, 4)])
def test_a_batch_is_as_long_as_a_step_and_no_longer_than_the_longest_row_of_all(
    table: FeatureTable, monkeypatch: pytest.MonkeyPatch, step: int, width: int
) -> None:
    monkeypatch.setattr(batching, "LENGTH_STEP", step)
    batch = table.__getitems__([1, 4])
    assert batch["input_ids"].shape == (2, width)
    assert batch["attention_mask"].sum(1).tolist() == [1, 1]


@pytest.mark.usefixtures("_no_steps")
def test_token_types_are_padded_with_zero(column: pa.ChunkedArray) -> None:
    types = pa.array([[1] * len(row) for row in ROWS], pa.list_(pa.int32()))
    table = FeatureTable.from_arrow(pa.table({"input_ids": column, "token_type_ids": types}), pad_token_id=99)
    batch = table.__getitems__([1, 2])
    assert batch["token_type_ids"].tolist() == [[1, 0], [1, 1]]
    assert "labels" not in batch


@pytest.mark.usefixtures("_no_steps")
@pytest.mark.parametrize(
    ("max_tokens", "expected"), [(1, [[3], [0], [2], [1], [4]]), (4, [[3], [0], [2, 1], [4]]), (99, [[3, 0, 2, 1, 4]])]
)
def test_evaluation_batches_hold_every_row_once_longest_first(
    table: FeatureTable, max_tokens: int, expected: list[list[int]]
) -> None:
    batches = list(table.in_length_order(max_tokens))
    assert [rows.tolist() for rows, _ in batches] == expected
    for rows, batch in batches:
        assert batch["input_ids"].shape == (len(rows), len(ROWS[rows[0]]))
        assert len(rows) == 1 or batch["input_ids"].numel() <= max_tokens


def test_lists_in_memory_are_read_as_a_column_is() -> None:
    lists = ListColumn.from_lists(ROWS)
    assert [lists[row].tolist() for row in range(5)] == ROWS
    assert lists.lengths.tolist() == [3, 1, 2, 4, 1]


def test_a_batch_is_split_into_parts_that_hold_it_once(table: FeatureTable) -> None:
    batch = table.__getitems__(range(5))
    for max_tokens, sizes in ((1, [1] * 5), (8, [2, 2, 1]), (19, [3, 2]), (20, [5])):
        parts = split(dict(batch), max_tokens)
        assert [len(part["labels"]) for part in parts] == sizes
        for name, whole in batch.items():
            assert torch.equal(torch.cat([part[name] for part in parts]), whole)


@pytest.mark.parametrize(("step", "padded"), [(1, 2 * 4 + 2 * 2 + 1), (2, 2 * 4 + 2 * 2 + 2), (4, 5 * 4)])
def test_the_share_of_padding_is_counted_over_all_batches(
    table: FeatureTable, monkeypatch: pytest.MonkeyPatch, step: int, padded: int
) -> None:
    monkeypatch.setattr(batching, "LENGTH_STEP", step)
    assert table.padding_share([[3, 0], [2, 1], [4]]) == pytest.approx(1 - 11 / padded)


class Vectors:
    """States of five rows, one vector each."""

    is_pooled = True

    def batch(self, rows: np.ndarray, length: int) -> torch.Tensor:
        return torch.from_numpy(rows).float().unsqueeze(1)


def test_a_row_that_is_one_vector_needs_its_tokens_no_more(table: FeatureTable) -> None:
    batch = replace(table, states=Vectors()).__getitems__([3, 1])
    assert batch.keys() == {"states", "labels"}
    assert batch["states"].tolist() == [[3.0], [1.0]]
    assert split(batch, 1) == [batch]


def test_rows_that_are_vectors_are_batched_by_their_number_and_not_by_their_tokens(table: FeatureTable) -> None:
    batches = list(replace(table, states=Vectors()).in_length_order(4))
    assert [rows.tolist() for rows, _ in batches] == [[3, 0, 2, 1], [4]]
    assert [batch["states"].flatten().tolist() for _, batch in batches] == [[3.0, 0.0, 2.0, 1.0], [4.0]]


def test_an_epoch_holds_every_row_once_in_batches_of_like_lengths() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 1003)
    sampler = LengthGroupedSampler(lengths, batch_size=10, seed=0)
    batches = list(sampler)
    assert len(batches) == len(sampler) == 101
    assert sorted(row for batch in batches for row in batch) == list(range(1003))
    grouped = sum(lengths[batch].max() * len(batch) for batch in batches) / lengths.sum()
    shuffled = np.random.default_rng(1).permutation(1003)
    random = sum(lengths[shuffled[i : i + 10]].max() * 10 for i in range(0, 1000, 10)) / lengths.sum()
    assert grouped < 1.1 < 1.5 < random, "padding is what grouping saves"


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    lengths = np.arange(1, 200)

    def order(seed: int, epoch: int) -> list[list[int]]:
        sampler = LengthGroupedSampler(lengths, 8, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)
