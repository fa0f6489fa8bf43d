"""Layers that wrap a frozen layer: how they are put in, switched off and merged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from transferkit.adaptation.freezing import is_adapter, linears_outside_head
from transferkit.adaptation.patterns import select
from transferkit.errors import AdaptationError


class AdapterLayer(nn.Module, ABC):
    """A frozen linear layer `base` and a trainable addition to its output.

    `train()` and `eval()` never touch the weights.
    """

    adapter_layer_names: ClassVar[tuple[str, ...]]

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base

    # T5 and others read the precision of a layer off its weight before they call it.
    @property
    def weight(self) -> Tensor:
        """That of `base` [out, in], without the addition."""
        return self.base.weight

    @property
    def bias(self) -> Tensor | None:
        """That of `base` [out], if it has one."""
        return self.base.bias

    @abstractmethod
    def merged(self) -> nn.Linear:
        """One plain layer with the same output."""


def adapter_layers(model: nn.Module) -> Iterator[tuple[str, AdapterLayer]]:
    """Our own adapters in `model` by name."""
    for name, module in model.named_modules():
        if isinstance(module, AdapterLayer):
            yield name, module


def wrap_linears(model: nn.Module, patterns: Sequence[str], wrap: Callable[[nn.Linear], AdapterLayer]) -> None:
    """Put `wrap(layer)` in the place of every linear layer that a pattern names, the head excepted.

    Raises:
        AdaptationError: a pattern matches no linear layer.
    """
    linears = linears_outside_head(model)
    for name in select(patterns, linears, "linear layer outside the head"):
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        model.set_submodule(name, wrap(layer).to(layer.weight.device))
    _close_fused_paths(model)


def merge(model: nn.Module) -> nn.Module:
    """Fold every adapter into the layer it wraps, in place: the same logits from a plain model.

    Merging a merged model changes nothing.

    Raises:
        AdaptationError: an adapter has no linear equivalent, or is the PEFT library's. The model is left
            as it was.
    """
    plain = {name: layer.merged() for name, layer in adapter_layers(model)}
    if any(not isinstance(module, AdapterLayer) for _, module in wrappers(model)):
        raise AdaptationError("Adapters of the PEFT library are not merged here; keep the capsule, or use lora.")
    for name, layer in plain.items():
        model.set_submodule(name, layer)
    _open_fused_paths(model)
    # What is plain now is its own base.
    vars(model).pop("_head_before_training", None)
    return model


@contextmanager
def disabled(model: nn.Module) -> Iterator[nn.Module]:
    """Inside the context the base answers exactly: it has no adapters, and its head is as before training.

    Adapters are taken out of the model and put back at the end, the PEFT library's and virtual tokens too.

    Raises:
        AdaptationError: the strategy trains weights of the base itself, which then are not to be had.
    """
    _check_base_is_whole(model)
    taken = list(wrappers(model))
    try:
        # From the inside out and back from the outside in: a name leads through the wrappers around it.
        for name, module in reversed(taken):
            model.set_submodule(name, _wrapped(module))
        _open_fused_paths(model)
        with _original_head(model):
            yield model
    finally:
        for name, module in taken:
            model.set_submodule(name, module)
        if taken:
            _close_fused_paths(model)


def wrappers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every module that stands in front of one of the base, by name: our adapters, and what PEFT puts in."""
    for name, module in model.named_modules():
        if is_adapter(module) or _is_peft_model(module):
            yield name, module


def added_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that wrappers have brought into the model, trainable or not."""
    added: dict[int, nn.Parameter] = {}
    base: set[int] = set()
    for _, module in wrappers(model):
        added |= {id(parameter): parameter for parameter in module.parameters()}
        base |= {id(parameter) for parameter in _without_wrappers(_wrapped(module))}
    return [parameter for key, parameter in added.items() if key not in base]


def _without_wrappers(module: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters in `module` that stand in no wrapper, and those of what the wrappers wrap."""
    if is_adapter(module) or _is_peft_model(module):
        yield from _without_wrappers(_wrapped(module))
        return
    yield from module.parameters(recurse=False)
    for child in module.children():
        yield from _without_wrappers(child)


def _wrapped(module: nn.Module) -> nn.Module:
    if isinstance(module, AdapterLayer):
        return module.base
    foreign: Any = module
    base = foreign.get_base_model() if _is_peft_model(module) else foreign.base_layer
    assert isinstance(base, nn.Module)
    return base


def _is_peft_model(module: nn.Module) -> bool:
    # By its home: importing PEFT takes seconds, and a model that has one of these has imported it.
    return type(module).__module__ == "peft.peft_model"


def remember_head(model: nn.Module, head: Sequence[nn.Parameter]) -> None:
    """Keep a copy of the head for `disabled`; outside `state_dict`: it is no part of what was learnt."""
    vars(model)["_head_before_training"] = [(parameter, parameter.detach().clone()) for parameter in head]


def _check_base_is_whole(model: nn.Module) -> None:
    original = vars(model).get("_head_before_training")
    if original is None:
        return
    learnt = {id(parameter) for parameter in [*added_parameters(model), *(head for head, _ in original)]}
    changed = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in learnt]
    if changed:
        raise AdaptationError(
            f"The base cannot answer: the strategy trains {len(changed)} of its own weights, such as {changed[0]}. "
            "Load the base anew."
        )


@contextmanager
def _original_head(model: nn.Module) -> Iterator[None]:
    original = vars(model).get("_head_before_training", [])
    trained = [(parameter, parameter.detach().clone()) for parameter, _ in original]
    _copy(original)
    try:
        yield
    finally:
        _copy(trained)


@torch.no_grad()
def _copy(pairs: Sequence[tuple[nn.Parameter, Tensor]]) -> None:
    for parameter, values in pairs:
        parameter.copy_(values)


# torch's own transformer layers have fused kernels that read the weights of their parts and never call them.
# While adapters are in the model these switches are off.
_FUSED_PATHS = (
    (nn.TransformerEncoder, "use_nested_tensor", False),
    (nn.TransformerEncoderLayer, "activation_relu_or_gelu", 0),
)


def _close_fused_paths(model: nn.Module) -> None:
    for module in model.modules():
        for kind, switch, off in _FUSED_PATHS:
            if isinstance(module, kind):
                vars(module).setdefault("_fused_path", getattr(module, switch))
                setattr(module, switch, off)


def _open_fused_paths(model: nn.Module) -> None:
    for module in model.modules():
        for kind, switch, _ in _FUSED_PATHS:
            if isinstance(module, kind) and "_fused_path" in vars(module):
                setattr(module, switch, vars(module).pop("_fused_path"))
