"""A model cut in two: the layers below the first one that trains, and the rest.

The lower part gives a row the same output in every step, so long as it is frozen and in eval mode.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from transferkit.adaptation.freezing import layer_stack, set_training_mode
from transferkit.errors import AdaptationError
from transferkit.models.backbones import POOLINGS, TextClassifier


class Prefix:
    """The lower part of a classifier: all that its own pooled head reads, or its first `depth` layers."""

    def __init__(self, model: TextClassifier, depth: int | None) -> None:
        """`depth`: how many layers are below the cut, at least 1; None for the whole network and its pooling."""
        self.model = model
        self.depth = depth
        self._layers = [] if depth is None else _layers(model)[:depth]

    @property
    def is_pooled(self) -> bool:
        """Whether a row's states are one vector, and not one for each token."""
        return self.depth is None

    def __str__(self) -> str:
        return "pooled" if self.depth is None else f"layer {self.depth}"

    def __call__(self, batch: dict[str, Tensor]) -> Tensor:
        """Logits [rows, classes] of a batch, from its `states` where it has them."""
        states = batch.pop("states", None)
        return self.model(**batch) if states is None else self.resume(states, batch)

    def compute(self, features: dict[str, Tensor]) -> Tensor:
        """States of a batch: [rows, width] where pooled, else [rows, length, width]."""
        if self.depth is None:
            hidden = self.model.network(**features).last_hidden_state
            return POOLINGS[self.model.pooling](hidden, features["attention_mask"])
        try:
            with self._watched():
                self.model.network(**features)
        except _ReachedError as reached:
            return reached.states
        raise AssertionError("the layers of a network are called")

    def resume(self, states: Tensor, features: dict[str, Tensor]) -> Tensor:
        """Logits [rows, classes] from what `compute` gave; the layers below the cut are not called."""
        if self.depth is None:
            assert self.model.head is not None, "what is pooled has a head of its own"
            return cast(Tensor, self.model.head(states))
        with self._skipped(states):
            return cast(Tensor, self.model(**features))

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """End the forward pass with the output of the last layer below the cut."""

        def stop(_layer: nn.Module, _given: Any, output: Tensor) -> None:
            raise _ReachedError(output)

        hook = self._layers[-1].register_forward_hook(stop)
        try:
            yield
        finally:
            hook.remove()

    @contextmanager
    def _skipped(self, states: Tensor) -> Iterator[None]:
        """Let every layer below the cut answer with `states`, whatever it is given."""
        try:
            for layer in self._layers:
                vars(layer)["forward"] = lambda *_, **__: states
            yield
        finally:
            for layer in self._layers:
                vars(layer).pop("forward", None)


def find_prefix(model: nn.Module, row: dict[str, Tensor]) -> Prefix | None:
    """The largest lower part of `model` in which nothing trains; None where there is none, or none that is known.

    There is none either where dropout runs in it all the same, as that on the embeddings of GPT-2 does: no module that
    is frozen holds it.

    Args:
        model: any; only a `TextClassifier` can have one.
        row: a batch without labels, on which the layers are watched. Some families take no text that has too few
            tokens, or no <eos>, so it is a real one.
    """
    if not isinstance(model, TextClassifier):
        return None
    model.eval()
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if model.head is not None and all(name.startswith("head.") for name in trainable):
        return Prefix(model, None)
    try:
        stack, _ = layer_stack(model)
    except AdaptationError:
        return None
    numbers = [re.match(rf"{re.escape(stack)}\.(\d+)\.", name) for name in trainable]
    outside = {name for name, number in zip(trainable, numbers, strict=True) if number is None}
    if outside - model.head_parameters or not _is_row_of_layers(model, row):
        return None
    depth = min((int(number[1]) for number in numbers if number), default=len(_layers(model)))
    prefix = Prefix(model, depth) if depth else None
    return prefix if prefix is not None and _is_steady(prefix, row) else None


class _ReachedError(Exception):
    """Carries the states out of the forward pass."""

    def __init__(self, states: Tensor) -> None:
        self.states = states


def _layers(model: TextClassifier) -> list[nn.Module]:
    return list(model.get_submodule(layer_stack(model)[0]).children())


@torch.no_grad()
def _is_steady(prefix: Prefix, row: dict[str, Tensor]) -> bool:
    """Whether `prefix` answers in training as it does in eval mode, in which it is left."""
    states = prefix.compute(row)
    with torch.random.fork_rng(devices=[]):
        set_training_mode(prefix.model)
        in_training = prefix.compute(row)
    prefix.model.eval()
    return torch.equal(states, in_training)


@torch.no_grad()
def _is_row_of_layers(model: TextClassifier, row: dict[str, Tensor]) -> bool:
    """Whether each layer is called once, one after the other, and answers with one tensor [rows, length, width]."""
    calls: list[tuple[int, bool]] = []

    def is_states(output: Any) -> bool:
        return isinstance(output, Tensor) and output.shape[:2] == row["input_ids"].shape

    hooks = [
        layer.register_forward_hook(lambda _, __, output, i=i: calls.append((i, is_states(output))))
        for i, layer in enumerate(_layers(model))
    ]
    try:
        model(**row)
    finally:
        for hook in hooks:
            hook.remove()
    return calls == [(i, True) for i in range(len(hooks))]
