"""Work on several batches at once: on a CPU, threads with a batch each are faster than one batch on all threads.

A step of decoding is many small products. Threads that share each of them wait for one another at every one; threads
with a batch of their own never do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def at_once(work: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """What `work` gives for each item, in their order, from `workers`, or fewer if torch has not so many threads.

    The workers share torch's threads. A failure or Ctrl-C ends all of them, and what has not begun is left out.
    """
    threads = torch.get_num_threads()
    workers = min(workers, threads)
    if workers <= 1:
        yield from map(work, items)
        return

    def begin() -> None:
        torch.set_num_threads(threads // workers)

    pool = ThreadPoolExecutor(workers, initializer=begin)
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)
        # What a thread sets holds for those that begin later too.
        torch.set_num_threads(threads)
