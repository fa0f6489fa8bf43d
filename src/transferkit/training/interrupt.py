"""Ctrl-C, held back while what belongs together is written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def held_interrupt() -> Iterator[None]:
    """Let Ctrl-C wait until the block is done; it is raised then.

    Outside of the main thread nothing is held, since Python raises Ctrl-C in the main one.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed in the block, and the block raised nothing itself.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = []

    def remember(number: int, _: FrameType | None) -> None:
        pressed.append(number)

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        signal.raise_signal(signal.SIGINT)
