"""Batches of pairs: what the model reads, what it is to say, and what counts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from transferkit.data.batching import IGNORE_INDEX, TokenBudgetSampler, padded_length
from transferkit.data.parallel_batching import ParallelTable

START, PADDING, END = 2, 1, 3


def table(sources: list[list[int]], targets: list[list[int]]) -> ParallelTable:
    kind = pa.list_(pa.int32())
    arrow = pa.table({"source": pa.array(sources, kind), "target": pa.array(targets, kind)})
    return ParallelTable.from_arrow(arrow, START, PADDING)


def test_a_batch_says_what_is_read_and_what_comes_next() -> None:
    batch = table([[7, 8, END], [9, END]], [[5, END], [5, 6, 7, 8, END]]).__getitems__([0, 1])
    assert batch["source"].tolist() == [[7, 8, END, PADDING], [9, END, PADDING, PADDING]]
    assert batch["source_mask"].tolist() == [[True, True, True, False], [True, True, False, False]]
    no = IGNORE_INDEX
    assert batch["labels"].tolist() == [[5, END, no, no, no, no, no, no], [5, 6, 7, 8, END, no, no, no]]
    assert batch["target"].tolist() == [
        [START, 5, END, PADDING, PADDING, PADDING, PADDING, PADDING],
        [START, 5, 6, 7, 8, END, PADDING, PADDING],
    ]


def test_lengths_are_of_the_longer_side() -> None:
    pairs = table([[7, 8, END], [9, END]], [[5, END], [5, 6, 7, 8, END]])
    assert pairs.side_lengths.tolist() == [[3, 2], [2, 5]]
    assert pairs.lengths.tolist() == [3, 5]
    assert pairs.lengths.dtype == np.int32


def test_all_rows_in_order_of_length_within_the_budget() -> None:
    random = np.random.default_rng(0)
    rows = [[5] * int(length) for length in random.integers(1, 30, 100)]
    seen = []
    for index, batch in table(rows, rows).in_length_order(60):
        assert len(index) == 1 or batch["labels"].numel() <= 60
        seen += index.tolist()
    assert sorted(seen) == list(range(100))


def test_padding_is_counted_on_both_sides() -> None:
    # Four places each, of which three and one are real on the left, and two and four on the right.
    pairs = table([[5] * 3, [5]], [[5] * 2, [5] * 4])
    assert pairs.padding_share([[0, 1]]) == pytest.approx(1 - 10 / 16)


@pytest.mark.parametrize("seed", [0, 1])
def test_batches_of_a_token_budget_hold_every_row_once(seed: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 50, (500, 2)).astype(np.int32)
    sampler = TokenBudgetSampler(lengths, 200, seed)
    epochs = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        assert sorted(row for batch in batches for row in batch) == list(range(500))
        assert all(len(batch) * padded_length(lengths[batch]) <= 200 for batch in batches)
        epochs.append(batches)
    assert epochs[0] != epochs[1]
    sampler.set_epoch(0)
    assert list(sampler) == epochs[0]
    sampler.skip = 4
    assert list(sampler) == epochs[0][4:]


def test_rows_that_are_alike_on_both_sides_share_a_batch() -> None:
    random = np.random.default_rng(0)
    sources = random.integers(4, 60, 2000)
    targets = np.clip(sources + random.integers(-12, 12, 2000), 1, None)
    pairs = table([[5] * n for n in sources], [[5] * n for n in targets])
    by_both = pairs.padding_share(TokenBudgetSampler(pairs.side_lengths, 1000, 0))
    by_longest = pairs.padding_share(TokenBudgetSampler(pairs.lengths, 1000, 0))
    assert by_both < 0.85 * by_longest


def test_a_row_above_the_budget_is_a_batch_of_its_own() -> None:
    sampler = TokenBudgetSampler(np.array([3, 500, 3], dtype=np.int32), 10, 0)
    assert sorted(map(sorted, sampler)) == [[0, 2], [1]]


def test_ids_are_int64_and_the_mask_is_boolean() -> None:
    batch = table([[7, END]], [[5, END]]).__getitems__([0])
    assert {name: tensor.dtype for name, tensor in batch.items()} == {
        "source": torch.int64, "source_mask": torch.bool, "target": torch.int64, "labels": torch.int64,
    }  # fmt: skip
