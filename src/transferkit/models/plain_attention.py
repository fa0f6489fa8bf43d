"""Attention as two matrix products, for transformers' models.

torch's fused kernel never stores the attention weights and computes them again in its backward pass. On a CPU, with the
lengths that texts have, storing them is several times faster.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from transferkit.errors import BackboneError
from transferkit.models.dropout import dropout

Attention = Literal["fused", "plain"]
NAME = "transferkit_plain"
# What would change the scores and is computed neither here nor by the fused kernel: a tanh over them (Gemma 2), and a
# score for attending to nothing (gpt-oss).
_NOT_COMPUTED = ("softcap", "s_aux")


def attend(
    layer: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, **settings: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """softmax(Q K^T * scaling + mask + bias) V (Vaswani et al. 2017, equation 1), as transformers calls it.

    Args:
        layer: the attention layer that asks.
        query, key, value: [rows, heads, length, width of a head]; keys and values may have fewer heads, each of which
            serves a group of queries (Ainslie et al. 2023).
        attention_mask: what `additive_mask` gives, a mask of a model's own, with True where a position is attended if
            it is of bools, or None.
        scaling: 1 / sqrt(width of a head) unless said.
        settings: `dropout` is the share of attention weights to drop, `position_bias` is added to the scores, and
            `is_causal` says of a layer without a mask that it looks back only; others are for other kernels.

    Returns:
        [rows, length, heads, width of a head], and no attention weights.

    Raises:
        BackboneError: the layer asks for scores that are not computed here.
    """
    if asked := [name for name in _NOT_COMPUTED if settings.get(name) is not None]:
        raise BackboneError(
            f"This backbone's attention has {asked[0]}, which plain and fused attention lack; name another backbone."
        )
    if key.shape[1] != query.shape[1]:
        key, value = (x.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for x in (key, value))
    scores = torch.matmul(query * (query.shape[-1] ** -0.5 if scaling is None else scaling), key.transpose(-1, -2))
    for addition in _additions(layer, scores, attention_mask, settings):
        scores = scores + addition.to(scores.dtype)
    # In the precision of the scores: autocast would compute it in fp32, at twice the memory.
    with torch.autocast(scores.device.type, enabled=False):
        weights = torch.softmax(scores, -1)
    weights = dropout(weights, settings.get("dropout", 0.0))
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), None


def _additions(
    layer: nn.Module, scores: Tensor, attention_mask: Tensor | None, settings: Mapping[str, Any]
) -> Iterator[Tensor]:
    """What is added to the scores [rows, heads, length, length]: a mask, and the bias of positions that T5 learns."""
    is_causal = settings.get("is_causal")
    if attention_mask is not None:
        yield _additive(attention_mask) if attention_mask.dtype == torch.bool else attention_mask
    elif scores.shape[-2] > 1 and (getattr(layer, "is_causal", True) if is_causal is None else is_causal):
        yield _additive(torch.ones(scores.shape[-2:], dtype=torch.bool).tril())
    if settings.get("position_bias") is not None:
        yield settings["position_bias"]


def additive_mask(**settings: Any) -> Tensor | None:
    """Zero where a position is attended and a very negative number elsewhere, [rows, 1, length or 1, length].

    None where every position is attended.
    """
    from transformers.masking_utils import sdpa_mask

    # A causal mask may be left out for kernels that know of causality; this one does not.
    mask = sdpa_mask(**settings | {"allow_is_causal_skip": False})
    return None if mask is None else _additive(mask)


def _additive(mask: Tensor) -> Tensor:
    """Of bools, the numbers to add. They are finite, so that a row of padding attends to something."""
    return torch.zeros(mask.shape).masked_fill_(~mask, -1e30)


def is_choosable(network: Any) -> bool:
    """Whether the kind of attention can be chosen.

    Some families of transformers have one of their own, as DeBERTa, and so have the models that are made of our parts.
    """
    return getattr(getattr(network, "config", None), "_attn_implementation", None) == "sdpa"


@contextmanager
def attention(network: Any, kind: Attention | None) -> Iterator[None]:
    """Inside the context `network` computes attention as `kind` says, where that can be chosen."""
    if kind != "plain" or not is_choosable(network):
        yield
        return
    _register()
    network.set_attn_implementation(NAME)
    try:
        yield
    finally:
        network.set_attn_implementation("sdpa")


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, additive_mask)
