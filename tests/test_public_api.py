"""The public names, pinned: adding or removing one is a decision and not an accident."""

from __future__ import annotations

from pkgutil import iter_modules

import pytest

import transferkit


def test_the_public_names_are_these() -> None:
    verbs = {"compare", "evaluate", "load", "load_translator", "pretrain", "draw_report", "resume", "train"}
    configs = {"CompareConfig", "DataConfig", "PretrainConfig", "RunConfig", "TranslationConfig"}
    strategies = {"BitFit", "Bottleneck", "Full", "LinearProbe", "LoRA", "Partial", "Scratch", "disabled", "merge"}
    assert set(transferkit.__all__) == verbs | configs | strategies | {"TransferKitError", "__version__"}


def test_every_public_name_is_there_and_stays_when_all_is_loaded() -> None:
    for name in transferkit.__all__:
        assert getattr(transferkit, name) is not None
    # Loading a folder puts it under its name, in the place of a function of that name.
    for module in iter_modules(transferkit.__path__):
        assert module.name not in transferkit.__all__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = transferkit.no_such_name
