"""The schemas that others rely on say what the files hold, and the committed ones are not out of date."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from transferkit import run_folder, schemas
from transferkit.config import RunConfig
from transferkit.evaluation.metrics import score
from transferkit.run_record import BackboneRecord, ComputeRecord, RunRecord, TokenizerRecord

from .report import samples

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"


def validator(name: str) -> Draft202012Validator:
    Draft202012Validator.check_schema(schemas.schema(name))
    return Draft202012Validator(schemas.schema(name))


def as_file(record: Any) -> Any:
    return json.loads(record.model_dump_json(by_alias=True))


def comparison() -> Any:
    runs = [samples.run("lora"), samples.run("full", 1, collapsed=True), samples.failed("scratch", "no memory")]
    return as_file(samples.compare(runs))


def run_record() -> RunRecord:
    return RunRecord(
        created="2025-03-14T09:26:53+00:00",
        label="lora",
        config=RunConfig(),
        task="classification",
        labels=("neg", "pos"),
        is_pair=False,
        keeps_whole_model=False,
        backbone=BackboneRecord(
            name="minilm", folder="/models/minilm", revision=None, fingerprint="0f", pooling="mean"
        ),
        tokenizer=TokenizerRecord(hash="0e", max_length=256, truncation_side="right"),
        compute=ComputeRecord(precision="fp32", attention="plain", threads=2),
        trainable_names=("head.weight",),
        total_bytes=90_300_000,
        data=samples.data_facts(),
        environment={"cores": 2},
    )


@pytest.mark.parametrize("name", schemas.MODELS)
def test_committed_schema_is_that_of_the_model(name: str) -> None:
    path = REFERENCE / schemas.file_name(name)
    assert json.loads(path.read_text(encoding="utf-8")) == schemas.schema(name), (
        f"{path.name} is out of date; write it anew with: python -m transferkit.schemas docs/reference"
    )


def test_files_that_are_written_are_valid() -> None:
    validator("comparison").validate(comparison())
    validator("result").validate(as_file(samples.run("lora")))
    validator("result").validate(as_file(samples.failed("lora", "no memory")))
    validator("run").validate(as_file(run_record()))
    ((_, epochs),) = samples.histories([samples.run("lora")]).items()
    validator("epoch").validate(as_file(epochs[0]))
    validator("mistake").validate(as_file(samples.mistakes(["lora"])[0]))
    for plane in (True, False):
        validator("lora").validate(as_file(samples.lora_updates(plane=plane)))


def test_scores_of_real_predictions_are_valid() -> None:
    found = score([0, 1, 0], [[2.0, 0.0], [0.5, 0.1], [1.0, 0.0]], ("neg", "pos"))
    result = samples.run("lora").model_copy(update={"scores": found, "metrics": found.metrics})
    validator("result").validate(as_file(result))


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"schema": "transferkit/comparison/2"}, "schema"),
        ({"baseline": {"accuracy": "high"}}, "baseline"),
        ({"surprise": 1}, ""),
        ({"results": [{"strategy": "lora"}]}, "results"),
        ({"verdict": None}, "verdict"),
        ({"pairs": [{"interval": [0.1]}]}, "pairs"),
    ],
)
def test_a_wrong_comparison_is_refused(change: dict[str, Any], where: str) -> None:
    errors = list(validator("comparison").iter_errors(comparison() | change))
    assert errors
    assert {str(error.path[0]) if error.path else "" for error in errors} == {where}


@pytest.mark.parametrize("field", ["status", "metrics", "error", "stored_bytes", "scores"])
def test_a_field_that_is_missing_is_refused(field: str) -> None:
    entry = as_file(samples.run("lora"))
    del entry[field]
    assert not validator("result").is_valid(entry)


def test_no_field_of_a_file_is_undocumented() -> None:
    text = (REFERENCE / "files.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)`", text))
    for name in ("comparison", "result", "run", "lora"):
        assert set(schemas.schema(name)["properties"]) <= named, name
    for name in schemas.MODELS:
        assert f"({schemas.file_name(name)})" in text
    for file in (value for key, value in vars(run_folder).items() if key.endswith("_FILE")):
        assert f"`{file}`" in text


def test_command_writes_every_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schemas.main([str(tmp_path / "new")])
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert set(paths) == set((tmp_path / "new").iterdir())
    assert [path.name for path in paths] == [schemas.file_name(name) for name in schemas.MODELS]
    with pytest.raises(SystemExit, match="usage"):
        schemas.main([])
