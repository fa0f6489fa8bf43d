"""Adapt a pretrained text model to your data in every way, compare the ways honestly, keep the best."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transferkit.adaptation.adapters import disabled as disabled
    from transferkit.adaptation.adapters import merge as merge
    from transferkit.adaptation.bottleneck import Bottleneck as Bottleneck
    from transferkit.adaptation.lora import LoRA as LoRA
    from transferkit.adaptation.unfreezing import BitFit as BitFit
    from transferkit.adaptation.unfreezing import Full as Full
    from transferkit.adaptation.unfreezing import LinearProbe as LinearProbe
    from transferkit.adaptation.unfreezing import Partial as Partial
    from transferkit.adaptation.unfreezing import Scratch as Scratch
    from transferkit.api import compare as compare
    from transferkit.api import draw_report as draw_report
    from transferkit.api import evaluate as evaluate
    from transferkit.api import pretrain as pretrain
    from transferkit.api import resume as resume
    from transferkit.api import train as train
    from transferkit.config import CompareConfig as CompareConfig
    from transferkit.config import DataConfig as DataConfig
    from transferkit.config import PretrainConfig as PretrainConfig
    from transferkit.config import RunConfig as RunConfig
    from transferkit.config import TranslationConfig as TranslationConfig
    from transferkit.errors import TransferKitError as TransferKitError
    from transferkit.inference.predictor import load as load
    from transferkit.inference.translation import load_translator as load_translator

__version__ = "0.1.0"

# Where each public name lives. A name is imported when it is first used: torch alone takes a second to load.
_HOMES = {
    "compare": "api",
    "draw_report": "api",
    "evaluate": "api",
    "pretrain": "api",
    "resume": "api",
    "train": "api",
    "CompareConfig": "config",
    "DataConfig": "config",
    "PretrainConfig": "config",
    "RunConfig": "config",
    "TranslationConfig": "config",
    "TransferKitError": "errors",
    "load": "inference.predictor",
    "load_translator": "inference.translation",
    "disabled": "adaptation.adapters",
    "merge": "adaptation.adapters",
    "BitFit": "adaptation.unfreezing",
    "Bottleneck": "adaptation.bottleneck",
    "Full": "adaptation.unfreezing",
    "LinearProbe": "adaptation.unfreezing",
    "LoRA": "adaptation.lora",
    "Partial": "adaptation.unfreezing",
    "Scratch": "adaptation.unfreezing",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'transferkit' has no attribute {name!r}")
    return getattr(import_module(f"transferkit.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
