"""Recipe, options and --set, put together in this order of rank."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from transferkit.config import RunConfig, StrategySpec
from transferkit.errors import ConfigError
from transferkit.settings import (
    compare_config,
    is_named,
    parse_strategy,
    pretrain_config,
    run_config,
    split_list,
    translation_config,
)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text("data: {source: a.csv}\ntraining: {epochs: 5}\nstrategies: [full, lora: {rank: 2}]\nseeds: [3]\n")
    return path


def test_options_go_over_the_recipe_and_assignments_over_options(recipe: Path) -> None:
    config = compare_config(recipe, {"training.epochs": 4, "data.label": "y"}, ["training.epochs=3", "lora.rank=8"])
    assert config.data.source == "a.csv"
    assert config.data.label == "y"
    assert config.training.epochs == 3
    assert config.strategies[1].options == {"rank": 8}
    assert config.seeds == (3,)


def test_options_that_were_not_given_leave_the_recipe_alone(recipe: Path) -> None:
    assert compare_config(recipe, {"training.epochs": None}, []).training.epochs == 5


@pytest.mark.parametrize("read", [compare_config, run_config, pretrain_config, translation_config])
@pytest.mark.parametrize(
    ("line", "shown"), [("data: x.csv", "'x.csv'"), ("data: [a, b]", r"'a\+b'"), ("data:", "None")]
)
def test_a_value_of_the_recipe_in_place_of_a_section_is_said(
    tmp_path: Path, read: Callable[..., object], line: str, shown: str
) -> None:
    recipe = tmp_path / "b.yaml"
    recipe.write_text(f"{line}\n")
    with pytest.raises(
        ConfigError, match=rf"b\.yaml: data is {shown}; write a section, such as data: {{source: \.\.\.}}"
    ):
        read(recipe, {"data.text": None, "data.source": "r.csv"}, [])


def test_a_run_takes_one_strategy(recipe: Path) -> None:
    with pytest.raises(ConfigError, match=r"compares full, lora; name one of them with --strategy"):
        run_config(recipe, {}, [])
    assert run_config(recipe, {"strategies": ["full"]}, []).strategy == StrategySpec(name="full")
    assert run_config(None, {}, []).strategy.name == "lora"


def test_a_run_takes_one_seed(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("strategies: [full]\nseeds: [0, 1]\n")
    with pytest.raises(ConfigError, match=r"recipe.yaml has the seeds 0, 1; name one of them with --seed"):
        run_config(recipe, {}, [])
    assert run_config(recipe, {"seeds": [1]}, []).seed == 1
    with pytest.raises(ConfigError, match=r"settings has the seeds 3, 1"):
        run_config(None, {}, ["seeds=[3,1]"])


def test_a_run_has_a_strategy_and_a_seed_as_its_record_has(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("strategy: {lora: {rank: 2}}\nseed: 3\n")
    assert run_config(recipe, {}, []) == RunConfig(strategy=StrategySpec(name="lora", options={"rank": 2}), seed=3)
    config = run_config(recipe, {}, ["strategy=full", "seed=4"])
    assert (config.strategy.name, config.seed) == ("full", 4)
    assert run_config(recipe, {}, ["lora.rank=8"]).strategy.options == {"rank": 8}
    recipe.write_text("seed: 3\nseeds: [1]\n")
    with pytest.raises(ConfigError, match="has both seed and seeds"):
        run_config(recipe, {}, [])


@pytest.mark.parametrize("assignment", ["margin=0.5", 'published={"full":0.9}'])
def test_what_compares_has_no_effect_on_a_run(assignment: str) -> None:
    with pytest.raises(ConfigError, match="has no effect on a single run"):
        run_config(None, {}, [assignment])


def test_a_strategy_named_on_the_command_line_keeps_the_recipes_options(recipe: Path) -> None:
    assert run_config(recipe, {"strategies": ["lora"]}, []).strategy.options == {"rank": 2}


def test_a_name_stands_for_all_that_the_recipe_has_of_it(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("strategies: [{lora: {rank: 2}}, full, {lora: {rank: 8}}]\n")
    config = compare_config(path, {"strategies": ["lora"]}, [])
    assert config.labels() == ["lora(rank=2)", "lora(rank=8)"]
    assert compare_config(path, {}, []).labels() == ["lora(rank=2)", "full", "lora(rank=8)"]
    with pytest.raises(ConfigError, match=r"compares lora\(rank=2\), lora\(rank=8\); name one of them"):
        run_config(path, {"strategies": ["lora"]}, [])
    path.write_text("strategies: [lora, {lora: {rank: 8}}]\n")
    assert compare_config(path, {"strategies": ["lora"]}, []).strategies == (StrategySpec(name="lora"),)


@pytest.mark.parametrize("assignment", ["lora=3", "lora.rank.x=3"])
def test_an_assignment_to_a_strategy_names_one_option(recipe: Path, assignment: str) -> None:
    with pytest.raises(ConfigError, match=r"write lora\.OPTION=VALUE, with one option of the strategy"):
        compare_config(recipe, {"strategies": ["lora"]}, [assignment])


def test_options_of_a_strategy_are_indented_further_than_its_name(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("strategies:\n- lora:\n  rank: 4\n")
    with pytest.raises(ConfigError, match=r"indent the options further than the name, or give lora, rank one entry"):
        compare_config(path, {}, [])


def test_an_assignment_to_no_section_and_no_strategy_is_refused(recipe: Path) -> None:
    with pytest.raises(ConfigError, match=r"'trainng' is no section and no strategy here. Did you mean training"):
        compare_config(recipe, {}, ["trainng.epochs=1"])
    with pytest.raises(ConfigError, match="'bottleneck' is no section"):
        compare_config(recipe, {}, ["bottleneck.size=1"])


def test_a_setting_without_effect_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"training.epochs has no effect"):
        compare_config(None, {"strategies": ["lora(epochs=2)"], "training.epochs": 3}, [])
    with pytest.raises(ConfigError, match=r"prefix_cache_gigabytes has no effect with --prefix-cache off"):
        compare_config(None, {"training.prefix_cache": "off"}, ["training.prefix_cache_gigabytes=1"])
    with pytest.raises(ConfigError, match=r"head_dropout has no effect"):
        compare_config(None, {"backbone.head_pooling": "model"}, ["backbone.head_dropout=0.2"])


def test_what_a_recipe_sets_for_other_strategies_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("strategies: [full, {lora: {epochs: 6}}]\ntraining: {epochs: 3}\n")
    assert run_config(path, {"strategies": ["lora"]}, []).strategy.options == {"epochs": 6}
    with pytest.raises(ConfigError, match=r"training.epochs has no effect"):
        run_config(path, {"strategies": ["lora"], "training.epochs": 3}, [])
    with pytest.raises(ConfigError, match=r"training.epochs has no effect"):
        run_config(path, {"strategies": ["lora"]}, ["training.epochs=3"])
    path.write_text("strategies: [{lora: {epochs: 6}}]\ntraining: {epochs: 3}\n")
    with pytest.raises(ConfigError, match=r"training.epochs has no effect"):
        run_config(path, {}, [])


def test_a_published_figure_in_percent_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"published\.full is 86: .*less than or equal to 1"):
        compare_config(None, {"data.source": "x.csv"}, ["published.full=86"])


def test_strategies_can_be_assigned(recipe: Path) -> None:
    config = compare_config(recipe, {}, ["strategies=[linear-probe, lora]", "lora.rank=8"])
    assert [spec.name for spec in config.strategies] == ["linear-probe", "lora"]
    assert config.strategies[1].options == {"rank": 8}


def test_a_recipe_of_another_task_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("task: classification\ndata: {source: a.csv}\n")
    assert compare_config(path, {}, []).data.source == "a.csv"
    path.write_text("task: translation\ndata: {source: a.csv}\n")
    with pytest.raises(ConfigError, match=r"recipe\.yaml is of the task translation"):
        compare_config(path, {}, [])


def test_a_list_is_split_outside_brackets() -> None:
    assert split_list("lora(rank=4,alpha=8), full") == ["lora(rank=4,alpha=8)", "full"]


def test_a_strategy_reads_its_options() -> None:
    assert parse_strategy("lora(rank=4,targets=query+value)") == StrategySpec(
        name="lora", options={"rank": 4, "targets": ["query", "value"]}
    )
    assert parse_strategy("lora(targets=[query, value],rank=4)") == parse_strategy("lora(targets=query+value,rank=4)")
    assert parse_strategy("peft:dora") == StrategySpec(name="peft:dora")
    with pytest.raises(ConfigError, match="is not a strategy"):
        parse_strategy("lora(rank=4")


@pytest.mark.parametrize(
    ("label", "is_meant"),
    [
        ("lora", True),
        ("lora(rank=4,targets=query)", True),
        ("lora(targets=[query], rank=4.0)", True),
        ("lora(rank=4)", False),
        ("full", False),
    ],
)
def test_a_label_names_a_strategy_with_all_its_options_or_none(label: str, is_meant: bool) -> None:
    assert is_named(label, StrategySpec(name="lora", options={"rank": 4, "targets": ["query"]})) == is_meant
