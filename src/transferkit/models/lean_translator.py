"""The inference form of the translator: the same numbers, with one position of each target at a time.

Keys and values of the source and of the positions before are kept, so that a step computes the new position alone.
Query, key and value are one product, and weights are laid out once, for all batches.

Shapes: B sources, K targets in progress of each, which are B * K rows, those of a source together; S tokens of a
source, H heads, D width, V tokens of the target vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from transferkit.config import Precision
from transferkit.errors import AdaptationError
from transferkit.models.key_values import KeysValues
from transferkit.models.layers import NORM_EPS, Activation, Shape
from transferkit.models.lean_layers import Linear, Norm, Weights, number_format, self_attention
from transferkit.models.translator import Translator, over_heads


@dataclass(frozen=True)
class Part:
    """The part of a model whose weights begin with a prefix."""

    weights: Weights
    prefix: str
    shape: Shape
    precision: Precision
    # Whether its layers are given the rows of one step, and not all tokens of a batch.
    few_rows: bool = False

    def linear(self, *names: str, activation: Activation | None = None) -> Linear:
        """One product of layers on the same input."""
        return Linear(
            self.weights, tuple(self.prefix + name for name in names), self.precision, activation, self.few_rows
        )

    def norm(self, name: str) -> Norm:
        """`LayerNorm` of that name."""
        return Norm(self.weights, self.prefix + name, NORM_EPS, self.precision)


class LeanLayer:
    """What the layers of both stacks share."""

    def __init__(self, part: Part, attention: str, residuals: int) -> None:
        self.heads, self.pre_norm = part.shape.heads, part.shape.pre_norm
        self.query_key_value = part.linear(*(f"{attention}.{name}" for name in ("query", "key", "value")))
        self.output = part.linear(f"{attention}.output")
        self.widen = part.linear("feed_forward.linear1", activation=part.shape.activation)
        self.narrow = part.linear("feed_forward.linear2")
        self.norms = [part.norm(f"residuals.{index}.norm") for index in range(residuals)]

    def feed_forward(self, x: Tensor) -> Tensor:
        """As `FeedForward`."""
        return self.narrow(self.widen(x))

    def residual(self, index: int, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """As `Residual`."""
        norm = self.norms[index]
        return sublayer(norm(x)) + x if self.pre_norm else norm(sublayer(x) + x)

    def heads_apart(self, x: Tensor, parts: int) -> Tensor:
        """[..., parts * D] -> [..., parts, H, D / H]."""
        return x.view(*x.shape[:-1], parts, self.heads, -1)


class LeanEncoderLayer(LeanLayer):
    """`EncoderLayer`."""

    def __init__(self, part: Part) -> None:
        super().__init__(part, "attention", residuals=2)

    def __call__(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x [B, S, D], mask bool [B, 1, 1, S]."""

        def look(y: Tensor) -> Tensor:
            return self.output(self_attention(self.query_key_value(y), self.heads, mask))

        return self.residual(1, self.residual(0, x, look), self.feed_forward)


@dataclass(frozen=True)
class LayerCache:
    """What a decoder layer keeps between steps: of the targets so far, B * K rows, and of the sources, B rows."""

    target: KeysValues
    source: KeysValues

    def rows(self, targets: Tensor, sources: Tensor | None = None) -> LayerCache:
        """Of these targets, and of these sources where not all of them."""
        return LayerCache(self.target.rows(targets), self.source if sources is None else self.source.rows(sources))


class LeanDecoderLayer(LeanLayer):
    """`DecoderLayer` for one position."""

    def __init__(self, part: Part) -> None:
        super().__init__(part, "self_attention", residuals=3)
        self.source_query = part.linear("cross_attention.query")
        self.source_key_value = replace(part, few_rows=False).linear("cross_attention.key", "cross_attention.value")
        self.source_output = part.linear("cross_attention.output")

    def begin(self, states: Tensor) -> LayerCache:
        """The cache before the first step, of the sources' states [B, S, D]."""
        source = self.heads_apart(self.source_key_value(states), 2).permute(2, 0, 3, 1, 4)
        return LayerCache(KeysValues(source[:, :, :, :0]), KeysValues(source))

    def __call__(self, x: Tensor, cache: LayerCache, source_mask: Tensor | None) -> Tensor:
        """x [B * K, D] at the position after those in `cache`, which takes it in; the mask is bool [B, 1, 1, S]."""

        def look_back(y: Tensor) -> Tensor:
            joint = self.heads_apart(self.query_key_value(y), 3)
            cache.target.add(joint[:, 1:].transpose(0, 1))
            return self.output(_look(joint[:, 0], cache.target))

        def look_across(y: Tensor) -> Tensor:
            query = self.heads_apart(self.source_query(y), 1).squeeze(1)
            return self.source_output(_look(query, cache.source, source_mask))

        x = self.residual(0, x, look_back)
        x = self.residual(1, x, look_across)
        return self.residual(2, x, self.feed_forward)


class LeanTranslator:
    """A translator, ready to translate. What the model learns later changes nothing here but its embeddings."""

    def __init__(self, model: Translator, precision: Precision) -> None:
        """`model` is put in eval mode; it embeds sources and targets itself.

        Raises:
            AdaptationError: it has adapters.
        """
        check_linears(model, "The inference form of a translator")
        weights, shape = model.state_dict(), model.shape

        def parts(stack: str, layers: int, few_rows: bool) -> list[Part]:
            return [Part(weights, f"{stack}.layers.{index}.", shape, precision, few_rows) for index in range(layers)]

        self._model = model.eval()
        self._format = number_format(precision)
        self._encoder = [LeanEncoderLayer(part) for part in parts("encoder", len(model.encoder.layers), few_rows=False)]
        self._decoder = [LeanDecoderLayer(part) for part in parts("decoder", len(model.decoder.layers), few_rows=True)]
        whole = Part(weights, "", shape, precision, few_rows=True)
        self._encoder_norm, self._decoder_norm = (
            whole.norm(f"{stack}.norm") if shape.pre_norm else None for stack in ("encoder", "decoder")
        )
        self._projection = whole.linear("projection")

    def encode(self, source: Tensor, source_mask: Tensor | None) -> Tensor:
        """States [B, S, D] of source ids [B, S]; the mask is bool [B, S], True on real tokens."""
        x = self._model.positions(self._model.source_embedding(source)).to(self._format)
        mask = over_heads(source_mask)
        for layer in self._encoder:
            x = layer(x, mask)
        return x if self._encoder_norm is None else self._encoder_norm(x)

    def begin(self, source: Tensor, source_mask: Tensor | None) -> list[LayerCache]:
        """The cache of every decoder layer before the first step; as `encode` takes them."""
        states = self.encode(source, source_mask)
        return [layer.begin(states) for layer in self._decoder]

    def step(self, tokens: Tensor, position: int, caches: Sequence[LayerCache], source_mask: Tensor | None) -> Tensor:
        """Log-probabilities [B * K, V], in fp32, of what may follow `tokens` int64 [B * K] at `position`.

        The caches are those of the positions before, and take this one in.
        """
        embedded = self._model.positions(self._model.target_embedding(tokens.unsqueeze(1)), position)
        x, mask = embedded.squeeze(1).to(self._format), over_heads(source_mask)
        for layer, cache in zip(self._decoder, caches, strict=True):
            x = layer(x, cache, mask)
        states = x if self._decoder_norm is None else self._decoder_norm(x)
        return torch.log_softmax(self._projection(states).float(), -1)


_LINEARS = ("query", "key", "value", "output", "linear1", "linear2", "projection")


def check_linears(model: Translator, form: str) -> None:
    """Another form of the model reads the weights of its linear layers, and what wraps one is not in it.

    Raises:
        AdaptationError: a linear layer is wrapped or replaced; `form` is who says so.
    """
    for name, module in model.named_modules():
        kind = type(module)
        if name.rpartition(".")[2] in _LINEARS and kind is not nn.Linear:
            raise AdaptationError(f"{form} has no {kind.__name__}, which stands at {name}; merge adapters first.")


def _look(query: Tensor, given: KeysValues, mask: Tensor | None = None) -> Tensor:
    """Attention of queries [B * K, H, D / H] to keys and values of B rows: [B * K, D]."""
    keys = given.keys
    # Targets of one source look at the same keys: they are so many queries more, and no key is repeated.
    together = query.view(len(keys), -1, *query.shape[1:]).transpose(1, 2)
    mixed = functional.scaled_dot_product_attention(together, keys, given.values, attn_mask=mask)
    return mixed.transpose(1, 2).reshape(len(query), -1)
