"""Layers that wrap a frozen layer: how they are put in, switched off and merged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import Tensor, nn

from transferkit.adaptation.freezing import linears_outside_head
from transferkit.adaptation.patterns import select
from transferkit.errors import AdaptationError


class AdapterLayer(nn.Module, ABC):
    """A frozen linear layer `base` and a trainable addition to its output.

    While `enabled` is False the layer is its base. `train()` and `eval()` never touch the weights.
    """

    adapter_layer_names: ClassVar[tuple[str, ...]]

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.enabled = True

    @abstractmethod
    def merged(self) -> nn.Linear:
        """One plain layer with the same output."""


def adapter_layers(model: nn.Module) -> Iterator[tuple[str, AdapterLayer]]:
    """The adapters in `model` by name."""
    for name, module in model.named_modules():
        if isinstance(module, AdapterLayer):
            yield name, module


def wrap_linears(model: nn.Module, patterns: Sequence[str], wrap: Callable[[nn.Linear], AdapterLayer]) -> None:
    """Put `wrap(layer)` in the place of every linear layer that a pattern names, the head excepted.

    Raises:
        AdaptationError: a pattern matches no linear layer.
    """
    linears = linears_outside_head(model)
    if not linears:
        raise AdaptationError(f"{type(model).__name__} has no linear layer outside its head to put adapters on.")
    for name in select(patterns, linears, "linear layer outside the head"):
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        model.set_submodule(name, wrap(layer).to(layer.weight.device))
    _leave_fused_paths(model)


def _leave_fused_paths(model: nn.Module) -> None:
    """Make torch's own transformer layers call their parts: their fused kernels read the weights past adapters."""
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0


def merge(model: nn.Module) -> nn.Module:
    """Fold every adapter into the layer it wraps, in place: the same logits from a plain model.

    Merging a merged model changes nothing.

    Raises:
        AdaptationError: an adapter has no linear equivalent; the model is left as it was.
    """
    plain = {name: layer.merged() for name, layer in adapter_layers(model)}
    for name, layer in plain.items():
        model.set_submodule(name, layer)
    return model


@contextmanager
def disabled(model: nn.Module) -> Iterator[nn.Module]:
    """Inside the context the base answers exactly: adapters are off and the head is as it was before training."""
    layers = [layer for _, layer in adapter_layers(model)]
    before = [layer.enabled for layer in layers]
    for layer in layers:
        layer.enabled = False
    try:
        with _original_head(model):
            yield model
    finally:
        for layer, enabled in zip(layers, before, strict=True):
            layer.enabled = enabled


def remember_head(model: nn.Module, head: frozenset[str]) -> None:
    """Keep a copy of the head for `disabled`; outside `state_dict`, since it is not part of what was learnt."""
    copies = {name: p.detach().clone() for name, p in model.named_parameters() if name in head}
    model.__dict__["_head_before_training"] = copies


@contextmanager
def _original_head(model: nn.Module) -> Iterator[None]:
    original: dict[str, Tensor] = model.__dict__.get("_head_before_training", {})
    parameters = dict(model.named_parameters())
    trained = {name: parameters[name].detach().clone() for name in original}
    with torch.no_grad():
        for name, tensor in original.items():
            parameters[name].copy_(tensor)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, tensor in trained.items():
                parameters[name].copy_(tensor)
