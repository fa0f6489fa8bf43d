"""Configurations: validated and frozen."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from transferkit.adaptation.strategies import make_strategy
from transferkit.config import (
    DEMONSTRATION,
    CompareConfig,
    DataConfig,
    EncoderConfig,
    PretrainConfig,
    RunConfig,
    StrategySpec,
    TrainingConfig,
    TranslationConfig,
)
from transferkit.errors import ConfigError
from transferkit.parsing import assign, build


def test_without_data_the_demonstration_runs_and_its_sizes_can_be_changed() -> None:
    assert CompareConfig().data.source == DEMONSTRATION["source"]
    assert build(CompareConfig, {"data": {"train_size": 7}}, "x").data.train_size == 7
    assert build(CompareConfig, {"data": {"train_size": 7}}, "x").data.test_size == DEMONSTRATION["test_size"]


def test_named_data_is_used_whole() -> None:
    data = DataConfig(source="mine.csv")
    assert (data.train_size, data.validation_size, data.test_size) == (None, None, None)


@pytest.mark.parametrize("seed", [-1, 2**32])
@pytest.mark.parametrize("name", ["seed", "data.split_seed"])
def test_a_seed_is_a_number_that_every_library_takes(name: str, seed: int) -> None:
    settings: dict[str, object] = {}
    assign(settings, name.split("."), seed)
    with pytest.raises(ConfigError, match=f"{name} is {seed}: "):
        build(RunConfig, settings, "x")


@pytest.mark.parametrize("number", [math.inf, math.nan])
@pytest.mark.parametrize("name", ["checkpoint_minutes", "prefix_cache_gigabytes", "learning_rate"])
def test_a_number_that_a_record_cannot_hold_is_refused(name: str, number: float) -> None:
    with pytest.raises(ConfigError, match=f"training.{name} is {number}: "):
        build(RunConfig, {"training": {name: number}}, "x")
    with pytest.raises(ConfigError, match=f"alpha is {number}: "):
        make_strategy(StrategySpec(name="lora", options={"alpha": number}))


def test_pretraining_keeps_its_defaults_beside_what_is_set_in_python() -> None:
    encoder = EncoderConfig(vectors="minilm")
    training = PretrainConfig(encoder=encoder, training=TrainingConfig(batch_size=16)).training
    assert (training.batch_size, training.learning_rate, training.epochs) == (16, 1e-3, 5)


def test_the_second_of_two_files_needs_the_first() -> None:
    with pytest.raises(ConfigError, match=r"--target-data \(target_file\) needs --data \(source\), the file of its"):
        build(TranslationConfig, {"data": {"target_file": "t.it"}}, "settings")
    both = build(TranslationConfig, {"data": {"source": "t.en", "target_file": "t.it"}}, "settings")
    assert TranslationConfig.model_validate_json(both.model_dump_json()) == both


def test_options_are_what_a_record_gives_back() -> None:
    spec = StrategySpec(name="lora", options={"targets": ("query", "value")})
    assert StrategySpec.model_validate_json(spec.model_dump_json()) == spec


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(ValidationError):
        RunConfig().seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"training": {"epochs": 0}}, "training.epochs is 0"),
        ({"data": {"text": "a", "pair": ["b", "c"]}}, "text and pair are both given"),
        ({"strategies": ["lora", "lora"]}, "strategies names lora more than once"),
        ({"seeds": [1, 1]}, "seeds names 1 more than once"),
        ({"training": {"precision": "fp16"}}, "training.precision is 'fp16'"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_name(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(CompareConfig, settings, "settings")


@pytest.mark.parametrize("penalty", [11, -11, 1e3, float("inf"), float("nan"), "inf"])
def test_a_length_penalty_is_a_small_number(penalty: object) -> None:
    with pytest.raises(ConfigError, match=r"decoding\.length_penalty is"):
        build(TranslationConfig, {"decoding": {"length_penalty": penalty}}, "settings")


def test_a_strategy_has_short_forms() -> None:
    short = build(CompareConfig, {"strategies": ["full", {"lora": {"rank": 2}}]}, "x").strategies
    assert short == (StrategySpec(name="full"), StrategySpec(name="lora", options={"rank": 2}))


def test_labels_carry_options_only_where_a_name_repeats() -> None:
    config = build(CompareConfig, {"strategies": ["full", {"lora": {"rank": 2}}, {"lora": {"rank": 4}}]}, "x")
    assert config.labels() == ["full", "lora(rank=2)", "lora(rank=4)"]
    assert [StrategySpec.name_of(label) for label in config.labels()] == ["full", "lora", "lora"]


def test_runs_go_seed_by_seed() -> None:
    config = build(CompareConfig, {"strategies": ["full", "lora"], "seeds": [5, 6]}, "x")
    assert [(label, run.seed) for label, run in config.runs()] == [
        ("full", 5),
        ("lora", 5),
        ("full", 6),
        ("lora", 6),
    ]
