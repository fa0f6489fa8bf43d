"""The README is true: its commands and its Python run as they stand, in order, in a folder with its files."""

from __future__ import annotations

import io
import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import small_data
from transferkit import cli

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text(encoding="utf-8")
WRITTEN = ["runs/reviews/report.html", "predicted.csv", "exported/peft/adapter_model.safetensors", "runs/python"]


@dataclass(frozen=True)
class Step:
    """A shell command or a block of Python, and where it stands."""

    line: int
    language: str
    code: str


def steps(text: str) -> list[Step]:
    """The commands and blocks in the order of the page; a shell command may go on after a backslash."""
    found = []
    for block in re.finditer(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        line = text.count("\n", 0, block.start()) + 2
        language, code = block.groups()
        if language != "bash":
            found.append(Step(line, language, code))
            continue
        joined = re.sub(r"\\\n\s*", " ", code)
        found += [Step(line, language, command) for command in joined.splitlines() if command.strip()]
    return found


STEPS = steps(README)


def run_shell(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run `transferkit ...` in this process; `< file` is standard input."""
    words = shlex.split(command, comments=True)
    if "<" in words:
        *words, _, name = words
        monkeypatch.setattr(sys, "stdin", io.StringIO(Path(name).read_text(encoding="utf-8")))
    monkeypatch.setattr(sys, "argv", words)
    cli.main()


def write_files(folder: Path) -> None:
    """The files that the README names."""
    reviews = small_data.plain_reviews(50)
    small_data.write_csv(folder / "reviews.csv", ["text", "label"], reviews[:80])
    small_data.write_csv(folder / "more.csv", ["text", "label"], reviews[80:])
    texts = [text for text, _ in reviews[80:85]]
    small_data.write_csv(folder / "new.csv", ["id", "text"], [(str(row), text) for row, text in enumerate(texts)])
    (folder / "new.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    small_data.write_csv(folder / "pairs.csv", ["question1", "question2", "duplicate"], small_data.pairs(24))
    shutil.copytree(PROJECT / "recipes", folder / "recipes")


def test_every_command_and_every_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for step in STEPS:
        try:
            if step.language == "python":
                exec(compile(step.code, f"README.md:{step.line}", "exec", dont_inherit=True), names)
            elif step.code.startswith("transferkit"):
                run_shell(step.code, monkeypatch)
        except (Exception, SystemExit) as error:
            raise AssertionError(f"README.md, line {step.line}: {step.code}\n{error!r}") from error
    assert [name for name in WRITTEN if not Path(name).exists()] == []


def test_shell_blocks_hold_known_commands_only() -> None:
    others = [step.code for step in STEPS if step.language == "bash" and not step.code.startswith("transferkit")]
    assert others
    assert all(command.startswith("make ") for command in others)


def test_the_make_targets_that_are_named_are_there() -> None:
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    in_prose = re.findall(r"`make ([a-z-]+)`", README)
    named = {*in_prose, *(step.code.split()[1] for step in STEPS if step.code.startswith("make "))}
    assert {"demo", "test", "help"} <= named
    assert {name for name in named if not re.search(rf"^{name}:", makefile, re.MULTILINE)} == set()


def test_the_table_of_strategies_names_them_all() -> None:
    from transferkit.adaptation.strategies import STRATEGIES

    assert set(re.findall(r"^\| `([a-z-]+)` \|", README, re.MULTILINE)) == set(STRATEGIES)
