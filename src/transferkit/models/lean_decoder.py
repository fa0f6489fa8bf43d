"""The inference form of the translator: one position of each target at a time, the same numbers as of all at once.

Keys and values of the source and of the positions before are kept, so that a step computes the new position alone.
Query, key and value are one product, and weights are laid out once, for all batches.

Shapes: B sources, K targets in progress of each, which are B * K rows, those of a source together; S tokens of a
source, H heads, D width, V words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from transferkit.config import Precision
from transferkit.models.attention import attention_weights
from transferkit.models.key_values import KeysValues
from transferkit.models.layers import Shape
from transferkit.models.lean_layers import Linear, Norm, Weights, number_format
from transferkit.models.translator import Translator, over_heads


@dataclass(frozen=True)
class LayerCache:
    """What a layer keeps between steps: of the targets so far, B * K rows, and of the sources, B rows."""

    target: KeysValues
    source: KeysValues

    def rows(self, targets: Tensor, sources: Tensor | None = None) -> LayerCache:
        """Of these targets, and of these sources where not all of them."""
        return LayerCache(self.target.rows(targets), self.source if sources is None else self.source.rows(sources))


class LeanDecoderLayer:
    """`DecoderLayer` for one position."""

    def __init__(self, weights: Weights, prefix: str, shape: Shape, precision: Precision) -> None:
        def linear(*names: str) -> Linear:
            return Linear(weights, tuple(prefix + name for name in names), precision)

        self.heads, self.pre_norm = shape.heads, shape.pre_norm
        self.query_key_value = linear(*(f"self_attention.{part}" for part in ("query", "key", "value")))
        self.output = linear("self_attention.output")
        self.source_query = linear("cross_attention.query")
        self.source_key_value = linear("cross_attention.key", "cross_attention.value")
        self.source_output = linear("cross_attention.output")
        self.widen = Linear(weights, (f"{prefix}feed_forward.linear1",), precision, shape.activation)
        self.narrow = linear("feed_forward.linear2")
        self.norms = [_norm(weights, f"{prefix}residuals.{index}.norm", precision) for index in range(3)]

    def begin(self, states: Tensor) -> LayerCache:
        """The cache before the first step, of the sources' states [B, S, D]."""
        source = self._heads_apart(self.source_key_value(states), 2).permute(2, 0, 3, 1, 4)
        return LayerCache(KeysValues(source[:, :, :, :0]), KeysValues(source))

    def __call__(self, x: Tensor, cache: LayerCache, source_mask: Tensor | None) -> Tensor:
        """x [B * K, D] at the position after those in `cache`, which takes it in; returns its states."""

        def look_back(y: Tensor) -> Tensor:
            joint = self._heads_apart(self.query_key_value(y), 3)
            cache.target.add(joint[:, 1:].transpose(0, 1))
            return self.output(self._look(joint[:, 0], cache.target))

        def look_across(y: Tensor) -> Tensor:
            query = self._heads_apart(self.source_query(y), 1).squeeze(1)
            return self.source_output(self._look(query, cache.source, source_mask))

        x = self._residual(0, x, look_back)
        x = self._residual(1, x, look_across)
        return self._residual(2, x, lambda y: self.narrow(self.widen(y)))

    def _residual(self, index: int, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """As in `Residual`."""
        norm = self.norms[index]
        return sublayer(norm(x)) + x if self.pre_norm else norm(sublayer(x) + x)

    def _look(self, query: Tensor, given: KeysValues, mask: Tensor | None = None) -> Tensor:
        """Attention of queries [B * K, H, D / H]: [B * K, D]."""
        # Targets of one source look at the same keys: they are so many queries more, and no key is repeated.
        keys = given.keys
        together = query.view(len(keys), -1, *query.shape[1:]).transpose(1, 2).to(keys.dtype)
        mixed = attention_weights(together, keys, mask) @ given.values
        return mixed.transpose(1, 2).reshape(len(query), -1).to(query.dtype)

    def _heads_apart(self, x: Tensor, parts: int) -> Tensor:
        """[..., parts * D] -> [..., parts, H, D / H]."""
        return x.view(*x.shape[:-1], parts, self.heads, -1)


class LeanDecoder:
    """A translator, ready to decode. What the translator learns later changes nothing here."""

    def __init__(self, model: Translator, precision: Precision) -> None:
        """`model` is put in eval mode; it encodes the sources and embeds the targets itself."""
        weights = model.state_dict()
        self.model = model.eval()
        self.precision: Precision = precision
        self.layers = [
            LeanDecoderLayer(weights, f"decoder.layers.{index}.", model.shape, precision)
            for index in range(len(model.decoder.layers))
        ]
        self.norm = _norm(weights, "decoder.norm", precision) if model.shape.pre_norm else None
        self.projection = Linear(weights, ("projection",), precision)

    def begin(self, source: Tensor, source_mask: Tensor | None) -> list[LayerCache]:
        """The cache of every layer before the first step; source ids [B, S], mask bool [B, S], True on real tokens."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16"):
            states = self.model.encode(source, source_mask)
        return [layer.begin(states.to(number_format(self.precision))) for layer in self.layers]

    def step(self, tokens: Tensor, position: int, caches: Sequence[LayerCache], source_mask: Tensor | None) -> Tensor:
        """Log-probabilities [B * K, V], in fp32, of what may follow `tokens` int64 [B * K] at `position`.

        The caches are those of the positions before, and take this one in.
        """
        embedded = self.model.positions(self.model.target_embedding(tokens.unsqueeze(1)), position)
        x = embedded.squeeze(1).to(number_format(self.precision))
        mask = over_heads(source_mask)
        for layer, cache in zip(self.layers, caches, strict=True):
            x = layer(x, cache, mask)
        states = x if self.norm is None else self.norm(x)
        return torch.log_softmax(self.projection(states).float(), -1)


def _norm(weights: Weights, name: str, precision: Precision) -> Norm:
    return Norm(weights, name, 1e-5, precision)
