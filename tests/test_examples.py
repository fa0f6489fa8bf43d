"""Every example runs, in seconds, and says what it says it does."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import small_data

EXAMPLES = Path(__file__).parents[1] / "examples"
Example = Callable[..., Any]


def main_of(name: str) -> Example:
    main: Example = runpy.run_path(str(EXAMPLES / name))["main"]
    return main


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    yield from small_data.one_thread()


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "reviews.csv"
    return small_data.write_csv(path, ["text", "label"], small_data.plain_reviews(24))


def test_there_is_a_test_for_every_example() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert [path.name for path in EXAMPLES.glob("*.py") if f'main_of("{path.name}")' not in source] == []


def test_own_data(reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main_of("own_data.py")(str(reviews), str(tmp_path / "out"))
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines[:3]} == {"linear-probe", "lora", "full"}
    assert all(line.startswith(("pos {", "neg {")) for line in lines[-2:])
    assert (tmp_path / "out" / "report.html").is_file()


def test_adapt_any_module(capsys: pytest.CaptureFixture[str]) -> None:
    main_of("adapt_any_module.py")()
    printed = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert float(printed["adapted to 5-9"].rstrip("%")) > 80
    assert printed["the base is still there for 0-4"] == printed["pretrained on 0-4"]


# PEFT asks the model by a name that transformers has deprecated.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_export_lora(reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The example compares the logits itself.
    main_of("export_lora.py")(str(reviews), str(tmp_path))
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["PEFT", "transformers"]
