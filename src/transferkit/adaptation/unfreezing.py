"""The strategies that add nothing: from scratch, linear probe, partial, BitFit, full."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import nn

from transferkit.adaptation.base import Strategy
from transferkit.adaptation.freezing import fixed_parameters, head_parameters, layer_stack
from transferkit.adaptation.patterns import Patterns, select
from transferkit.errors import AdaptationError


class Full(Strategy):
    """Train everything."""

    name: ClassVar[str] = "full"
    keeps_whole_model: ClassVar[bool] = True

    # Small models take, and need, more than BERT's 2e-5 to 5e-5 (Devlin et al. 2019, A.3).
    learning_rate: float = Field(default=1e-4, gt=0)

    def adapt(self, model: nn.Module) -> None:
        """Unfreeze everything."""
        model.requires_grad_(True)


class Scratch(Strategy):
    """Train everything from random initial weights of the same architecture: the measure of pre-training."""

    name: ClassVar[str] = "scratch"
    keeps_whole_model: ClassVar[bool] = True

    # Random weights have nothing to forget; above this, training of post-norm transformers gets unstable
    # (Xiong et al. 2020, section 3).
    learning_rate: float = Field(default=2e-4, gt=0)

    def adapt(self, model: nn.Module) -> None:
        """Draw all weights anew from torch's global generator and unfreeze them."""
        reinitialise(model)
        model.requires_grad_(True)


class LinearProbe(Strategy):
    """Train the head alone, on the features of the frozen backbone."""

    name: ClassVar[str] = "linear-probe"

    # A convex problem on fixed features: steps can be large.
    learning_rate: float = Field(default=1e-2, gt=0)

    def adapt(self, model: nn.Module) -> None:
        """Nothing beside the head."""


class Partial(Strategy):
    """Train the head and chosen parts: the last layers, parameters by pattern, or both."""

    name: ClassVar[str] = "partial"

    # Between the probe and full fine-tuning: fewer weights to pull out of place.
    learning_rate: float = Field(default=2e-4, gt=0)
    # None with no patterns: the last 2, a third of a six-layer model.
    layers: int | None = Field(default=None, ge=1)
    # Of parameters, such as `encoder.layer.5.**` or `**.LayerNorm.*`.
    patterns: Patterns = ()

    def adapt(self, model: nn.Module) -> None:
        """Unfreeze the chosen parameters."""
        parameters = dict(model.named_parameters())
        chosen = set(select(self.patterns, _with_parents(parameters), "parameter"))
        count = self.layers or (0 if self.patterns else 2)
        if count:
            chosen |= set(_last_layers(model, count, asked=self.layers is not None))
        unfrozen = {name for name in parameters if any(parent in chosen for parent in _parents(name))}
        if unfrozen <= fixed_parameters(model) | head_parameters(model):
            raise AdaptationError(
                f"partial: {', '.join(self.patterns)} names nothing but the head, which trains anyway, and what is "
                "fixed; name other parameters, or use linear-probe."
            )
        for name in unfrozen:
            parameters[name].requires_grad_(True)


class BitFit(Strategy):
    """Train the head and all biases (Ben Zaken et al. 2022, section 3)."""

    name: ClassVar[str] = "bitfit"

    # A bias only shifts its layer's output: the paper's sweep favours rates ten times those of full
    # fine-tuning and more (appendix A.1).
    learning_rate: float = Field(default=2e-3, gt=0)

    def adapt(self, model: nn.Module) -> None:
        """Unfreeze the biases."""
        head = head_parameters(model)
        biases = [p for name, p in model.named_parameters() if _is_bias(name) and name not in head]
        if not biases:
            raise AdaptationError(f"bitfit: {type(model).__name__} has no biases outside its head; use lora.")
        for bias in biases:
            bias.requires_grad_(True)


def _is_bias(name: str) -> bool:
    """Whether a parameter is called so: `bias`, `in_proj_bias`, and in a recurrent layer `bias_ih_l0`."""
    return name.rpartition(".")[2].startswith("bias") or name.endswith("bias")


def reinitialise(model: nn.Module) -> None:
    """Draw every weight anew as the architecture does at its birth; what is fixed stays.

    Raises:
        AdaptationError: a module does not say how its weights are drawn, so that they would stay.
    """
    before = [(name, p.detach().clone()) for name, p in model.named_parameters()]
    for module in _from_the_inside_out(model, set()):
        # torch.nn.MultiheadAttention spells it with an underscore.
        for reset in ("reset_parameters", "_reset_parameters"):
            _call_if_there(module, reset)
    for module in model.modules():
        if hasattr(module, "initialize_weights"):
            # transformers marks what it has loaded so as not to draw it again.
            for part in [*module.modules(), *module.parameters(), *module.buffers()]:
                vars(part).pop("_is_hf_initialized", None)
            _call_if_there(module, "initialize_weights")
    now = dict(model.named_parameters())
    fixed, origins = fixed_parameters(model), getattr(model, "origins", {})
    for name, old in before:
        if name in fixed:
            with torch.no_grad():
                now[name].copy_(old)
            continue
        if now[name] in origins:
            origins[now[name]] = "new"
        # Norms and biases start as ones and zeros, and may be the same before and after.
        if torch.equal(old, now[name]) and not torch.equal(old, old.flatten()[:1].expand_as(old)):
            raise AdaptationError(
                f"scratch: {type(model).__name__} does not say how {name} is drawn; "
                "give the module that holds it a reset_parameters() method."
            )


def _from_the_inside_out(module: nn.Module, seen: set[nn.Module]) -> Iterator[nn.Module]:
    """Every module once, after those in it: a model draws its weights after the layers that it is made of."""
    seen.add(module)
    for child in module.children():
        if child not in seen:
            yield from _from_the_inside_out(child, seen)
    yield module


def _call_if_there(module: nn.Module, name: str) -> None:
    method: Any = getattr(module, name, None)
    if callable(method):
        method()


def _last_layers(model: nn.Module, count: int, asked: bool) -> list[str]:
    stack, layers = layer_stack(model)
    if asked and count > len(layers):
        where = f" in {stack}" if stack else ""
        raise AdaptationError(f"partial: layers is {count}, but {type(model).__name__} has {len(layers)}{where}.")
    return [f"{stack}.{layer}" if stack else layer for layer in layers[-count:]]


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _with_parents(names: Any) -> list[str]:
    return list(dict.fromkeys(parent for name in names for parent in _parents(name)))
