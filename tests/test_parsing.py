"""Settings as they are typed: read, and refused by the names they were typed with."""

from __future__ import annotations

from pathlib import Path

import pytest

from transferkit.config import CompareConfig, RunConfig
from transferkit.errors import ConfigError
from transferkit.parsing import assign, build, first_difference, parse_assignment, read_recipe


def test_an_unknown_key_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"recipe.yaml: there is no setting 'training.epoch'.*epochs"):
        build(CompareConfig, {"training": {"epoch": 3}}, "recipe.yaml")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"training": {"epochs": 0}}, r"^recipe.yaml: training.epochs is 0: input should be greater than"),
        ({"data": {"pair": ["a", "b", "c"]}}, r"^recipe.yaml: data.pair is 'a\+b\+c': "),
    ],
)
def test_a_refused_value_is_shown_as_it_was_typed(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(CompareConfig, settings, "recipe.yaml")


@pytest.mark.parametrize(
    ("text", "keys", "value"),
    [
        ("training.epochs=1", ["training", "epochs"], 1),
        ("lora.targets=query+value", ["lora", "targets"], "query+value"),
        ('data.pair=["a", "b"]', ["data", "pair"], ["a", "b"]),
        ("lora.targets=[query, value]", ["lora", "targets"], ["query", "value"]),
        ("data.text=a=b", ["data", "text"], "a=b"),
    ],
)
def test_an_assignment_is_a_path_and_a_value(text: str, keys: list[str], value: object) -> None:
    assert parse_assignment(text) == (keys, value)


@pytest.mark.parametrize("text", ["training.epochs", "=1", "training..epochs=1"])
def test_what_is_no_assignment_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"section\.field=value"):
        parse_assignment(text)


@pytest.mark.parametrize("value", ["9" * 5000, f"[1, {'9' * 5000}]"], ids=["number", "list"])
def test_a_number_of_too_many_digits_is_refused(value: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^--set training\.epochs has a number of too many digits; give a smaller one"
    ):
        parse_assignment(f"training.epochs={value}")


def test_a_value_that_yaml_cannot_make_is_refused_by_its_line(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    for value, reason in [("2020-13-45", "month must be in 1..12"), ("9" * 5000, "Exceeds the limit")]:
        recipe.write_text(f"data:\n  source: {value}\n")
        with pytest.raises(
            ConfigError, match=rf"not readable as YAML: {reason}.* in .*recipe.yaml\", line 2, column 11"
        ):
            read_recipe(recipe)


def test_a_recipe_that_is_missing_or_no_mapping_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no recipe file"):
        read_recipe(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="is not a recipe"):
        read_recipe(tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1")
    with pytest.raises(ConfigError, match="not readable as YAML"):
        read_recipe(tmp_path / "broken.yaml")


def test_a_key_that_stands_twice_is_refused_by_its_line(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    for text, line, key in [
        ("training: {epochs: 1}\nseeds: [0]\ntraining: {batch_size: 8}\n", 3, "training"),
        ("training:\n  epochs: 1\n  epochs: 2\n", 3, "epochs"),
    ]:
        recipe.write_text(text)
        with pytest.raises(ConfigError, match=rf"{key} stands a second time in .*, line {line},"):
            read_recipe(recipe)


def test_a_recipe_cannot_make_objects(tmp_path: Path) -> None:
    (tmp_path / "evil.yaml").write_text("a: !!python/object/apply:os.system ['true']")
    with pytest.raises(ConfigError, match="not readable as YAML"):
        read_recipe(tmp_path / "evil.yaml")


def test_an_assignment_makes_the_sections_on_its_way_and_refuses_a_value_as_one() -> None:
    settings: dict[str, object] = {"seed": 1}
    assign(settings, ["training", "epochs"], 2)
    assert settings == {"seed": 1, "training": {"epochs": 2}}
    with pytest.raises(ConfigError, match=r"--set seed\.first: seed is a single value, not a section"):
        assign(settings, ["seed", "first"], 2)


@pytest.mark.parametrize(
    ("here", "there", "difference"),
    [
        ({"training": {"epochs": 1}}, {"training": {"epochs": 3}}, "training.epochs is 1 here and 3 there"),
        ({"training": {"epochs": 1}}, {}, "training.epochs is 1 here and not set there"),
        ({}, {"data": {"pair": ["a", "b"]}}, "data.pair is not set here and 'a+b' there"),
        (
            {"strategy": {"name": "lora", "options": {"rank": 4}}},
            {"strategy": {"name": "lora", "options": {"alpha": 2}}},
            "strategy.options.rank is 4 here and not set there",
        ),
    ],
)
def test_a_difference_is_named_with_both_values(
    here: dict[str, object], there: dict[str, object], difference: str
) -> None:
    one, other = (RunConfig.model_validate(settings) for settings in (here, there))
    assert first_difference(one, other) == difference
