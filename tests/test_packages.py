"""What is installed meets the lower bounds, and these leave out releases that lack what the code calls."""

from __future__ import annotations

import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[1]


def bounds() -> dict[str, Requirement]:
    """The requirements of the package and of its extras, by name."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = chain(project["dependencies"], *project["optional-dependencies"].values())
    requirements = [Requirement(line) for line in listed]
    return {canonicalize_name(one.name): one for one in requirements if one.name != project["name"]}


def test_exact_versions_are_within_the_bounds() -> None:
    lines = (PROJECT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    exact = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}
    outside = [name for name, bound in bounds().items() if exact.get(name) not in bound.specifier]
    assert outside == []


@pytest.mark.parametrize(
    ("name", "last_without"),
    [
        pytest.param("filelock", "3.13.4", id="FileLock(..., blocking=False)"),
        pytest.param("huggingface-hub", "1.30.0", id="huggingface_hub.utils.httpx"),
    ],
)
def test_releases_without_what_is_called_are_left_out(name: str, last_without: str) -> None:
    assert last_without not in bounds()[name].specifier
