"""What the last layer of a network looks at: attention weights, which it computes and mostly does not keep."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from transferkit.models.plain_attention import NAME

# Of transformers' kinds, the one that keeps the weights.
EAGER = "eager"


def last_attention(network: Any, features: Mapping[str, Tensor]) -> tuple[int, Tensor] | None:
    """The number of the last layer, from 1, and its weights [rows, heads, queries, keys].

    None where the network has no attention, or does not show it.

    Args:
        network: of transformers or of ours, in eval mode.
        features: a batch without labels.
    """
    if not _can_be_asked(network):
        return None
    with _eager(network):
        outputs = network(**features, output_attentions=True)
    layers = getattr(outputs, "attentions", None)
    if not layers or layers[-1] is None:
        return None
    return len(layers), layers[-1]


def _can_be_asked(network: Any) -> bool:
    """Whether `forward` takes `output_attentions`, by name or among others, and a text that is cut short.

    Encoder-decoders do not: they read their answer at the <eos>.
    """
    if getattr(getattr(network, "config", None), "is_encoder_decoder", False):
        return False
    parameters = inspect.signature(network.forward).parameters
    return "output_attentions" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


@contextmanager
def _eager(network: Any) -> Iterator[None]:
    """Inside the context attention keeps its weights, where the kind in use is one that does not."""
    kind = getattr(getattr(network, "config", None), "_attn_implementation", None)
    if kind not in ("sdpa", NAME):
        yield
        return
    network.set_attn_implementation(EAGER)
    try:
        yield
    finally:
        network.set_attn_implementation(kind)
