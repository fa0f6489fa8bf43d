"""Imports go one way, and the light ones stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "transferkit"
# Each may import from those before it.
ORDER = [
    "errors", "hub_errors", "formatting", "parsing", "config", "settings", "environment", "data", "tokenization",
    "tasks", "models", "generation", "adaptation", "evaluation", "training", "run_record", "run_folder", "job",
    "pipeline", "translation_pipeline", "comparison", "report", "inference", "api", "schemas", "console",
    "options", "cli",
]  # fmt: skip
FREE = {"__init__", "__main__"}


def layer(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_layers(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("transferkit"):
            parts = node.module.split(".")[1:]
            found |= {parts[0]} if parts else {alias.name for alias in node.names}
    return {name for name in found if (SOURCE / name).is_dir() or (SOURCE / f"{name}.py").is_file()}


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_module_imports_only_from_layers_before_its_own(path: Path) -> None:
    own = layer(path)
    if own in FREE:
        return
    later = {name for name in imported_layers(path) if ORDER.index(name) > ORDER.index(own)}
    assert not later, f"{own} comes before {later}"


@pytest.mark.parametrize("command", ["import transferkit", "import transferkit.cli"])
def test_the_surface_imports_without_heavy_libraries(command: str) -> None:
    heavy = ("torch", "transformers", "datasets", "sklearn", "matplotlib", "pandas", "pydantic")
    code = f"{command}; import sys; print(*[m for m in {heavy!r} if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == []


def test_a_training_holds_nothing_of_what_draws() -> None:
    code = "import transferkit.api, sys; print('matplotlib' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["False"]
