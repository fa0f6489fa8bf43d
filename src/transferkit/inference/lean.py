"""A run in its inference form: adapters merged, nothing loaded that an answer does not need."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from transferkit import run_folder
from transferkit.adaptation.capsule import read_capsule
from transferkit.adaptation.lora import LoRA
from transferkit.adaptation.strategies import make_strategy
from transferkit.config import Precision
from transferkit.environment import file_hash
from transferkit.inference.lean_tokenizer import LeanTokenizer
from transferkit.models.backbones import HEAD_FILE, POOLINGS
from transferkit.models.lean_encoder import FAMILIES, LeanEncoder, NotLeanError
from transferkit.models.lean_layers import Weights
from transferkit.run_record import RunRecord


class LeanClassifier:
    """Text to logits for a run on BERT or one of its relatives, with the numbers of the model that was trained."""

    def __init__(self, run: Path, record: RunRecord, base: Path, precision: Precision) -> None:
        """Load the run in the folder `run`; `base` is its backbone's folder.

        Raises:
            NotLeanError: the run is of a kind that is not known here; transformers is to compute it.
        """
        source = run / "model" if record.keeps_whole_model else base
        self._record = record
        self._config = _read_json(source / "config.json")
        if self._config.get("model_type") not in FAMILIES:
            raise NotLeanError("another family")
        self.tokenizer = LeanTokenizer(run, record.tokenizer)
        weights = _weights(run, record, source, self._config["model_type"])
        self._encoder = LeanEncoder(weights, self._config, precision)
        self._head = _pick_head(weights, self._config["model_type"], record.backbone.pooling)

    def __call__(self, batch: dict[str, Tensor]) -> Tensor:
        """Logits [rows, classes] of a batch as `data.batching` collates it."""
        hidden = self._encoder(**batch)
        if self._record.backbone.pooling == "model":
            return self._head(hidden[:, 0].float())
        return self._head(POOLINGS[self._record.backbone.pooling](hidden, batch["attention_mask"]).float())


class Head:
    """Linear layers in a row on one vector a text, with the activation of the family between them."""

    def __init__(self, weights: Weights, names: Sequence[str], activation: Any = None) -> None:
        self.layers = [(weights[f"{name}.weight"].clone(), weights[f"{name}.bias"].clone()) for name in names]
        self.activation = activation

    def __call__(self, x: Tensor) -> Tensor:
        """x [rows, width] -> logits [rows, classes]."""
        for number, (weight, bias) in enumerate(self.layers):
            x = functional.linear(self.activation(x) if number else x, weight, bias)
        return x


# The family's own classifier reads the first position: its linear layers, and what stands between them.
_HEADS: dict[str, tuple[tuple[str, ...], Any]] = {
    "bert": (("pooler.dense", "classifier"), torch.tanh),
    "roberta": (("classifier.dense", "classifier.out_proj"), torch.tanh),
    "xlm-roberta": (("classifier.dense", "classifier.out_proj"), torch.tanh),
    "camembert": (("classifier.dense", "classifier.out_proj"), torch.tanh),
    "electra": (("classifier.dense", "classifier.out_proj"), functional.gelu),
    "distilbert": (("pre_classifier", "classifier"), torch.relu),
}


def _pick_head(weights: Weights, model_type: str, pooling: str) -> Head:
    names, activation = _HEADS[model_type] if pooling == "model" else (("head.1",), None)
    if any(f"{name}.down.weight" in weights for name in names):
        raise NotLeanError("a bottleneck in the head")
    try:
        return Head(weights, names, activation)
    except KeyError as error:
        raise NotLeanError(f"no weight {error}") from None


class _Weights(Mapping[str, Tensor]):
    """The weights in a file by their names without prefix, and those that were put in their place.

    One is read whenever it is asked for, and mapped from the file only while it is held: whoever copies all of them
    never has more than one in memory twice.
    """

    def __init__(self, file: Path, model_type: str) -> None:
        self._file = file
        with safe_open(file, "pt") as opened:
            self._stored = {_bare(name, model_type): name for name in opened.keys()}  # noqa: SIM118 (not a mapping)
        self._put: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name in self._put:
            return self._put[name]
        stored = self._stored[name]
        with safe_open(self._file, "pt") as opened:
            tensor: Tensor = opened.get_tensor(stored)
        return tensor.float()

    def __setitem__(self, name: str, tensor: Tensor) -> None:
        self._put[name] = tensor

    def __contains__(self, name: object) -> bool:
        return name in self._put or name in self._stored

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored | self._put)

    def __len__(self) -> int:
        return len(self._stored | self._put)


def _weights(run: Path, record: RunRecord, source: Path, model_type: str) -> _Weights:
    """All weights, with what the run has learnt in its place."""
    file = source / "model.safetensors"
    if not file.is_file():
        raise NotLeanError("weights in several files")
    if not record.keeps_whole_model and file_hash(file) != record.backbone.weights_sha256:
        raise NotLeanError("another base, which the usual way of loading refuses with its reason")
    try:
        weights = _Weights(file, model_type)
        if record.keeps_whole_model and record.backbone.pooling != "model":
            for name, tensor in load_file(run / "model" / HEAD_FILE).items():
                weights[f"head.{name}"] = tensor
    except (OSError, SafetensorError):
        raise NotLeanError("files that the usual way of loading refuses with their reason") from None
    if not record.keeps_whole_model:
        _put_learnt(weights, run / "model" / run_folder.CAPSULE_FILE, model_type)
    return weights


def _put_learnt(weights: _Weights, capsule: Path, model_type: str) -> None:
    """Put the tensors of a capsule in place: replace what trained, merge LoRA, keep bottlenecks beside their layer."""
    info, learnt = read_capsule(capsule)
    named = {_bare(name.removeprefix("network."), model_type): tensor for name, tensor in learnt.items()}
    new = ("head.1", *_HEADS[model_type][0])
    for name, tensor in named.items():
        layer, _, part = name.rpartition(".")
        if part == "lora_a":
            strategy = make_strategy(info.strategy)
            assert isinstance(strategy, LoRA), "only lora has such tensors"
            weights[f"{layer}.weight"] += strategy.scaling * named[f"{layer}.lora_b"] @ tensor
        elif name in weights or layer in new or layer.endswith((".down", ".up")):
            weights[name] = tensor
        elif part != "lora_b":
            raise NotLeanError(f"learnt {name}")


def _bare(name: str, model_type: str) -> str:
    """The name of a weight without the prefix of the base model."""
    prefix = "roberta." if model_type in ("xlm-roberta", "camembert") else f"{model_type}."
    return name.removeprefix(prefix)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise NotLeanError(f"a damaged {file.name}, which the usual way of loading refuses with its reason")
    return content
