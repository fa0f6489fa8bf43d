from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("TRANSFERKIT_DATA", PROJECT.parent / "shared" / "data"))


@pytest.fixture
def shared() -> Callable[[str], str]:
    """The path of a real file; where it is absent the test is skipped, except in continuous integration."""

    def path(name: str) -> str:
        found = SHARED / name
        if not found.exists() and not os.environ.get("CI"):
            pytest.skip(f"{found} is not on this machine; TRANSFERKIT_DATA names its folder")
        return str(found)

    return path


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[..., Path]:
    """Write a CSV file of a header and rows, and give its path."""

    def write(name: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
        path = tmp_path / name
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows])
        return path

    return write


@pytest.fixture
def reviews(write_csv: Callable[..., Path]) -> Path:
    """A file of 60 different reviews, two of three of them good."""
    rows = ((f"review number {i}", "bad" if i % 3 == 0 else "good") for i in range(60))
    return write_csv("reviews.csv", ["text", "label"], rows)
