"""Keys and values that are kept: what cat and index_select would give, whoever else goes on from the same ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from transferkit.models.key_values import ROOM, KeysValues

ROWS, HEADS, WIDTH = 3, 2, 4


def made(length: int, seed: int = 0, rows: int = ROWS) -> KeysValues:
    keys, values = torch.randn(2, rows, HEADS, length, WIDTH, generator=torch.Generator().manual_seed(seed))
    return KeysValues(keys, values)


def joined(*parts: KeysValues) -> tuple[Tensor, Tensor]:
    return torch.cat([part.keys for part in parts], 2), torch.cat([part.values for part in parts], 2)


def assert_holds(found: KeysValues, keys: Tensor, values: Tensor) -> None:
    assert torch.equal(found.keys, keys)
    assert torch.equal(found.values, values)


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.mark.parametrize("length", [1, ROOM - 1, ROOM, ROOM + 3])
def test_steps_are_appended(length: int) -> None:
    parts = [made(length), *(made(1, seed) for seed in range(1, 2 * ROOM + 2))]
    found = parts[0]
    for part in parts[1:]:
        found = found.extended(part)
    assert_holds(found, *joined(*parts))


def test_two_may_go_on_from_one() -> None:
    start, first, second, third = (made(1, seed) for seed in range(4))
    begun = start.extended(first)
    left, right = begun.extended(second), begun.extended(third)
    assert_holds(left, *joined(start, first, second))
    assert_holds(right, *joined(start, first, third))
    assert_holds(begun, *joined(start, first))


def test_a_step_within_the_room_copies_nothing() -> None:
    begun = made(1).extended(made(1, 1))
    assert begun.extended(made(1, 2)).keys.data_ptr() == begun.keys.data_ptr()


def test_rows_go_on_by_themselves() -> None:
    index = torch.tensor([2, 0, 0, 1])
    begun, more = made(2).extended(made(1, 1)), made(1, 2, rows=4)
    chosen = begun.rows(index)
    assert_holds(chosen, begun.keys[index], begun.values[index])
    expected = joined(chosen, more)
    assert_holds(chosen.extended(more), *expected)
    assert_holds(begun, *joined(made(2), made(1, 1)))


def test_rows_of_what_has_no_room() -> None:
    index = torch.tensor([1, 1])
    given = made(3)
    assert_holds(given.rows(index), given.keys[index], given.values[index])


def test_what_is_kept_is_float32_without_gaps() -> None:
    scattered = made(3).keys.transpose(1, 2).contiguous().transpose(1, 2).bfloat16()
    kept = KeysValues(scattered, scattered).kept()
    assert kept.keys.dtype == kept.values.dtype == torch.float32
    assert kept.keys.is_contiguous()
    assert torch.equal(kept.keys, scattered.float())


def test_gradients_reach_every_step() -> None:
    with torch.enable_grad():
        first, second, third = (torch.randn(ROWS, HEADS, 1, WIDTH, requires_grad=True) for _ in range(3))
        held = KeysValues(first, first).extended(KeysValues(second, second))
        (held.keys.square().sum() + held.extended(KeysValues(third, third)).values.sum()).backward()
    assert torch.equal(first.grad, 2 * first.detach() + 1)
    assert torch.equal(second.grad, 2 * second.detach() + 1)
    assert torch.equal(third.grad, torch.ones_like(third))
