"""The report of a translation run."""

from __future__ import annotations

from pathlib import Path

from transferkit import run_folder


def write(folder: Path) -> Path:
    """Draw `report.html` from the files of a run."""
    return folder / run_folder.REPORT_FILE
