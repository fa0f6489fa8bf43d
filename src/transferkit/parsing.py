"""Settings as they are typed: recipe files, `section.field=value`, and errors that name a field as the user did."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeVar

from pydantic import BaseModel, ValidationError

from transferkit.errors import ConfigError, did_you_mean

AnyConfig = TypeVar("AnyConfig", bound=BaseModel)


def build(kind: type[AnyConfig], settings: Any, where: str) -> AnyConfig:
    """Validate `settings`; the error names the field as the user typed it and the nearest known one."""
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(_explain(kind, error, where)) from None


def _explain(kind: type[BaseModel], error: ValidationError, where: str) -> str:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    name = ".".join(path)
    if first["type"] == "extra_forbidden":
        known = _fields_at(kind, path[:-1])
        return f"{where}: there is no setting {name!r}.{did_you_mean(path[-1], known)}"
    message = first["msg"].removeprefix("Value error, ")
    if not name:
        return f"{where}: {message}."
    return f"{where}: {name} is {as_typed(first['input'])!r}: {message[0].lower()}{message[1:]}."


def _fields_at(kind: type[BaseModel], path: Sequence[str]) -> list[str]:
    for part in path:
        field = kind.model_fields.get(part)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        kind = field.annotation
    return list(kind.model_fields)


def read_recipe(path: str | Path) -> dict[str, Any]:
    """The settings in a YAML or JSON recipe file.

    Raises:
        ConfigError: the file is missing, is not YAML, is not a mapping of sections, or has a key twice.
    """
    import yaml

    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"There is no recipe file {path}; name a .yaml file, or leave it out to use options alone.")
    try:
        with path.open(encoding="utf-8") as file:
            settings = _load_yaml(file)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not readable as YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} is not a recipe: it must map sections such as data, backbone and training.")
    return settings


def _load_yaml(file: TextIO) -> Any:
    """What YAML says, without a key that stands twice: of these the last would count, and the others say nothing.

    A value that is none, such as a date in month 13, is said with its place.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"{key.value} stands a second time", problem_mark=key.start_mark)
                seen.add(key.value)
            return super().construct_mapping(node, deep)

        def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
            try:
                return super().construct_object(node, deep)
            except ValueError as error:
                raise yaml.MarkedYAMLError(problem=str(error), problem_mark=node.start_mark) from None

    return yaml.load(file, Loader)


def parse_assignment(text: str) -> tuple[list[str], Any]:
    """`section.field=value` as its path and its value: JSON, words in square brackets, or text as it stands."""
    path, sign, raw = text.partition("=")
    keys = path.strip().split(".")
    if not sign or not all(keys):
        raise ConfigError(f"--set {text!r} is not of the form section.field=value, such as training.epochs=1.")
    try:
        return keys, json.loads(raw)
    except json.JSONDecodeError:
        is_list = raw.startswith("[") and raw.endswith("]")
        return keys, [word.strip() for word in raw[1:-1].split(",")] if is_list else raw
    except ValueError:
        # Python reads no whole numbers of more than 4,300 digits.
        raise ConfigError(f"--set {path} has a number of too many digits; give a smaller one.") from None


def assign(settings: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    """Put `value` at the path `keys`, making the sections on the way."""
    *sections, last = keys
    for key in sections:
        settings = settings.setdefault(key, {})
        if not isinstance(settings, dict):
            raise ConfigError(f"--set {'.'.join(keys)}: {key} is a single value, not a section.")
    settings[last] = value


def first_difference(here: BaseModel, there: BaseModel) -> str:
    """Where two configurations that are not equal first differ, as `training.epochs is 1 here and 3 there`."""
    own, other = flatten(here.model_dump()), flatten(there.model_dump())
    path = next(path for path in own | other if own.get(path) != other.get(path))
    values = [settings.get(path) for settings in (own, other)]
    said = ["not set" if value is None else repr(as_typed(value)) for value in values]
    return f"{path} is {said[0]} here and {said[1]} there"


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted paths, as {'training.epochs': 3}; empty groups are left out."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        path = f"{prefix}{name}"
        found |= flatten(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return found


def as_typed(value: Any) -> Any:
    """A value of a setting as text has it: the items of a list are joined by a plus."""
    return "+".join(str(item) for item in value) if isinstance(value, (list, tuple)) else value
