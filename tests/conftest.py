"""What the tests share: tiny backbones, built once, and silence from the libraries."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

# Before torch is imported, here or in a process that a test starts: work this small is done before a second thread
# has begun, and on a busy machine each thread waits for the other.
os.environ["OMP_NUM_THREADS"] = "1"
# What a shell runs in the background ignores Ctrl-C, as does all that it starts; some tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)
# What is measured or kept here is kept apart from the user's.
os.environ["TRANSFERKIT_CACHE"] = tempfile.mkdtemp(prefix="transferkit-tests-")


@pytest.fixture(scope="session")
def quiet_libraries() -> None:
    """The libraries' bars and advice, off as in a run; pytest turns warnings into errors all the same."""
    from transferkit.environment import quiet_libraries as quiet

    quiet()


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory, quiet_libraries: None) -> Callable[[str], Path]:
    """The folder of a tiny pretrained backbone by its family, any that `tests.tiny` has; not to be changed."""
    from tests import tiny

    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = tiny.save_backbone(name, tmp_path_factory.mktemp("backbones") / name)
        return made[name]

    return folder
