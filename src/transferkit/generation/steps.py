"""A batch of translations in progress: one step of the decoder at a time, with the keys and values of those before."""

from __future__ import annotations

import torch
from torch import Tensor

from transferkit.models.lean_translator import LeanTranslator


class Steps:
    """Decodes B sources, each with the same number K of targets in progress: B * K rows, those of a source together."""

    def __init__(self, model: LeanTranslator, source: Tensor, source_mask: Tensor | None) -> None:
        """Encode source ids [B, S]; the mask is bool [B, S], True on real tokens."""
        self._model = model
        self._mask = source_mask
        self._caches = model.begin(source, source_mask)
        self.taken = 0

    def take(self, tokens: Tensor) -> Tensor:
        """Log-probabilities [B * K, V] of the tokens that may follow `tokens` int64 [B * K]."""
        log_probabilities = self._model.step(tokens, self.taken, self._caches, self._mask)
        self.taken += 1
        return log_probabilities

    def keep(self, targets: Tensor, sources: Tensor | None = None) -> None:
        """Go on with the rows `targets`, int64 [any number], which may repeat; `sources` where some of them ended."""
        self._caches = [cache.rows(targets, sources) for cache in self._caches]
        if sources is not None and self._mask is not None:
            self._mask = self._mask[sources]


@torch.inference_mode()
def begin(model: LeanTranslator, source: Tensor, source_mask: Tensor | None) -> Steps:
    """Check the batch and encode it.

    Raises:
        ValueError: the mask is not boolean or not of the shape of the sources, or a source has no token to look at.
    """
    _check_mask(source, source_mask)
    if source.shape[1] == 0 or (source_mask is not None and not bool(source_mask.any(1).all())):
        raise ValueError("A source without a token cannot be translated; leave it out or give it its end token.")
    return Steps(model, source, source_mask)


def _check_mask(source: Tensor, mask: Tensor | None) -> None:
    if mask is None:
        return
    if mask.dtype != torch.bool:
        raise ValueError(f"A source mask is boolean, True on real tokens; this one is {mask.dtype}.")
    if mask.shape != source.shape:
        raise ValueError(f"A mask of shape {tuple(mask.shape)} is not one of sources of shape {tuple(source.shape)}.")
