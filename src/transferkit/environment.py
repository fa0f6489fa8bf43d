"""The versions and the hardware that a result was made with, and the memory that making it took."""

from __future__ import annotations

import ctypes
import gc
import hashlib
import os
import platform
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import psutil

PACKAGES = (
    "transferkit", "torch", "transformers", "tokenizers", "datasets", "accelerate", "peft", "safetensors",
    "scipy", "numpy", "pyarrow",
)  # fmt: skip

Batch = TypeVar("Batch")
# Releasing takes less than a millisecond, and getting again what was given back a few hundredths of a batch's time.
BATCHES_PER_RELEASE = 2


def describe() -> dict[str, Any]:
    """Versions and hardware, ready for JSON."""
    import torch

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "packages": {name: package_version(name) for name in PACKAGES},
    }


def quiet_libraries() -> None:
    """Keep the libraries' own bars and advice out of our output; their errors still reach us as exceptions."""
    import huggingface_hub.utils
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    huggingface_hub.utils.disable_progress_bars()


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def user_path(name: str | Path) -> Path:
    """A path as the user types it, with `~` for a home; where there is no such user, as it stands."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def cache_folder() -> Path:
    """Where what was measured or computed is kept for later runs: $TRANSFERKIT_CACHE, or in the user's cache."""
    own = os.environ.get("TRANSFERKIT_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "transferkit"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A place beside `path` to write to, which becomes `path` at the end: a reader never meets half of a file.

    Where the block fails, what it wrote is removed and `path` is as it was.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def write_through(path: Path) -> None:
    """Have the bytes of a file on the disk: one that is renamed before could hold nothing after a power cut."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def write_file(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_cached(path: Path, text: str) -> None:
    """Write a file of the cache folder; a cache that cannot be written is done without."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, text)


def package_version(name: str) -> str | None:
    """The version that is installed; None where there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def processor() -> str:
    """The name of the processor's model."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def release_memory() -> None:
    """Give memory that is free back to the system, where the C library can, and what Arrow has read files with.

    After a phase of work it lies in pieces too small for the next phase, which then takes as much again.
    """
    if arrow := sys.modules.get("pyarrow"):
        arrow.default_memory_pool().release_unused()
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def releasing(batches: Iterable[Batch]) -> Iterator[Batch]:
    """`batches`, with free memory given back after every few: each length of them leaves pieces that no other fits."""
    for number, batch in enumerate(batches, start=1):
        yield batch
        if number % BATCHES_PER_RELEASE == 0:
            release_memory()


@contextmanager
def uncollected() -> Iterator[None]:
    """Leave Python's search for cycles out while rows are read: they make none, and many objects that set it off.

    It looks through all objects of the process, which takes 0.15 s with transformers loaded, and the more often the
    more rows there are. Around a function it is a decorator.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class PeakMemory:
    """The most resident memory the process had inside the `with` block, in bytes.

    Sampled, because the kernel's own high-water mark covers the whole life of the process, and a comparison
    runs many strategies in one.
    """

    INTERVAL_SECONDS = 0.05

    def __enter__(self) -> Self:
        self._process = psutil.Process()
        self.bytes = self.now()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def now(self) -> int:
        """Bytes at this moment."""
        resident: int = self._process.memory_info().rss
        return resident

    def _sample(self) -> None:
        while not self._stop.wait(self.INTERVAL_SECONDS):
            self.bytes = max(self.bytes, self.now())
