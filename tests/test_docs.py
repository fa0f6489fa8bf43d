"""The pages hold together: links lead somewhere, commands and options exist, and the Python in them runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from pydantic import BaseModel

from transferkit.cli import app
from transferkit.config import CompareConfig, PretrainConfig, RunConfig, StrategySpec, TranslationConfig

PROJECT = Path(__file__).parents[1]
PAGES = sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")])
RECIPES = sorted((PROJECT / "recipes").glob("*.yaml"))

DASH = "\N{EN DASH}"
COMMON = {"--help", "--version"}
FLAGS = {
    name: COMMON | {flag for parameter in command.params for flag in parameter.opts if flag.startswith("--")}
    for name, command in app.commands.items()
}
ALL_FLAGS = set().union(*FLAGS.values())
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def name_of(path: Path) -> str:
    return str(path.relative_to(PROJECT))


def commands(text: str) -> list[str]:
    """Every `transferkit VERB ...` in code, on its own lines or in backticks; lines that go on are joined."""
    joined = re.sub(r"\\\n[#\s]*", " ", text)
    blocks = "\n".join(re.findall(r"^```bash\n(.*?)^```", joined, re.MULTILINE | re.DOTALL))
    inline = re.findall(r"`(transferkit [^`]+)`", re.sub(r"^```.*?^```", "", joined, flags=re.MULTILINE | re.DOTALL))
    return [line.strip() for line in blocks.splitlines() if line.strip().startswith("transferkit ")] + inline


def wrong_in(command: str) -> str | None:
    """What the command line does not know in `transferkit ...`."""
    words = shlex.split(command, comments=True)[1:]
    if not words or words[0].isupper() or words[0] in COMMON:
        return None
    verb, *rest = words
    if verb not in FLAGS:
        return f"the verb {verb}"
    unknown = [word for word in rest if word.startswith("--") and word not in FLAGS[verb]]
    return f"{unknown[0]} of {verb}" if unknown else None


def anchors(text: str) -> set[str]:
    """The names that headings can be linked by."""
    headings = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def settings_in(table: str) -> dict[str, str]:
    """The settings of a table in Markdown, and what they are unless said."""
    rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in table.splitlines() if line.startswith("| `")]
    return {name: usual for names, usual in rows for name in re.findall(r"`([\w.]+)`", names)}


def settings_of(*configs: type[BaseModel]) -> dict[str, str]:
    """The settings that the configurations have, and their defaults as the page writes them."""
    found: dict[str, str] = {}
    for config in configs:
        for name, field in config.model_fields.items():
            kind = field.annotation
            if isinstance(kind, type) and issubclass(kind, BaseModel) and kind is not StrategySpec:
                found |= {f"{name}.{inner}": usual for inner, usual in settings_of(kind).items()}
            else:
                found[name] = DASH if field.is_required() else as_written(field.get_default(call_default_factory=True))
    return found


def as_written(value: object) -> str:
    if value is None or value == {}:
        return DASH
    if isinstance(value, tuple):
        return ", ".join(map(as_written, value))
    return (
        value.name if isinstance(value, StrategySpec) else str(value).lower() if isinstance(value, bool) else str(value)
    )


def test_the_page_of_settings_has_all_of_them_with_their_defaults() -> None:
    page = (PROJECT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    _, classification, translation = page.split("\n## ")
    assert settings_in(classification) == settings_of(PretrainConfig, RunConfig, CompareConfig)
    translated = settings_of(TranslationConfig)
    del translated["task"]
    assert settings_in(translation) == translated


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    broken = []
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_options_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [wrong for command in commands(text) if (wrong := wrong_in(command))] == []
    # Options named by themselves; those of other programs have the program's name in the same code.
    alone = [flag for code in re.findall(r"`(--[^`]+)`", text) for flag in FLAG.findall(code)]
    assert set(alone) <= ALL_FLAGS


@pytest.mark.parametrize("recipe", RECIPES, ids=name_of)
def test_commands_in_recipes_exist(recipe: Path) -> None:
    text = recipe.read_text(encoding="utf-8")
    joined = re.sub(r"\\\n#\s*", "", text)
    found = re.findall(r"transferkit (?:compare|pretrain|train) .*", joined)
    assert len(found) >= 2
    assert [wrong for command in found if (wrong := wrong_in(command))] == []


def test_a_wrong_command_is_noticed() -> None:
    assert wrong_in("transferkit compare --data x.csv") is None
    assert wrong_in("transferkit comprae --data x.csv") == "the verb comprae"
    assert wrong_in("transferkit predict RUN --data x.csv") == "--data of predict"
    assert isinstance(app, click.Group)


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent != PROJECT], ids=name_of)
def test_python_in_the_pages_runs(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for block in re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        line = text.count("\n", 0, block.start()) + 2
        code = compile("\n" * (line - 1) + block[1], str(page), "exec", dont_inherit=True)
        exec(code, {"__name__": "__main__"})


def test_every_path_in_the_architecture_is_there() -> None:
    text = (PROJECT / "docs" / "architecture.md").read_text(encoding="utf-8")
    files = re.findall(r"`((?:\w+/)*\w+\.py)`", text)
    assert [name for name in files if not (PROJECT / "src" / "transferkit" / name).is_file()] == []


def test_the_path_of_a_run_is_ten_files_at_most() -> None:
    text = (PROJECT / "docs" / "architecture.md").read_text(encoding="utf-8")
    path = text.partition("## The path of one run")[2].partition("\n## ")[0]
    assert 5 <= len(re.findall(r"^\d+\. ", path, re.MULTILINE)) <= 10


def test_the_defaults_in_the_table_of_strategies_are_those_of_the_code() -> None:
    from transferkit.adaptation.strategies import STRATEGIES

    text = (PROJECT / "docs" / "explanation" / "strategies.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \| ([\de.-]+) \| (\d+) \| (\d+) %[^|]*\| (whole model|capsule) \|", text, re.M)
    stated = {name: (float(rate), int(epochs), int(share) / 100, kept) for name, rate, epochs, share, kept in rows}
    assert stated == {
        name: (
            kind.model_fields["learning_rate"].default,
            kind.model_fields["epochs"].default,
            kind.model_fields["warmup_ratio"].default,
            "whole model" if kind.keeps_whole_model else "capsule",
        )
        for name, kind in STRATEGIES.items()
    }
