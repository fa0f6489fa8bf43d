"""What a folder of runs says, read from its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.report import samples
from transferkit.comparison.conclusion import read_comparison
from transferkit.errors import RunError
from transferkit.evaluation.results import write_json


def test_mistakes_come_back_and_damaged_ones_are_named(tmp_path: Path) -> None:
    comparison, mistakes = samples.compare([samples.run("lora")]), samples.mistakes(["lora"])
    write_json(tmp_path / "comparison.json", comparison)
    assert read_comparison(tmp_path) == (comparison, [])
    path = tmp_path / "mistakes.json"
    write_json(path, [mistake.model_dump(mode="json") for mistake in mistakes])
    assert read_comparison(tmp_path) == (comparison, mistakes)
    whole = path.read_text(encoding="utf-8")
    for damaged in (whole[:-20], whole.replace('"row"', '"line"'), "{}"):
        path.write_text(damaged, encoding="utf-8")
        with pytest.raises(RunError, match=r"mistakes\.json is damaged .*; run again with --overwrite"):
            read_comparison(tmp_path)
