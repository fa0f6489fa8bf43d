"""The Transformer (Vaswani et al. 2017): encode a source, decode a target, project to tokens.

Shapes: B rows, S tokens of a source, T of a target, D width, V tokens of the target vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from transferkit.models.attention import causal_mask
from transferkit.models.layers import Decoder, Encoder, Shape, SinusoidalPositions, TokenEmbedding, Weights

Kind = Literal["encoder", "decoder", "cross"]
# The fields of `Attentions`.
KINDS: tuple[Kind, ...] = ("encoder", "decoder", "cross")


@dataclass(frozen=True)
class Attentions:
    """The attention weights of one pass, a tensor a layer.

    `encoder` [B, H, S, S], `decoder` [B, H, T, T], `cross` [B, H, T, S].
    """

    encoder: tuple[Tensor, ...]
    decoder: tuple[Tensor, ...]
    cross: tuple[Tensor, ...]


class Translator(nn.Module):
    """Source ids and the target so far to log-probabilities of the next token at every position."""

    def __init__(
        self, source_vocabulary: int, target_vocabulary: int, encoder_layers: int, decoder_layers: int, shape: Shape,
        tied: bool,
    ) -> None:  # fmt: skip
        """`tied` makes the embeddings of both sides and the projection one matrix (section 3.4).

        Raises:
            ValueError: `tied`, and the vocabularies differ in size.
        """
        super().__init__()
        if tied and source_vocabulary != target_vocabulary:
            raise ValueError(
                f"Tied embeddings need one vocabulary; there are {source_vocabulary} and {target_vocabulary} tokens."
            )
        self.shape = shape
        self.source_embedding = TokenEmbedding(source_vocabulary, shape.width)
        self.target_embedding = TokenEmbedding(target_vocabulary, shape.width)
        self.positions = SinusoidalPositions(shape.width, shape.dropout)
        self.encoder = Encoder(encoder_layers, shape)
        self.decoder = Decoder(decoder_layers, shape)
        self.projection = nn.Linear(shape.width, target_vocabulary, bias=not tied)
        self.tied = tied
        self.reset_parameters()
        self._tie()

    def _tie(self) -> None:
        if self.tied:
            self.target_embedding.weight = self.projection.weight = self.source_embedding.weight

    def reset_parameters(self) -> None:
        """Draw the matrices anew; norms and biases stay as their layers have them."""
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        if self.tied:
            # Times sqrt(D) in the embedding these are of size 1, and as a projection they start with logits of size 1.
            nn.init.normal_(self.source_embedding.weight, std=self.shape.width**-0.5)

    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Have these parameters, by name, what is tied once; the model may have been made on the device `meta`.

        Raises:
            RuntimeError: a name or a shape is not that of the model.
        """
        known = dict(self.named_parameters()).keys()
        if strange := sorted(known ^ tensors.keys()):
            raise RuntimeError(f"{strange[0]} is {'missing' if strange[0] in known else 'not known'}")
        # Not strict, since the other names of what is tied are not among them.
        self.load_state_dict(tensors, strict=False, assign=True)
        self._tie()
        # Computed, and so in no file.
        self.positions = SinusoidalPositions(self.shape.width, self.shape.dropout)

    def encode(self, source: Tensor, source_mask: Tensor | None = None, weights: Weights | None = None) -> Tensor:
        """States [B, S, D] of source ids [B, S]; the mask is bool [B, S], True on real tokens."""
        x = self.positions(self.source_embedding(source))
        return cast(Tensor, self.encoder(x, over_heads(source_mask), weights))

    def decode(
        self, target: Tensor, states: Tensor, source_mask: Tensor | None = None, weights: Weights | None = None
    ) -> Tensor:
        """States [B, T, D] of target ids [B, T], none of which sees those after it, and of the source's states."""
        length = target.shape[1]
        x, mask = self.positions(self.target_embedding(target)), causal_mask(length).to(target.device)
        return cast(Tensor, self.decoder(x, states, over_heads(source_mask), mask, weights))

    def project(self, states: Tensor) -> Tensor:
        """Log-probabilities [..., V] of states [..., D], in fp32."""
        return torch.log_softmax(self.projection(states).float(), -1)

    def forward(self, source: Tensor, source_mask: Tensor | None, target: Tensor) -> Tensor:
        """Logits [B, T, V] of the token after each target position, the true ones before it given (teacher forcing).

        Padding at the end of a target needs no mask: no real position looks at it.
        """
        logits: Tensor = self.projection(self.decode(target, self.encode(source, source_mask), source_mask))
        return logits

    def look(self, source: Tensor, source_mask: Tensor | None, target: Tensor) -> tuple[Tensor, Attentions]:
        """States [B, T, D] of one batch, as `decode` gives them, and what every layer and head looks at for them."""
        encoder, decoder = Weights(), Weights()
        states = self.decode(target, self.encode(source, source_mask, encoder), source_mask, decoder)
        return states, Attentions(tuple(encoder), tuple(decoder[0::2]), tuple(decoder[1::2]))


def build_translator(
    source_vocabulary: int, target_vocabulary: int, *, encoder_layers: int = 6, decoder_layers: int = 6,
    tied: bool = False, **sizes: Any,
) -> Translator:  # fmt: skip
    """A translator with random weights, by default of the paper's base size (table 3).

    Weight matrices start Xavier-uniform (Glorot and Bengio 2010, equation 16), tied embeddings normal.

    Args:
        source_vocabulary, target_vocabulary: how many tokens each side has.
        encoder_layers, decoder_layers: how deep each side is.
        tied: one matrix for both embeddings and the projection.
        sizes: fields of `Shape`.

    Raises:
        ValueError: `tied`, and the vocabularies differ in size; or there is no such activation.
    """
    shape = Shape(**sizes)
    return Translator(source_vocabulary, target_vocabulary, encoder_layers, decoder_layers, shape, tied)


def over_heads(mask: Tensor | None) -> Tensor | None:
    """[B, S] -> [B, 1, 1, S]."""
    return None if mask is None else mask[:, None, None, :]
