"""Temporary Arrow files: what is read lives on disk and is memory-mapped, not held in memory."""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pyarrow as pa

_numbers = itertools.count()


@cache
def folder() -> Path:
    """The one temporary folder of this process, removed when the process ends."""
    path = Path(tempfile.mkdtemp(prefix="transferkit-"))
    owner = os.getpid()

    def remove() -> None:
        # A forked child inherits this hook, but not the folder.
        if os.getpid() == owner:
            shutil.rmtree(path, ignore_errors=True)

    atexit.register(remove)
    return path


def new_file() -> Path:
    """A name for a new Arrow file of the workspace."""
    # A forked child inherits the folder and the count.
    return folder() / f"{os.getpid()}-{next(_numbers)}.arrow"


def write(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Path:
    """Stream record batches into a new Arrow file of the workspace."""
    path = new_file()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return path


def open_table(path: Path) -> pa.Table:
    """The table in an Arrow file, memory-mapped."""
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_stream(source).read_all()
