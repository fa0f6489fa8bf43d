"""The prefix cache gives what computing anew gives, and never what belongs to something else."""

from __future__ import annotations

import errno
import mmap
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch

from tests import tiny
from transferkit.adaptation.prefix import Prefix, find_prefix
from transferkit.adaptation.strategies import make_strategy
from transferkit.data.batching import FeatureTable, ListColumn
from transferkit.settings import parse_strategy
from transferkit.training import prefix_cache
from transferkit.training.precision import Compute, autocast, training_kernels
from transferkit.training.prefix_cache import PrefixCache, States
from transferkit.training.tracking import Listener

IDENTITY = {"base": "b", "tokenizer": "t", "rows": "r"}
EXACT = Compute("fp32", "fused", 1)
STRATEGIES = ["linear-probe", "partial(layers=1)"]


class Log(Listener):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.rows = self.extra = 0

    def said(self, message: str) -> None:
        self.lines.append(message)

    def advanced(self, rows: int) -> None:
        self.rows += rows

    def extended(self, rows: int) -> None:
        self.extra += rows


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRANSFERKIT_CACHE", str(tmp_path))
    return tmp_path / "prefix"


@pytest.fixture
def table() -> FeatureTable:
    random = np.random.default_rng(0)
    rows = [random.integers(5, 20, random.integers(2, 12)).tolist() for _ in range(13)]
    return FeatureTable(ListColumn.from_lists(rows), None, np.arange(13) % 3, pad_token_id=0)


def make_prefix(folder: Path, strategy: str) -> Prefix:
    model = tiny.load_model(folder, "mean")
    make_strategy(parse_strategy(strategy)).apply(model)
    prefix = find_prefix(model, tiny.make_batch(folder))
    assert prefix is not None
    return prefix


def logits(prefix: Prefix, table: FeatureTable) -> torch.Tensor:
    with torch.no_grad():
        return prefix({k: v for k, v in table.__getitems__([4, 0, 11]).items() if k != "labels"})


@pytest.mark.parametrize("mode", ["memory", "disk"])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("max_tokens", [1, 30])
def test_logits_from_kept_states_are_those_without(
    backbone: Callable[[str], Path], table: FeatureTable, mode: str, strategy: str, max_tokens: int
) -> None:
    prefix, log = make_prefix(backbone("bert"), strategy), Log()
    kept = PrefixCache(mode, 10**9, log).apply(prefix, table, EXACT, max_tokens, IDENTITY)
    assert kept.states is not None
    torch.testing.assert_close(logits(prefix, kept), logits(prefix, table), atol=1e-6, rtol=1e-6)
    assert log.rows == log.extra == len(table)


def test_processes_that_each_have_a_cache_share_the_memory_and_the_disk(
    backbone: Callable[[str], Path], table: FeatureTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = make_prefix(backbone("bert"), "linear-probe")
    needed = PrefixCache("memory", 0, Listener()).apply(prefix, table, EXACT, 99, IDENTITY).states.data.nbytes
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=4 * needed))
    for processes, is_kept in ((1, True), (2, False)):
        cache = PrefixCache("auto", 0, Listener(), processes=processes)
        assert (cache.apply(prefix, table, EXACT, 99, IDENTITY).states is not None) == is_kept
    for processes, is_kept in ((1, True), (2, False)):
        cache = PrefixCache("disk", needed, Listener(), processes=processes)
        assert (cache.apply(prefix, table, EXACT, 99, IDENTITY).states is not None) == is_kept


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_states_computed_in_bf16_give_the_logits_of_bf16(
    backbone: Callable[[str], Path], table: FeatureTable, strategy: str
) -> None:
    prefix, compute = make_prefix(backbone("bert"), strategy), Compute("bf16", "fused", 1)
    kept = PrefixCache("memory", 0, Listener()).apply(prefix, table, compute, 99, IDENTITY)
    with training_kernels(prefix.model, compute), autocast(compute):
        from_states, plain = logits(prefix, kept).float(), logits(prefix, table).float()
    assert not torch.equal(plain, logits(prefix, table))
    assert kept.states.data.dtype == torch.bfloat16
    torch.testing.assert_close(from_states, plain, atol=3e-2, rtol=3e-2)


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not say what of a file is in memory")
@pytest.mark.parametrize("access", [mmap.ACCESS_WRITE, mmap.ACCESS_COPY])
@pytest.mark.parametrize("starts", [None, np.arange(0, 1025, 4)])
def test_of_a_file_little_is_in_memory(tmp_path: Path, access: int, starts: np.ndarray | None) -> None:
    file, states = tmp_path / "some.states", torch.randn(1024, 4096)
    file.write_bytes(states.numpy().tobytes())
    kept = prefix_cache._mapped(file, (1024, 4096), torch.float32, starts, access)
    length, rows = (1, 1024) if starts is None else (4, 256)
    read = [kept.batch(np.arange(rows)[part], length).flatten(0, -2) for part in np.split(np.arange(rows), 16)]
    assert torch.equal(torch.cat(read), states)
    if access == mmap.ACCESS_WRITE:
        for part in np.split(np.arange(rows), 16):
            new = -states.view(rows, -1, 4096)[part]
            kept.put(part, new[:, 0] if starts is None else new)
        assert np.array_equal(np.fromfile(file, np.float32).reshape(1024, 4096), -states.numpy())
    resident = sum(part.rss for part in psutil.Process().memory_maps() if part.path == str(file))
    assert resident < states.nbytes / 16


def test_a_second_run_reads_what_the_first_computed(
    backbone: Callable[[str], Path], table: FeatureTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = make_prefix(backbone("bert"), "partial(layers=1)")
    first = PrefixCache("disk", 10**9, Listener()).apply(prefix, table, EXACT, 30, IDENTITY)
    monkeypatch.setattr(prefix_cache, "_fill", lambda *_: pytest.fail("computed again"))
    log = Log()
    second = PrefixCache("disk", 10**9, log).apply(prefix, table, EXACT, 30, IDENTITY)
    assert torch.equal(logits(prefix, first), logits(prefix, second))
    assert "are read from" in log.lines[0]


@pytest.mark.parametrize("change", [{"base": "other"}, {"tokenizer": "other"}, {"rows": "other"}])
def test_states_of_something_else_are_not_served(
    backbone: Callable[[str], Path], table: FeatureTable, folder: Path, change: dict[str, str]
) -> None:
    prefix, cache = make_prefix(backbone("bert"), "linear-probe"), PrefixCache("disk", 10**9, Listener())
    cache.apply(prefix, table, EXACT, 30, IDENTITY)
    cache.apply(prefix, table, EXACT, 30, IDENTITY | change)
    cache.apply(prefix, table, Compute("bf16", "fused", 1), 30, IDENTITY)
    cache.apply(make_prefix(backbone("bert"), "partial(layers=1)"), table, EXACT, 30, IDENTITY)
    assert len(list(folder.glob("*.states"))) == len(cache.kept) == 4


def test_states_that_round_in_another_way_are_not_served(
    backbone: Callable[[str], Path], table: FeatureTable, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix, cache = make_prefix(backbone("bert"), "linear-probe"), PrefixCache("disk", 10**9, Listener())
    for compute in (EXACT, replace(EXACT, attention="plain"), replace(EXACT, threads=2)):
        cache.apply(prefix, table, compute, 30, IDENTITY)
    cache.apply(prefix, table, EXACT, 29, IDENTITY)
    monkeypatch.setattr(prefix_cache, "processor", lambda: "another")
    cache.apply(prefix, table, EXACT, 30, IDENTITY)
    monkeypatch.setattr(prefix_cache, "package_version", lambda _: "another")
    cache.apply(prefix, table, EXACT, 30, IDENTITY)
    assert len(list(folder.glob("*.states"))) == len(cache.kept) == 6


def test_states_are_on_the_disk_before_they_have_their_name(
    backbone: Callable[[str], Path], table: FeatureTable, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[object] = []
    rename = Path.replace

    class Watched(mmap.mmap):
        def flush(self, *place: int) -> None:
            done.append("flush")
            super().flush(*place)

    def renamed(file: Path, target: Path) -> Path:
        done.append("rename")
        return rename(file, target)

    monkeypatch.setattr(mmap, "mmap", Watched)
    monkeypatch.setattr(os, "fsync", lambda number: done.append(os.fstat(number).st_ino))
    monkeypatch.setattr(Path, "replace", renamed)
    PrefixCache("disk", 10**9, Listener()).apply(
        make_prefix(backbone("bert"), "linear-probe"), table, EXACT, 30, IDENTITY
    )
    [file] = folder.iterdir()
    assert done == ["flush", file.stat().st_ino, "rename"]


def test_auto_takes_memory_then_disk_then_nothing(
    backbone: Callable[[str], Path], table: FeatureTable, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = make_prefix(backbone("bert"), "linear-probe")
    assert PrefixCache("auto", 0, Listener()).apply(prefix, table, EXACT, 30, IDENTITY).states is not None
    assert not folder.exists()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 0}))
    assert PrefixCache("auto", 10**9, Listener()).apply(prefix, table, EXACT, 30, IDENTITY).states is not None
    assert len(list(folder.glob("*.states"))) == 1
    log = Log()
    assert PrefixCache("auto", 10, log).apply(prefix, table, EXACT, 30, IDENTITY | {"rows": "2"}).states is None
    assert log.lines == [
        "No prefix cache: the states of the frozen layers take 1.66\xa0kB, more than a quarter of the free memory and "
        "than training.prefix_cache_gigabytes leaves."
    ]


def test_a_full_disk_means_no_cache_and_a_warning(
    backbone: Callable[[str], Path], table: FeatureTable, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    prefix, log = make_prefix(backbone("bert"), "linear-probe"), Log()
    cache = PrefixCache("disk", 10**9, log)
    assert cache.apply(prefix, table, EXACT, 30, IDENTITY) is table
    assert cache.apply(prefix, table, EXACT, 30, IDENTITY | {"rows": "of another split"}) is table
    assert log.lines == [f"Warning: no prefix cache, as {folder} cannot take it: No space left on device."]
    assert list(folder.iterdir()) == []


def test_a_stop_while_it_is_written_leaves_nothing(
    backbone: Callable[[str], Path], table: FeatureTable, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prefix_cache, "_fill", stop)
    with pytest.raises(KeyboardInterrupt):
        PrefixCache("disk", 10**9, Listener()).apply(
            make_prefix(backbone("bert"), "linear-probe"), table, EXACT, 30, {}
        )
    assert list(folder.iterdir()) == []


def test_the_oldest_files_make_room(backbone: Callable[[str], Path], table: FeatureTable, folder: Path) -> None:
    prefix = make_prefix(backbone("bert"), "linear-probe")
    size = 13 * 32 * 4
    for number in range(3):
        PrefixCache("disk", 2 * size, Listener()).apply(prefix, table, EXACT, 30, {"rows": str(number)})
        for age, file in enumerate(sorted(folder.iterdir(), key=lambda f: f.stat().st_mtime, reverse=True)):
            os.utime(file, (1e9 - age, 1e9 - age))
    assert len(list(folder.iterdir())) == 2


def test_the_budget_holds_for_all_files_in_use(
    backbone: Callable[[str], Path], table: FeatureTable, folder: Path
) -> None:
    prefix, log = make_prefix(backbone("bert"), "linear-probe"), Log()
    size = 13 * 32 * 4
    cache = PrefixCache("disk", 2 * size - 1, log)
    first = cache.apply(prefix, table, EXACT, 30, {"rows": "1"})
    assert cache.apply(prefix, table, EXACT, 30, {"rows": "2"}) is table
    assert cache.apply(prefix, table, EXACT, 30, {"rows": "3"}) is table
    assert log.lines == [
        "No prefix cache: the states of the frozen layers take 1.66\xa0kB, more than training.prefix_cache_gigabytes "
        "leaves."
    ]
    assert (first.states is not None, len(list(folder.iterdir()))) == (True, 1)


def test_a_file_that_goes_while_it_is_opened_is_computed_anew(
    backbone: Callable[[str], Path], table: FeatureTable, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = make_prefix(backbone("bert"), "linear-probe")
    PrefixCache("disk", 10**9, Listener()).apply(prefix, table, EXACT, 30, IDENTITY)
    [file] = folder.iterdir()
    mapped = prefix_cache._mapped

    def gone(path: Path, *rest: object) -> States:
        if path == file:
            path.unlink()
        return mapped(path, *rest)

    monkeypatch.setattr(prefix_cache, "_mapped", gone)
    kept = PrefixCache("disk", 10**9, Listener()).apply(prefix, table, EXACT, 30, IDENTITY)
    torch.testing.assert_close(logits(prefix, kept), logits(prefix, table), atol=1e-6, rtol=1e-6)


def test_the_cache_of_another_user_is_read(
    backbone: Callable[[str], Path], table: FeatureTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    prefix = make_prefix(backbone("bert"), "linear-probe")
    PrefixCache("disk", 10**9, Listener()).apply(prefix, table, EXACT, 30, IDENTITY)
    monkeypatch.setattr(os, "utime", refuse)
    log = Log()
    assert PrefixCache("disk", 10**9, log).apply(prefix, table, EXACT, 30, IDENTITY).states is not None
    assert "are read from" in log.lines[0]


def test_a_system_that_cannot_allocate_writes_zeros(
    backbone: Callable[[str], Path], table: FeatureTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "posix_fallocate")
    monkeypatch.setattr(prefix_cache, "_BLOCK", 1000)
    prefix = make_prefix(backbone("bert"), "linear-probe")
    kept = PrefixCache("disk", 10**9, Listener()).apply(prefix, table, EXACT, 30, IDENTITY)
    torch.testing.assert_close(logits(prefix, kept), logits(prefix, table), atol=1e-6, rtol=1e-6)


def test_states_are_computed_with_the_threads_that_were_chosen(
    backbone: Callable[[str], Path], table: FeatureTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix, seen = make_prefix(backbone("bert"), "linear-probe"), set()
    compute = Prefix.compute

    def counted(self: Prefix, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        seen.add(torch.get_num_threads())
        return compute(self, batch)

    monkeypatch.setattr(Prefix, "compute", counted)
    before = torch.get_num_threads()
    PrefixCache("memory", 0, Listener()).apply(prefix, table, Compute("fp32", "fused", before + 1), 30, IDENTITY)
    assert (seen, torch.get_num_threads()) == ({before + 1}, before)


def test_what_a_killed_process_has_left_is_removed_a_day_later(
    backbone: Callable[[str], Path], table: FeatureTable, folder: Path
) -> None:
    folder.mkdir(parents=True)
    left, growing = folder / "a.states.1.part", folder / "b.states.2.part"
    left.touch()
    growing.touch()
    os.utime(left, (1e9, 1e9))
    PrefixCache("disk", 10**9, Listener()).apply(make_prefix(backbone("bert"), "linear-probe"), table, EXACT, 30, {})
    assert list(folder.glob("*.part")) == [growing]
