"""The prefix cache: what the frozen lower layers answer for each row, computed once and then read.

With it a linear probe trains on features, and partial unfreezing computes only the layers that train, in every epoch,
every evaluation, and every run of a comparison that freezes the same layers.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import psutil
import torch
from torch import Tensor

from transferkit.adaptation.prefix import Prefix
from transferkit.data.batching import FeatureTable
from transferkit.environment import (
    cache_folder,
    package_version,
    processor,
    release_memory,
    releasing,
    whole_file,
    write_through,
)
from transferkit.formatting import size
from transferkit.training.precision import Compute, autocast, threads, training_kernels
from transferkit.training.tracking import Listener

Mode = Literal["auto", "off", "memory", "disk"]
# Of the memory that is free: the rest is for the model, its gradients, and the user's other work.
MEMORY_SHARE = 0.25
_DAY = 24 * 60 * 60
_BLOCK = 2**20


@dataclass(frozen=True)
class States:
    """States of all rows one after the other, without padding: [rows, width], or [tokens of all rows, width]."""

    data: Tensor
    starts: np.ndarray | None  # of each row in `data`, and the end of the last; None where a row is one vector
    file: mmap.mmap | None = None  # that holds `data`, where it is on the disk

    @property
    def is_pooled(self) -> bool:
        """Whether a row is one vector."""
        return self.starts is None

    def batch(self, rows: np.ndarray, length: int) -> Tensor:
        """Of `rows`: [rows, width], or [rows, length, width], where padding repeats the row's first token."""
        index = self._places(rows, length)[0]
        states = self.data.index_select(0, index.flatten()).view(*index.shape, -1)
        self._give_back()
        return states

    def put(self, rows: np.ndarray, states: Tensor) -> None:
        """Keep what was computed for `rows`."""
        index, is_real = self._places(rows, states.shape[1])
        self.data[index[is_real]] = states[is_real].to(self.data.dtype)
        self._give_back()

    def _places(self, rows: np.ndarray, length: int) -> tuple[Tensor, Tensor]:
        """Where the states of `rows` are in `data`, and which are not padding: both [rows] or [rows, length]."""
        if self.starts is None:
            index = torch.from_numpy(rows)
            return index, torch.ones_like(index, dtype=torch.bool)
        first = torch.from_numpy(self.starts[rows]).unsqueeze(1)
        is_real = torch.arange(length) < torch.from_numpy(self.starts[rows + 1]).unsqueeze(1) - first
        return first + torch.arange(length) * is_real, is_real

    def flush(self) -> None:
        """Hand what was put to the system, where there is a file."""
        if self.file is not None:
            self.file.flush()

    def _give_back(self) -> None:
        """Let go of the pages of the file: the system would count them as the process's own until it needs memory."""
        if self.file is not None and hasattr(mmap, "MADV_DONTNEED"):
            self.file.madvise(mmap.MADV_DONTNEED)


@dataclass
class PrefixCache:
    """The states of several tables, each under a key that names all they depend on."""

    mode: Mode
    budget_bytes: int
    listener: Listener
    kept: dict[str, States] = field(default_factory=dict)
    # Bytes of the files that are in use.
    on_disk: int = 0
    # Whether it has been said that states are not kept.
    has_refused: bool = False
    # That each have a cache, and share the memory and the folder.
    processes: int = 1

    @property
    def is_used(self) -> bool:
        """Whether it was asked for states at all."""
        return bool(self.kept) or self.has_refused

    def apply(
        self, prefix: Prefix, table: FeatureTable, compute: Compute, max_tokens: int, identity: dict[str, str]
    ) -> FeatureTable:
        """`table` with the states of its rows, or as it is where they cannot be kept.

        Args:
            prefix: the lower part of the model, in eval mode.
            table: the rows.
            compute: another precision, kernel or number of threads rounds in another way.
            max_tokens: of one pass through the model, which decides the rows that share it, and so the rounding.
            identity: what the states depend on besides: the base, the tokenizer, the text.
        """
        key = _key(prefix, compute, max_tokens, identity)
        if key not in self.kept:
            with threads(compute.threads):
                states = self._make(key, prefix, table, compute, max_tokens)
            if states is None:
                return table
            self.kept[key] = states
        return replace(table, states=self.kept[key])

    def _make(self, key: str, prefix: Prefix, table: FeatureTable, compute: Compute, max_tokens: int) -> States | None:
        with torch.inference_mode(), training_kernels(prefix.model, compute), autocast(compute):
            _, features = next(table.in_length_order(1))
            first = _compute(prefix, features)
        starts = None if prefix.is_pooled else np.concatenate([[0], np.cumsum(table.lengths, dtype=np.int64)])
        shape = (len(table) if starts is None else int(starts[-1]), first.shape[-1])
        # A mean comes in fp32, and under autocast the head reads it in bf16.
        dtype = torch.bfloat16 if compute.precision == "bf16" else first.dtype
        number_of_bytes = shape[0] * shape[1] * dtype.itemsize
        place = self._choose_place(number_of_bytes)
        if place is None:
            return None

        def fill(states: States) -> None:
            self.listener.extended(len(table))
            with training_kernels(prefix.model, compute):
                _fill(states, prefix, table, compute, max_tokens, self.listener)
            release_memory()

        if place == "disk":
            return self._on_disk(key, shape, dtype, starts, fill)
        states = States(torch.empty(shape, dtype=dtype), starts)
        fill(states)
        return states

    def _choose_place(self, number_of_bytes: int) -> Literal["memory", "disk"] | None:
        if self.mode == "memory":
            return "memory"
        if self.mode == "auto" and number_of_bytes <= MEMORY_SHARE * psutil.virtual_memory().available / self.processes:
            return "memory"
        if self.on_disk + number_of_bytes <= self.budget_bytes / self.processes:
            return "disk"
        share = "its share of " if self.processes > 1 else ""
        and_memory = f"{share}a quarter of the free memory and than " if self.mode == "auto" else ""
        self._refuse(
            f"No prefix cache: the states of the frozen layers take {size(number_of_bytes)}, more than {and_memory}"
            f"{share}training.prefix_cache_gigabytes leaves."
        )
        return None

    def _on_disk(
        self, key: str, shape: tuple[int, int], dtype: torch.dtype, starts: np.ndarray | None,
        fill: Callable[[States], None],
    ) -> States | None:  # fmt: skip
        """States in a memory-mapped file, found there or computed now; None where the disk has no room for them."""
        file = cache_folder() / "prefix" / f"{key}.states"
        number_of_bytes = shape[0] * shape[1] * dtype.itemsize
        found = _found(file, shape, dtype, starts)
        if found is not None:
            self.listener.said(f"Prefix cache: the states of the frozen layers are read from {file}.")
            self.on_disk += number_of_bytes
            return found
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            _make_room(file.parent, self.budget_bytes - number_of_bytes)
            with whole_file(file) as partial:
                _allocate(partial, number_of_bytes)
                states = _mapped(partial, shape, dtype, starts, mmap.ACCESS_WRITE)
                fill(states)
                states.flush()
                write_through(partial)
        except OSError as error:
            self._refuse(f"Warning: no prefix cache, as {file.parent} cannot take it: {error.strerror}.")
            return None
        self.on_disk += number_of_bytes
        return states

    def _refuse(self, why: str) -> None:
        """Say once why states are not kept: what is so of one split is so of the others, and of all runs."""
        if not self.has_refused:
            self.listener.said(why)
        self.has_refused = True


def _key(prefix: Prefix, compute: Compute, max_tokens: int, identity: dict[str, str]) -> str:
    """Names the states to the last bit: a run gives the same numbers whatever was kept before it."""
    versions = {name: package_version(name) for name in ("transferkit", "torch", "transformers")}
    facts = [identity, str(prefix), asdict(compute), max_tokens, processor(), versions]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _compute(prefix: Prefix, batch: dict[str, Tensor]) -> Tensor:
    return prefix.compute({name: tensor for name, tensor in batch.items() if name != "labels"})


@torch.inference_mode()
def _fill(
    states: States, prefix: Prefix, table: FeatureTable, compute: Compute, max_tokens: int, listener: Listener
) -> None:
    for rows, batch in releasing(table.in_length_order(max_tokens)):
        with autocast(compute):
            states.put(rows, _compute(prefix, batch))
        listener.advanced(len(rows))


def _found(file: Path, shape: tuple[int, int], dtype: torch.dtype, starts: np.ndarray | None) -> States | None:
    """What an earlier run has left in `file`; None where there is nothing that can be read."""
    try:
        if file.stat().st_size != shape[0] * shape[1] * dtype.itemsize:
            return None
        states = _mapped(file, shape, dtype, starts, mmap.ACCESS_COPY)
    except OSError:
        # Another process may make room at this moment.
        return None
    with suppress(OSError):
        os.utime(file)
    return states


def _allocate(file: Path, number_of_bytes: int) -> None:
    """Take the room on the disk: a write through a map to a disk that is full would end the process."""
    with file.open("wb") as handle:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(handle.fileno(), 0, number_of_bytes)
        else:
            for start in range(0, number_of_bytes, _BLOCK):
                handle.write(bytes(min(_BLOCK, number_of_bytes - start)))


def _mapped(file: Path, shape: tuple[int, int], dtype: torch.dtype, starts: np.ndarray | None, access: int) -> States:
    """The states in `file`, which has their size; with ACCESS_WRITE what is put there reaches it."""
    with file.open("r+b" if access == mmap.ACCESS_WRITE else "rb") as handle:
        mapped = mmap.mmap(handle.fileno(), 0, access=access)
    return States(torch.frombuffer(mapped, dtype=dtype).view(shape), starts, mapped)


def _make_room(folder: Path, budget_bytes: int) -> None:
    """Remove the files that were used the longest ago until the others take no more than `budget_bytes`.

    So are those removed that a process has begun and not finished for a day.
    """
    for facts, part in _present(folder.glob("*.part")):
        if facts.st_mtime < time.time() - _DAY:
            part.unlink(missing_ok=True)
    files = sorted(_present(folder.glob("*.states")), key=lambda pair: pair[0].st_mtime, reverse=True)
    total = 0
    for facts, file in files:
        total += facts.st_size
        if total > budget_bytes:
            file.unlink(missing_ok=True)


def _present(files: Iterable[Path]) -> list[tuple[os.stat_result, Path]]:
    """What the system says of each file, but for those that another process has removed meanwhile."""
    found = []
    for file in files:
        with suppress(FileNotFoundError):
            found.append((file.stat(), file))
    return found
