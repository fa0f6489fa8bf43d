"""Several batches at once: the results, the surroundings and the failures of one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Barrier, current_thread
from time import sleep

import pytest
import torch

from transferkit.generation.workers import at_once


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_items(three_threads: None) -> None:
    # The second and third item have to begin before the first can end.
    together = Barrier(3)

    def work(item: int) -> tuple[int, int, str]:
        together.wait(timeout=60)
        return item * item, torch.get_num_threads(), current_thread().name

    found = list(at_once(work, range(3), workers=9))
    assert [square for square, *_ in found] == [0, 1, 4]
    assert [threads for _, threads, _ in found] == [1, 1, 1]
    assert len({name for *_, name in found}) == 3
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_one_worker_is_the_caller(three_threads: None, workers: int) -> None:
    assert set(at_once(lambda _: (torch.get_num_threads(), current_thread()), "ab", workers)) == {(3, current_thread())}


def test_a_failure_ends_all(three_threads: None) -> None:
    begun = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 0:
            raise ValueError("the first")
        sleep(0.01)
        return item

    with pytest.raises(ValueError, match="the first"):
        list(at_once(work, range(1000), workers=2))
    assert len(begun) < 1000
    assert torch.get_num_threads() == 3
