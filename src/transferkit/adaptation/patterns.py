"""Names of parameters and modules by pattern: `query`, `**.linear2`, `encoder.layer.5.**`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator

from transferkit.errors import AdaptationError, did_you_mean


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


# An option that holds patterns: a list of them, or one text with commas, such as `query,value`.
Patterns = Annotated[tuple[str, ...], BeforeValidator(_split)]


def select(patterns: Sequence[str], names: Iterable[str], what: str) -> list[str]:
    """The names that match at least one pattern, in their own order.

    A name is read in its dotted parts: `*` stands for any text inside one part, and `**` for any number of
    parts. A pattern may match from any part on, so `query` finds every module called query, and
    `encoder.layer.5.**` is found below any prefix.

    Raises:
        AdaptationError: a pattern matches nothing; the message lists near names.
    """
    names = list(names)
    for pattern in patterns:
        if not matching([pattern], names):
            known = sorted({name.rsplit(".", 1)[-1] for name in names} | {_without_numbers(name) for name in names})
            raise AdaptationError(f"The pattern {pattern!r} matches no {what}.{did_you_mean(pattern, known, most=6)}")
    return matching(patterns, names)


def matching(patterns: Sequence[str], names: Sequence[str]) -> list[str]:
    """The names that match at least one pattern, in their own order; none is no error here."""
    expressions = [re.compile(_expression(pattern)) for pattern in patterns]
    return [name for name in names if any(expression.fullmatch(f"{name}.") for expression in expressions)]


def _expression(pattern: str) -> str:
    """A regular expression over a name with one more dot at its end: every part of it then ends in a dot."""
    anything = r"(?:[^.]+\.)*"
    parts = (
        anything if part == "**" else re.escape(part).replace(r"\*", "[^.]*") + r"\." for part in pattern.split(".")
    )
    return anything + "".join(parts)


def kind_of(name: str) -> str:
    """A dotted name with * for the numbers of layers in it."""
    return re.sub(r"(?<=\.)\d+(?=\.)", "*", name)


def _without_numbers(name: str) -> str:
    """The same, at the ends of the name too: it is a pattern that finds the others of its kind."""
    return ".".join("*" if part.isdigit() else part for part in name.split("."))
