"""The JSON schemas of the files that others read, made from the models that write them.

    python -m transferkit.schemas docs/reference

writes them; a test holds the written ones to the models.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from transferkit.adaptation.capsule import CapsuleInfo
from transferkit.evaluation.results import Comparison, EpochRecord, LoRAUpdates, Mistake, RunResult, write_json
from transferkit.inference.quantization import Quality
from transferkit.run_record import RunRecord, TranslationRecord

# The model of each schema, by the name of its file.
MODELS: dict[str, type[BaseModel]] = {
    "comparison": Comparison,
    "result": RunResult,
    "run": RunRecord,
    "translation-run": TranslationRecord,
    "epoch": EpochRecord,
    "mistake": Mistake,
    "lora": LoRAUpdates,
    "capsule": CapsuleInfo,
    "quantization": Quality,
}


class _AsWritten(GenerateJsonSchema):
    """A file holds every field, so all are required; a title that repeats the name of its field says nothing."""

    def field_is_required(self, *_: Any, **__: Any) -> bool:
        return True

    def field_title_should_be_set(self, *_: Any, **__: Any) -> bool:
        return False


def schema(name: str) -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of what the model `name` of MODELS looks like in a file."""
    model = MODELS[name]
    drawn = model.model_json_schema(mode="serialization", schema_generator=_AsWritten)
    return {"$schema": GenerateJsonSchema.schema_dialect, **drawn}


def file_name(name: str) -> str:
    """Where the schema of the model `name` is written."""
    return f"{name}.schema.json"


def write(folder: Path) -> list[Path]:
    """Write every schema into `folder` and return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / file_name(name) for name in MODELS]
    for name, path in zip(MODELS, paths, strict=True):
        write_json(path, schema(name))
    return paths


def main(arguments: list[str]) -> None:
    """Write the schemas into the one folder named and say which files they are."""
    if len(arguments) != 1:
        sys.exit("usage: python -m transferkit.schemas FOLDER")
    for path in write(Path(arguments[0])):
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
