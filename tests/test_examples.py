"""Every example runs, in seconds, and says what it says it does."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import small_data
from tests.data.test_images import write as write_idx

EXAMPLES = Path(__file__).parents[1] / "examples"
Example = Callable[..., Any]


def main_of(name: str) -> Example:
    main: Example = runpy.run_path(str(EXAMPLES / name))["main"]
    return main


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
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].endswith("hidden.lora_a, hidden.lora_b, output.weight, output.bias")
    assert lines[1].count("hidden.lora_a") == 1
    printed = dict(line.split(": ", 1) for line in lines)
    assert float(printed["adapted to 5-9"].rstrip("%")) > 80
    assert printed["the base is still there for 0-4"] == printed["pretrained on 0-4"]


@pytest.mark.parametrize("name", ["adapt_any_module.py", "digits_to_letters.py"])
def test_an_example_without_scikit_learn_says_what_to_install(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("sklearn", "sklearn.datasets"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SystemExit) as ended:
        main_of(name)()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "scikit-learn is not installed; install it with: pip install scikit-learn.\n"


def rows_of(printed: str) -> dict[str, tuple[int, float]]:
    """Trainable parameters and accuracy in percent by strategy."""
    found = re.findall(r"^(\S.*?) +([\d,]+) \(\S+.%\) +([\d.]+).% \(", printed, re.MULTILINE)
    return {name: (int(count.replace(",", "")), float(accuracy)) for name, count, accuracy in found}


def test_digits_to_letters(capsys: pytest.CaptureFixture[str]) -> None:
    main_of("digits_to_letters.py")("--epochs", "4", "--seeds", "0")
    printed = capsys.readouterr().out
    rows = rows_of(printed)
    assert {name: count for name, (count, _) in rows.items()} == {
        "scratch": 61_281, "full": 61_281, "linear-probe": 425, "lora 2, linear2": 425 + 2 * (120 + 84),
        "lora 2, both": 425 + 2 * (520 + 204), "lora 7, both": 425 + 7 * (520 + 204),
    }  # fmt: skip
    assert "letters: 627 to train on, 179 to test on" in printed
    assert rows["full"][1] > 90
    assert 40 < rows["linear-probe"][1] < rows["lora 7, both"][1]
    # Every strategy but full is shown with its interval, its p value and what that says.
    assert len(re.findall(r"\(.\d+\.\d to .*\), p .*; (?:yes|no|open)$", printed, re.MULTILINE)) == len(rows) - 1


def test_digits_to_letters_reads_idx_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    for name in ("digits", "letters"):
        write_idx(
            tmp_path / name, random.integers(0, 256, (40, 28, 28), dtype=np.uint8), np.arange(40, dtype=np.uint8) % 2
        )
    files = ("--digits", str(tmp_path / "digits"), "--letters", str(tmp_path / "letters"))
    main_of("digits_to_letters.py")(*files, "--epochs", "1", "--seeds", "0,1", "--train-size", "10")
    printed = capsys.readouterr().out
    assert [line.split(":")[0] for line in printed.splitlines()[:3]] == ["seed 0", "seed 1", "letters"]
    assert ": 10 to train on, 8 to test on" in printed
    assert rows_of(printed)["full"][0] == 61_026


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--train-size", "5000", "--train-size is 5,000, and there are 627 rows for train in scikit-learn's digits; "),
        ("--train-size", "0", "argument --train-size: '0' is not a whole number from 1"),
        ("--epochs", "0", "argument --epochs: '0' is not a whole number from 1"),
        ("--epochs", "two", "argument --epochs: 'two' is not a whole number from 1"),
        *(
            ("--seeds", seeds, f"argument --seeds: {seeds!r} is not a list of different seeds from 0 to 2^32 - 1, ")
            for seeds in ("0,x", "1,1", "-1", "4294967296")
        ),
        ("--digits", "missing", "There is no file missing."),
    ],
)
def test_digits_to_letters_says_what_is_wrong(
    option: str, value: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main_of("digits_to_letters.py")(option, value)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["own_data.py", "export_lora.py"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["missing.csv", "out"], "missing.csv"), (["missing.csv"], "the following arguments are required: out")],
)
def test_an_example_says_what_is_wrong_with_its_arguments(
    name: str,
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


# PEFT asks the model by a name that transformers has deprecated.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_export_lora(reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The example compares the logits itself.
    main_of("export_lora.py")(str(reviews), str(tmp_path))
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["PEFT", "transformers"]
