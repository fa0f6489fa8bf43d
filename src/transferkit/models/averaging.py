"""The least of all encoders: the mean of the word vectors of a text through one hidden layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from transferkit.models.backbones import pool_mean
from transferkit.models.text_encoder import draw_weights


class AveragingConfig(PreTrainedConfig):  # type: ignore[misc]
    """The sizes; as they stand, those of the published playbook on GloVe vectors of 100 numbers."""

    model_type = "transferkit-averaging"

    def __init__(
        self, vocab_size: int = 2, vector_size: int = 100, hidden_size: int = 128, freeze_vectors: bool = False,
        **settings: Any,
    ) -> None:  # fmt: skip
        """`freeze_vectors`: whether the word vectors stay as they are under every strategy."""
        settings.setdefault("pad_token_id", 0)
        self.vocab_size = vocab_size
        self.vector_size = vector_size
        self.hidden_size = hidden_size
        self.freeze_vectors = freeze_vectors
        super().__init__(**settings)


class AveragingEncoder(PreTrainedModel):  # type: ignore[misc]
    """Ids to hidden states [rows, length, hidden]: relu(W mean + b), the same at each position (Iyyer et al. 2015)."""

    config_class = AveragingConfig
    # As of `TextEncoder`: it is an encoder without a head.
    base_model_prefix = "averaging_encoder"

    def __init__(self, config: AveragingConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.vector_size, padding_idx=config.pad_token_id)
        self.hidden = nn.Linear(config.vector_size, config.hidden_size)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """The word vectors."""
        return self.embedding

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> BaseModelOutput:
        """ids and mask, 1 or True on real tokens, each [rows, length]."""
        hidden = torch.relu(self.hidden(pool_mean(self.embedding(input_ids), attention_mask)))
        return BaseModelOutput(hidden.unsqueeze(1).expand(-1, input_ids.shape[1], -1))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """As transformers calls it, for what was in no file."""
        draw_weights(module)
