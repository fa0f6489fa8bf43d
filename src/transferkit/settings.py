"""Settings from a recipe, from options and from --set, put together into one configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from transferkit.config import (
    CompareConfig,
    PretrainConfig,
    RunConfig,
    StrategySpec,
    TranslationConfig,
)
from transferkit.errors import ConfigError, did_you_mean
from transferkit.parsing import as_typed, assign, build, parse_assignment, read_recipe

TASKS = ("classification", "translation")
# What a run has one of, and a comparison several.
_SEVERAL = {"strategy": "strategies", "seed": "seeds"}
# What the options of the command line set in a translation, where that is called otherwise.
_IN_TRANSLATION = {"data.pair": "data.languages", "tokenization.max_length": "tokenizer.max_length"}


def compare_config(recipe: Path | None, options: Mapping[str, Any], assignments: Sequence[str]) -> CompareConfig:
    """The configuration of a comparison; --set goes over options, and options over the recipe.

    Args:
        recipe: a YAML file, or None.
        options: values by dotted path, such as `data.source`; None where the user gave none.
        assignments: texts of the form section.field=value.

    Raises:
        ConfigError: a setting is unknown, has a value out of range, or has no effect.
    """
    settings, where = _read(recipe)
    return _comparison(settings, where, options, [parse_assignment(text) for text in assignments])


def run_config(recipe: Path | None, options: Mapping[str, Any], assignments: Sequence[str]) -> RunConfig:
    """The configuration of one run: of a comparison, with one strategy and one seed.

    Raises:
        ConfigError: as for `compare_config`, or there are several strategies or seeds, and none is named.
    """
    settings, where = _read(recipe)
    for one, several in _SEVERAL.items():
        if one in settings and several in settings:
            raise ConfigError(f"{where} has both {one} and {several}; leave one of them out.")
        if one in settings:
            settings[several] = [settings.pop(one)]
    settings.setdefault("strategies", [RunConfig.model_fields["strategy"].default])
    assigned = [_of_several(*parse_assignment(text)) for text in assignments]
    for keys, _ in assigned:
        if keys[0] in ("margin", "published"):
            raise ConfigError(f"--set {'.'.join(keys)} has no effect on a single run; leave it out.")
    config = _comparison(settings, where, options, assigned)
    if len(config.strategies) > 1:
        raise ConfigError(f"{where} compares {', '.join(config.labels())}; name one of them with --strategy.")
    if len(config.seeds) > 1:
        raise ConfigError(f"{where} has the seeds {', '.join(map(str, config.seeds))}; name one of them with --seed.")
    (_, run), *_ = config.runs()
    return run


def _read(recipe: Path | None) -> tuple[dict[str, Any], str]:
    """The settings of the recipe, if there is one, and what messages call them."""
    return (read_recipe(recipe), str(recipe)) if recipe is not None else ({}, "settings")


def _assign_options(settings: dict[str, Any], options: Mapping[str, Any], where: str) -> None:
    """Put the options that the user gave over the settings of the recipe, which messages call `where`."""
    for path, value in options.items():
        if value is None:
            continue
        section, dot, field = path.partition(".")
        if dot and not isinstance(settings.get(section, {}), dict):
            raise ConfigError(
                f"{where}: {section} is {as_typed(settings[section])!r}; write a section, such as "
                f"{section}: {{{field}: ...}}."
            )
        assign(settings, path.split("."), value)


def _of_several(keys: list[str], value: Any) -> tuple[list[str], Any]:
    """An assignment to what a run has one of, as one to what a comparison has several of."""
    (first, *others) = keys
    return ([_SEVERAL[first]], [value]) if first in _SEVERAL and not others else (keys, value)


def _comparison(
    settings: dict[str, Any], where: str, options: Mapping[str, Any], assigned: Sequence[tuple[list[str], Any]]
) -> CompareConfig:
    """The settings of a recipe with what goes over them."""
    if (task := settings.pop("task", TASKS[0])) != TASKS[0]:
        raise ConfigError(f"{where} is of the task {task}, and this is for {TASKS[0]}; use transferkit train.")
    known = _specs(settings, where)
    _assign_options(settings, options, where)
    for keys, value in assigned:
        if keys[0] in CompareConfig.model_fields:
            assign(settings, keys, value)
    specs = [one for spec in _specs(settings, where) for one in _with_options_of(known, spec)]
    for keys, value in assigned:
        if keys[0] not in CompareConfig.model_fields:
            specs = _with_option(specs, keys, value)
    config = build(CompareConfig, settings | {"strategies": specs}, where)
    asked = {path for path, value in options.items() if value is not None}
    _refuse_idle(config, known, asked | {".".join(keys) for keys, _ in assigned})
    return config


def pretrain_config(recipe: Path | None, options: Mapping[str, Any], assignments: Sequence[str]) -> PretrainConfig:
    """The configuration of a pre-training; --set goes over options, and options over the recipe.

    Raises:
        ConfigError: a setting is unknown, has a value out of range, or has no effect; there are no vectors.
    """
    settings, where = _read(recipe)
    _assign_options(settings, options, where)
    for text in assignments:
        assign(settings, *parse_assignment(text))
    encoder = settings.get("encoder", {})
    if isinstance(encoder, dict) and "vectors" not in encoder:
        raise ConfigError("--vectors is missing: name a file of word vectors, or minilm for those of that backbone.")
    config = build(PretrainConfig, settings, where)
    # The configuration itself cannot refuse the default name: the record of a run holds every field.
    if "name" in config.backbone.model_fields_set:
        raise ConfigError(
            f"{where}: backbone.name has no effect on pre-training, which begins with encoder.vectors; leave it out."
        )
    return config


def task_of(recipe: Path | None, asked: str | None) -> str:
    """What is to be trained: as asked for, else as the recipe says, else a classifier.

    Raises:
        ConfigError: recipe and option differ, or there is no such task.
    """
    said = read_recipe(recipe).get("task") if recipe is not None else None
    if asked is not None and said is not None and asked != said:
        raise ConfigError(f"{recipe} is a recipe of {said}, and --task says {asked}; leave --task out.")
    task = asked or said or "classification"
    if task not in TASKS:
        raise ConfigError(f"{recipe}: there is no task {task!r}.{did_you_mean(str(task), TASKS)}")
    return str(task)


def translation_config(
    recipe: Path | None, options: Mapping[str, Any], assignments: Sequence[str]
) -> TranslationConfig:
    """The configuration of a translation run; --set goes over options, and options over the recipe.

    Raises:
        ConfigError: a setting is unknown, has a value out of range, or has no effect.
    """
    settings, where = _read(recipe)
    places = {path: _IN_TRANSLATION.get(path, path) for path, value in options.items() if value is not None}
    for path, place in places.items():
        section, _, field = place.partition(".")
        if field not in _fields(TranslationConfig, section):
            raise ConfigError(f"{path} has no effect on --task translation; leave it out.")
    _assign_options(settings, {place: options[path] for path, place in places.items()}, where)
    for text in assignments:
        assign(settings, *parse_assignment(text))
    return build(TranslationConfig, settings, where)


def _fields(config: type[BaseModel], section: str) -> set[str]:
    """The names of the settings in a section; of a setting without one, the empty name."""
    field = config.model_fields.get(section)
    if field is None:
        return set()
    kind = field.annotation
    return set(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else {""}


def _specs(settings: Mapping[str, Any], where: str) -> list[StrategySpec]:
    """The strategies that the settings list, or all the default ones."""
    listed = settings.get("strategies")
    if listed is None:
        return list(CompareConfig.model_fields["strategies"].default)
    if not isinstance(listed, list):
        raise ConfigError(f"{where}: strategies is {listed!r}; write a list.")
    return [parse_strategy(spec) if isinstance(spec, str) else build(StrategySpec, spec, where) for spec in listed]


def _with_options_of(known: Sequence[StrategySpec], spec: StrategySpec) -> list[StrategySpec]:
    """A bare name that the recipe does not list stands for all that it has of that name, with their options there."""
    same = [other for other in known if other.name == spec.name]
    return same if same and not spec.options and spec not in known else [spec]


def _with_option(specs: Sequence[StrategySpec], keys: Sequence[str], value: Any) -> list[StrategySpec]:
    """The strategies with the option `keys` = (strategy name, option) set to `value` where the name is theirs."""
    name, *option = keys
    names = [spec.name for spec in specs]
    if name in names and len(option) != 1:
        raise ConfigError(f"--set {'.'.join(keys)}: write {name}.OPTION=VALUE, with one option of the strategy.")
    if name not in names:
        known = [*CompareConfig.model_fields, *names]
        raise ConfigError(
            f"--set {'.'.join(keys)}: {name!r} is no section and no strategy here.{did_you_mean(name, known)}"
        )
    return [
        spec.model_copy(update={"options": spec.options | {option[0]: value}}) if spec.name == name else spec
        for spec in specs
    ]


def _refuse_idle(config: CompareConfig, known: Sequence[StrategySpec], asked: set[str]) -> None:
    """A setting that nothing reads is a mistake of the user's, not a silence of ours.

    What a recipe sets for the strategies that it lists, `known`, is none where the user compares a few of them; `asked`
    are the dotted paths of what the user has set.
    """
    for name in ("epochs", "learning_rate", "warmup_ratio"):
        readers = [*config.strategies, *(known if f"training.{name}" not in asked else ())]
        overridden = all(name in spec.options for spec in readers)
        if overridden and getattr(config.training, name) is not None:
            raise ConfigError(f"training.{name} has no effect: every strategy sets its own {name}.")
    if config.backbone.head_pooling == "model" and "head_dropout" in config.backbone.model_fields_set:
        raise ConfigError("backbone.head_dropout has no effect with --head-pooling model: that head has its own.")
    training = config.training
    if training.prefix_cache in ("off", "memory") and "prefix_cache_gigabytes" in training.model_fields_set:
        raise ConfigError(
            f"training.prefix_cache_gigabytes has no effect with --prefix-cache {training.prefix_cache}: it limits the "
            "folder on disk."
        )


def split_list(text: str) -> list[str]:
    """`lora(rank=4,alpha=8),full` at the commas outside brackets."""
    return [part.strip() for part in re.split(r",(?![^(]*\)|[^\[]*\])", text) if part.strip()]


def parse_strategy(text: str) -> StrategySpec:
    """`lora` or `lora(rank=4,targets=query+value)` as a specification."""
    matched = re.fullmatch(r"([^()\s]+)(?:\((.*)\))?", text.strip())
    if matched is None:
        raise ConfigError(f"{text!r} is not a strategy; write a name, or a name with options like lora(rank=4).")
    name, inside = matched.groups()
    options: dict[str, Any] = {}
    for part in split_list(inside or ""):
        (key, *more), value = parse_assignment(part)
        if more:
            raise ConfigError(f"{text!r}: {part!r} is not an option; write key=value.")
        options[key] = value.split("+") if isinstance(value, str) and "+" in value else value
    return StrategySpec(name=name, options=options)


def is_named(label: str, spec: StrategySpec) -> bool:
    """Whether `label`, as the command line takes it, names `spec`: with the same options in any order, or with none.

    Raises:
        ConfigError: it is no strategy with options.
    """
    named = parse_strategy(label)
    return named.name == spec.name and (not named.options or _typed(named) == _typed(spec))


def _typed(spec: StrategySpec) -> dict[str, Any]:
    return {name: as_typed(value) for name, value in spec.options.items()}
