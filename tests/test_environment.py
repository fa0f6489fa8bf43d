"""What a result was made with, and how much memory it took."""

from __future__ import annotations

import gc
import json
import mmap
import time
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from transferkit import environment
from transferkit.environment import (
    BATCHES_PER_RELEASE,
    PeakMemory,
    describe,
    release_memory,
    releasing,
    uncollected,
    user_path,
    whole_file,
    write_cached,
    write_file,
)


def test_the_description_is_json_and_names_what_matters() -> None:
    description = json.loads(json.dumps(describe()))
    assert description["packages"]["torch"] == torch.__version__
    assert description["cores"] >= 1
    assert description["memory_bytes"] > 10**8
    assert description["processor"]


def test_a_home_that_is_not_there_is_a_path_as_it_stands() -> None:
    assert user_path("~/reviews.csv") == Path.home() / "reviews.csv"
    assert user_path("~nosuchuser/reviews.csv") == Path("~nosuchuser/reviews.csv")


def test_peak_memory_sees_what_is_freed_again_and_not_what_came_before() -> None:
    with PeakMemory() as idle:
        time.sleep(0.1)
    with PeakMemory() as busy:
        # Straight from the system: what the C library hands out may lie in its heap, and stay there.
        block = mmap.mmap(-1, 200_000_000)
        block[:: mmap.PAGESIZE] = bytes(len(range(0, len(block), mmap.PAGESIZE)))
        time.sleep(0.2)
        block.close()
    with PeakMemory() as after:
        time.sleep(0.1)
    assert busy.bytes - idle.bytes > 1.5e8
    assert busy.bytes - after.bytes > 1.5e8


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    write_file(path, "né\n")
    assert path.read_bytes() == "né\n".encode()
    with pytest.raises(OSError, match="No such file"):
        write_file(tmp_path / "missing" / "file", "text")
    with pytest.raises(UnicodeEncodeError):
        write_file(path, "\ud800")
    assert path.read_text() == "né\n"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_stopped_while_it_writes_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def stopped(partial: Path) -> None:
        partial.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), whole_file(path) as partial:
        stopped(partial)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with whole_file(path) as partial:
        partial.write_bytes(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    write_cached(tmp_path / "new" / "file", "text")
    assert (tmp_path / "new" / "file").read_text() == "text"
    write_cached(tmp_path / "new" / "file" / "below", "text")


def resident_bytes() -> int:
    with PeakMemory() as memory:
        pass
    return memory.bytes


def test_released_memory_leaves_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = [torch.ones(20_000) for _ in range(2000)]
    kept = blocks[1::2]
    before = resident_bytes()
    del blocks
    release_memory()
    assert before - resident_bytes() > 5e7
    assert len(kept) == 1000
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    release_memory()


def test_memory_that_arrow_has_read_with_leaves_the_process_too() -> None:
    table = pa.table({"number": pa.array(range(2_000_000))})
    assert table.nbytes > 1.5e7
    before = resident_bytes()
    del table
    release_memory()
    assert before - resident_bytes() > 1e7


def test_a_long_pass_gives_memory_back_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    released: list[int] = []
    seen: list[int] = []
    monkeypatch.setattr(environment, "release_memory", lambda: released.append(len(seen)))
    for number in releasing(range(2 * BATCHES_PER_RELEASE + 1)):
        seen.append(number)
    assert seen == list(range(2 * BATCHES_PER_RELEASE + 1))
    assert released == [BATCHES_PER_RELEASE, 2 * BATCHES_PER_RELEASE]


def test_cycles_are_not_searched_for_while_rows_are_read() -> None:
    @uncollected()
    def read() -> bool:
        return gc.isenabled()

    assert not read()
    assert gc.isenabled()
    with pytest.raises(ValueError, match="torn"), uncollected():
        raise ValueError("torn")
    assert gc.isenabled()
    gc.disable()
    try:
        assert not read()
        assert not gc.isenabled(), "who has turned it off finds it off"
    finally:
        gc.enable()
