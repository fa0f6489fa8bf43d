"""Ctrl-C waits for a block that holds it, and is not lost."""

from __future__ import annotations

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from transferkit.training.interrupt import held_interrupt


def press_in_block(then: Callable[[], None]) -> None:
    with held_interrupt():
        signal.raise_signal(signal.SIGINT)
        then()


def test_it_is_raised_when_the_block_is_done() -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        press_in_block(lambda: done.append("written"))
    assert done == ["written"]


def test_without_it_nothing_happens() -> None:
    before = signal.getsignal(signal.SIGINT)
    with held_interrupt():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_an_error_of_the_block_is_the_one_that_is_raised() -> None:
    def fail() -> None:
        raise ValueError("of the block")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ValueError, match="of the block"):
        press_in_block(fail)
    assert signal.getsignal(signal.SIGINT) is before


def test_another_thread_holds_nothing() -> None:
    def block() -> object:
        with held_interrupt():
            return signal.getsignal(signal.SIGINT)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(block).result() is signal.getsignal(signal.SIGINT)
