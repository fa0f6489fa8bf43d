"""The inference form of BERT and its relatives: the same numbers with as little as possible around the products.

Query, key and value are one product, and nothing is looked up or checked on the way. It needs torch and the weights,
and not transformers, whose import takes longer than the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional

from transferkit.config import Precision
from transferkit.models.backbones import POSITIONS_AFTER_PADDING
from transferkit.models.lean_layers import Linear, Norm, Weights, number_format, self_attention


@dataclass(frozen=True)
class Names:
    """Where a family keeps the parts of a layer, below the prefix of the layer."""

    layer: str
    attention: tuple[str, str, str, str]
    attention_norm: str
    feed_forward: tuple[str, str]
    output_norm: str


_BERT = Names(
    "encoder.layer.{}.",
    ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
    "attention.output.LayerNorm",
    ("intermediate.dense", "output.dense"),
    "output.LayerNorm",
)
_DISTILBERT = Names(
    "transformer.layer.{}.",
    ("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"),
    "sa_layer_norm",
    ("ffn.lin1", "ffn.lin2"),
    "output_layer_norm",
)
FAMILIES: dict[str, Names] = {
    "bert": _BERT, "roberta": _BERT, "xlm-roberta": _BERT, "camembert": _BERT, "electra": _BERT,
    "distilbert": _DISTILBERT,
}  # fmt: skip


class Layer:
    """A post-norm transformer layer (Vaswani et al. 2017, section 3.1)."""

    def __init__(
        self, weights: Weights, names: Names, prefix: str, heads: int, eps: float, precision: Precision
    ) -> None:
        query, key, value, output = (prefix + name for name in names.attention)
        widen, narrow = (prefix + name for name in names.feed_forward)
        if any(f"{name}.down.weight" in weights for name in (query, key, value)):
            raise NotLeanError("an adapter on a part of a joint product")
        self.heads = heads
        self.query_key_value = Linear(weights, (query, key, value), precision)
        self.output = Linear(weights, (output,), precision)
        self.attention_norm = Norm(weights, prefix + names.attention_norm, eps, precision)
        self.widen = Linear(weights, (widen,), precision, "gelu")
        self.narrow = Linear(weights, (narrow,), precision)
        self.output_norm = Norm(weights, prefix + names.output_norm, eps, precision)

    def __call__(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x [rows, length, width], mask bool [rows, 1, 1, length] or None -> [rows, length, width]."""
        mixed = self_attention(self.query_key_value(x), self.heads, mask)
        x = self.attention_norm(x + self.output(mixed))
        return self.output_norm(x + self.narrow(self.widen(x)))


class LeanEncoder:
    """Hidden states of a batch. Equal to transformers' model of the same weights, up to rounding."""

    def __init__(self, weights: Weights, config: Mapping[str, Any], precision: Precision) -> None:
        """`weights` by their names in transformers, without the prefix of the base model; `config` as in config.json.

        Raises:
            NotLeanError: the family, one of its options, or a weight is not known here.
        """
        names = FAMILIES.get(config["model_type"])
        if names is None or _unknown_options(config):
            raise NotLeanError(f"the family {config['model_type']} with its options")
        eps = float(config.get("layer_norm_eps", 1e-12))
        try:
            heads = int(config.get("num_attention_heads") or config["n_heads"])
            layers = int(config.get("num_hidden_layers") or config["n_layers"])
            # Everything kept is a copy, so that the file which the weights are mapped from can be let go.
            self.words = weights["embeddings.word_embeddings.weight"].clone()
            self.positions = weights["embeddings.position_embeddings.weight"][_first_position(config) :].clone()
            types = weights.get("embeddings.token_type_embeddings.weight")
            self.types = None if types is None else types.clone()
            self.norm = Norm(weights, "embeddings.LayerNorm", eps, "fp32")
            project = "embeddings_project.weight" in weights
            self.project = Linear(weights, ("embeddings_project",), precision) if project else None
            prefixes = [names.layer.format(index) for index in range(layers)]
            self.layers = [Layer(weights, names, prefix, heads, eps, precision) for prefix in prefixes]
        except KeyError as error:
            raise NotLeanError(f"no weight {error}") from None
        self.dtype = number_format(precision)

    def __call__(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """ids int64, mask bool, types int64, each [rows, length] -> hidden states [rows, length, width]."""
        x = functional.embedding(input_ids, self.words) + self.positions[: input_ids.shape[1]]
        if self.types is not None:
            x = x + (self.types[0] if token_type_ids is None else functional.embedding(token_type_ids, self.types))
        x = self.norm(x).to(self.dtype)
        if self.project is not None:
            x = self.project(x)
        # Rows of one length need no mask, and kernels are faster without.
        mask = None if bool(attention_mask.all()) else attention_mask[:, None, None, :]
        for layer in self.layers:
            x = layer(x, mask)
        return x


class NotLeanError(Exception):
    """The model is to be computed by transformers."""


def _first_position(config: Mapping[str, Any]) -> int:
    return int(config.get("pad_token_id", 1)) + 1 if config["model_type"] in POSITIONS_AFTER_PADDING else 0


def _unknown_options(config: Mapping[str, Any]) -> bool:
    activation = config.get("hidden_act") or config.get("activation", "gelu")
    positions = config.get("position_embedding_type", "absolute")
    return activation != "gelu" or positions != "absolute" or bool(config.get("is_decoder"))
