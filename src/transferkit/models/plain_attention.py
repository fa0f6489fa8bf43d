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
from torch.nn import functional

from transferkit.errors import BackboneError
from transferkit.models.dropout import dropout

Attention = Literal["fused", "plain"]
NAME = "transferkit_plain"
# What would change the scores and is computed neither here nor by the fused kernel: a tanh over them (Gemma 2), and a
# score for attending to nothing (gpt-oss).
_NOT_COMPUTED = ("softcap", "s_aux")
# Added to the score of what is not attended. It is finite, so that a row of padding attends to something.
_HIDDEN = -1e30
# Numbers in bf16 that one vector of AVX-512 holds.
_VECTOR = 32


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
    queries, keys = query.shape[-2], key.shape[-2]
    additions = list(_additions(layer, queries, keys, attention_mask, settings))
    if spare := _spare_keys(key):
        key, value = (functional.pad(x, (0, 0, 0, spare)) for x in (key, value))
        wide = (x.expand(*x.shape[:-1], keys) for x in additions or [torch.zeros(keys)])
        additions = [functional.pad(x, (0, spare), value=_HIDDEN) for x in wide]
    scores = torch.matmul(query * (query.shape[-1] ** -0.5 if scaling is None else scaling), key.transpose(-1, -2))
    for addition in additions:
        scores = scores + addition.to(scores.dtype)
    # In the precision of the scores: autocast would compute it in fp32, at twice the memory.
    with torch.autocast(scores.device.type, enabled=False):
        weights = torch.softmax(scores, -1)
    weights = dropout(weights, settings.get("dropout", 0.0))
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), None


def _additions(
    layer: nn.Module, queries: int, keys: int, attention_mask: Tensor | None, settings: Mapping[str, Any]
) -> Iterator[Tensor]:
    """What is added to the scores [rows, heads, queries, keys]: a mask, and the bias of positions that T5 learns."""
    is_causal = settings.get("is_causal")
    if attention_mask is not None:
        yield _additive(attention_mask) if attention_mask.dtype == torch.bool else attention_mask
    elif queries > 1 and (getattr(layer, "is_causal", True) if is_causal is None else is_causal):
        yield _additive(torch.ones(queries, keys, dtype=torch.bool).tril())
    if settings.get("position_bias") is not None:
        yield settings["position_bias"]


def _spare_keys(key: Tensor) -> int:
    """How many keys to add, such that they fill whole vectors.

    What is left of a row beyond them is computed number by number in bf16: a softmax over 28 keys takes four times as
    long as one over 32, and its backward pass eight times. More than two thirds of the keys again would cost more than
    that, as from 36 to 64.
    """
    keys = key.shape[-2]
    spare = -keys % _VECTOR if key.dtype == torch.bfloat16 and key.device.type == "cpu" else 0
    return spare if 3 * spare <= 2 * keys else 0


def additive_mask(**settings: Any) -> Tensor | None:
    """Zero where a position is attended and a very negative number elsewhere, [rows, 1, length or 1, length].

    None where every position is attended.
    """
    from transformers.masking_utils import sdpa_mask

    # A causal mask may be left out for kernels that know of causality; this one does not.
    mask = sdpa_mask(**settings | {"allow_is_causal_skip": False})
    return None if mask is None else _additive(mask)


def _additive(mask: Tensor) -> Tensor:
    """Of bools, the numbers to add."""
    return torch.zeros(mask.shape).masked_fill_(~mask, _HIDDEN)


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
