"""Train only those rows of the token embedding that the data reads; the others can only decay.

A vocabulary is most of a small encoder, and a text collection reads a part of it. A row that is never read has no
gradient, and AdamW (Loshchilov and Hutter 2019, algorithm 2) does nothing to it but the decay, which is the same factor
for all such rows: they need no gradient, no moments and no step of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from transferkit.data.batching import FeatureTable


class UsedRows(nn.Embedding):
    """An embedding whose `weight` holds the rows at `places` [vocabulary], and a last row that only decays."""

    places: Tensor

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """Ids of any shape to vectors [..., width]; an id that has no place is an IndexError."""
        return functional.embedding(self.places[input], self.weight, self.padding_idx)


@contextmanager
def used_rows(model: nn.Module, tables: Sequence[FeatureTable]) -> Iterator[None]:
    """Inside the context the token embedding of `model`, where it trains, holds the rows that `tables` read.

    Afterwards it is whole again: the rows as they were trained, and the others as AdamW would have left them. A model
    that names no token embedding, or ties it to another layer, is left as it is.
    """
    embedding = _token_embedding(model)
    if embedding is None:
        yield
        return
    whole, padding = embedding.weight, embedding.padding_idx
    used = _used(tables, embedding.num_embeddings)
    places = torch.full((embedding.num_embeddings,), -1)
    places[used] = torch.arange(len(used))
    embedding.__class__ = UsedRows
    embedding.register_buffer("places", places, persistent=False)
    # The last row is of ones and has no gradient, so what the optimizer makes of it is the factor of the decay.
    embedding.weight = nn.Parameter(torch.cat([whole.detach()[used], whole.new_ones(1, whole.shape[1])]))
    embedding.padding_idx = None if padding is None else int(places[padding])
    try:
        yield
    finally:
        trained = embedding.weight.detach()
        with torch.no_grad():
            whole.mul_(trained[-1])
            whole[used] = trained[:-1]
        del embedding.places
        embedding.__class__ = nn.Embedding
        embedding.weight, embedding.padding_idx = whole, padding


def _token_embedding(model: nn.Module) -> nn.Embedding | None:
    """The plain embedding of tokens that trains and is nobody else's."""
    find = getattr(getattr(model, "network", model), "get_input_embeddings", None)
    try:
        embedding = find() if find else None
    except NotImplementedError:
        # So transformers has it of CANINE, which looks characters up in several tables.
        return None
    if type(embedding) is not nn.Embedding or not embedding.weight.requires_grad:
        return None
    owners = [module for module in model.modules() if any(p is embedding.weight for p in module.parameters(False))]
    is_plain = embedding.max_norm is None and not embedding.scale_grad_by_freq and not embedding.sparse
    return embedding if is_plain and owners == [embedding] else None


def _used(tables: Sequence[FeatureTable], vocabulary: int) -> Tensor:
    """The ids that occur in `tables`, sorted; padding is among them."""
    is_used = np.zeros(vocabulary, dtype=bool)
    for table in tables:
        is_used[table.pad_token_id] = True
        for values in table.input_ids.chunks:
            is_used[values] = True
    return torch.from_numpy(np.flatnonzero(is_used))
