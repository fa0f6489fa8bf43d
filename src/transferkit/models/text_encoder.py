"""A small encoder of texts, built from the parts: word vectors, positions, a few layers, a mean, a linear head."""

from __future__ import annotations

from torch import Tensor, nn

from transferkit.models.backbones import pool_mean
from transferkit.models.layers import Encoder, Shape, SinusoidalPositions, TokenEmbedding


class TextEncoder(nn.Module):
    """Ids to logits [rows, classes]: what a classifier from scratch, or on pretrained word vectors, looks like.

    Attributes:
        head_parameters: names of the parameters that are new to the task and so always train.
    """

    head_parameters = frozenset({"head.weight", "head.bias"})

    def __init__(self, vectors: Tensor, layers: int, shape: Shape, classes: int, freeze_vectors: bool = False) -> None:
        """`vectors` are those of the words, float32 [vocabulary, width], the first of them padding.

        Raises:
            ValueError: the vectors have another width than `shape`.
        """
        super().__init__()
        words, width = vectors.shape
        if width != shape.width:
            raise ValueError(f"The word vectors have {width} numbers each, and the layers {shape.width}.")
        self.embedding = TokenEmbedding(words, width, padding_idx=0, _weight=vectors.clone(), _freeze=freeze_vectors)
        self.positions = SinusoidalPositions(shape.width, shape.dropout)
        self.encoder = Encoder(layers, shape)
        self.head = nn.Linear(shape.width, classes)

    def get_input_embeddings(self) -> nn.Embedding:
        """The word vectors, by the name that transformers' models have for it."""
        return self.embedding

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """ids int64 and mask bool, True on real tokens, each [rows, length]; the mean is over real tokens alone."""
        x = self.encoder(self.positions(self.embedding(input_ids)), attention_mask[:, None, None, :])
        logits: Tensor = self.head(pool_mean(x, attention_mask))
        return logits
