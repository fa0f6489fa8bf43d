"""A small encoder of texts, built from the parts and known to transformers: word vectors, positions, a few layers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from transferkit.models.layers import Encoder, Shape, SinusoidalPositions, Weights


class TextEncoderConfig(PreTrainedConfig):  # type: ignore[misc]
    """The sizes; as they stand, those of the published playbook on GloVe vectors of 100 numbers."""

    model_type = "transferkit-text-encoder"
    # As others call them, such as the prompt methods of PEFT.
    attribute_map = {"num_hidden_layers": "layers", "num_attention_heads": "heads"}

    def __init__(
        self, vocab_size: int = 2, hidden_size: int = 100, layers: int = 2, heads: int = 2, feed_forward: int = 128,
        dropout: float = 0.1, freeze_vectors: bool = False, **settings: Any,
    ) -> None:  # fmt: skip
        """`freeze_vectors`: whether the word vectors stay as they are under every strategy."""
        settings.setdefault("pad_token_id", 0)
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.layers = layers
        self.heads = heads
        self.feed_forward = feed_forward
        self.dropout = dropout
        self.freeze_vectors = freeze_vectors
        super().__init__(**settings)

    def shape(self) -> Shape:
        """What the layers share. Norms come after the sublayers, as in the playbook: two layers need no more."""
        return Shape(self.hidden_size, self.heads, self.feed_forward, self.dropout, pre_norm=False)


class TextEncoder(PreTrainedModel):  # type: ignore[misc]
    """Ids to hidden states [rows, length, width]: vectors times sqrt(width), plus positions, through the layers."""

    config_class = TextEncoderConfig
    # Where a model of transformers with a head keeps its encoder; what has no such part is an encoder without a head.
    base_model_prefix = "text_encoder"

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__(config)
        shape = config.shape()
        self.embedding = nn.Embedding(config.vocab_size, shape.width, padding_idx=config.pad_token_id)
        self.positions = SinusoidalPositions(shape.width, shape.dropout)
        self.encoder = Encoder(config.layers, shape)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """The word vectors."""
        return self.embedding

    def forward(
        self, input_ids: Tensor | None = None, *, attention_mask: Tensor, inputs_embeds: Tensor | None = None,
        output_attentions: bool = False, **_: Any,
    ) -> BaseModelOutput:  # fmt: skip
        """ids and mask, 1 or True on real tokens, each [rows, length]; vectors [rows, length, width] in place of ids.

        Where they are asked for, as transformers asks, the outcome has the attention weights of each layer too.
        """
        vectors = self.embedding(input_ids) if inputs_embeds is None else inputs_embeds
        # Not in the embedding, so that it stays a plain nn.Embedding (section 3.4 of Vaswani et al. 2017).
        x = vectors * math.sqrt(self.config.hidden_size)
        weights = Weights() if output_attentions else None
        x = self.encoder(self.positions(x), attention_mask[:, None, None, :].bool(), weights)
        return BaseModelOutput(x, attentions=None if weights is None else tuple(weights))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """As transformers calls it: for what was in no file, and for tables that are in none."""
        draw_weights(module)
        if isinstance(module, SinusoidalPositions):
            module.fill()


def draw_weights(module: nn.Module) -> None:
    """Linear layers and norms as torch draws them; vectors such that their length is about 1."""
    if isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)
        if module.padding_idx is not None:
            module.weight[module.padding_idx] = 0
    elif isinstance(module, (nn.Linear, nn.LayerNorm)):
        module.reset_parameters()
