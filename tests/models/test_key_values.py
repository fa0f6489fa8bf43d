"""Keys and values that are kept: what cat and index_select would give."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from transferkit.models.key_values import ROOM, KeysValues

ROWS, HEADS, WIDTH = 3, 2, 4


def made(length: int, seed: int = 0, rows: int = ROWS) -> Tensor:
    return torch.randn(2, rows, HEADS, length, WIDTH, generator=torch.Generator().manual_seed(seed))


def assert_holds(found: KeysValues, expected: Tensor) -> None:
    assert torch.equal(found.keys, expected[0])
    assert torch.equal(found.values, expected[1])


@pytest.mark.parametrize("length", [0, 1, ROOM - 1, ROOM, ROOM + 3])
def test_steps_are_appended(length: int) -> None:
    parts = [made(length), *(made(1, seed) for seed in range(1, 2 * ROOM + 2))]
    held = KeysValues(parts[0])
    for part in parts[1:]:
        held.add(part.squeeze(3))
    assert_holds(held, torch.cat(parts, 3))


def test_most_steps_copy_nothing() -> None:
    held = KeysValues(made(0))
    places = []
    for seed in range(2 * ROOM):
        held.add(made(1, seed).squeeze(3))
        places.append(held.keys.data_ptr())
    assert len(set(places[:ROOM])) == len(set(places[ROOM:])) == 1


def test_rows_go_on_by_themselves() -> None:
    begun, first, second = made(2), made(1, 1), made(1, 2, rows=4)
    held = KeysValues(begun)
    held.add(first.squeeze(3))
    chosen = held.rows(torch.tensor([2, 0, 0, 1]))
    chosen.add(second.squeeze(3))
    held.add(first.squeeze(3))
    assert_holds(chosen, torch.cat([torch.cat([begun, first], 3)[:, [2, 0, 0, 1]], second], 3))
    assert_holds(held, torch.cat([begun, first, first], 3))


def test_they_are_kept_without_gaps() -> None:
    scattered = made(3).transpose(2, 3).contiguous().transpose(2, 3)
    held = KeysValues(scattered)
    assert held.keys.is_contiguous()
    assert_holds(held, scattered)
