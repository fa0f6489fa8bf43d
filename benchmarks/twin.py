"""Our translator as a model of transformers, weight by weight: Marian, or Pegasus where the norms stand in front.

The two are one architecture but for the place of the norms.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import MarianConfig, MarianMTModel, PegasusConfig, PegasusForConditionalGeneration

from transferkit.config import TranslatorConfig
from transferkit.errors import ConfigError
from transferkit.models.layers import sinusoids
from transferkit.models.translator import Translator
from transferkit.tokenization.trained import TrainedTokenizer


def same_modules(ours: Translator, theirs: Any) -> list[tuple[nn.Module, nn.Module]]:
    """(ours, theirs) for every module with weights, each with `weight` and `bias` of the same meaning.

    Both have one matrix for embeddings and projection. The positions are not among them: theirs have all sines before
    all cosines.
    """
    found: list[tuple[nn.Module, nn.Module]] = [(ours.source_embedding, theirs.model.shared)]
    for layer, other in zip(ours.encoder.layers, theirs.model.encoder.layers, strict=True):
        found += _attention(layer.attention, other.self_attn) + _feed_forward(layer, other)
        found += [(layer.residuals[0].norm, other.self_attn_layer_norm)]
    for layer, other in zip(ours.decoder.layers, theirs.model.decoder.layers, strict=True):
        found += _attention(layer.self_attention, other.self_attn)
        found += _attention(layer.cross_attention, other.encoder_attn)
        found += [(layer.residuals[0].norm, other.self_attn_layer_norm)]
        found += [(layer.residuals[1].norm, other.encoder_attn_layer_norm)]
        found += _feed_forward(layer, other)
    if hasattr(theirs.model.encoder, "layer_norm"):
        found += [(ours.encoder.norm, theirs.model.encoder.layer_norm)]
        found += [(ours.decoder.norm, theirs.model.decoder.layer_norm)]
    return found


def untrained_twin(tokenizer: TrainedTokenizer, sizes: TranslatorConfig, positions: int) -> Any:
    """One with random weights that takes so many positions.

    Raises:
        ConfigError: transformers has no such model.
    """
    if not sizes.tied:
        raise ConfigError("The peer has one matrix for both embeddings and the projection; set model.tied=true.")
    make_config, make = (
        (PegasusConfig, PegasusForConditionalGeneration) if sizes.pre_norm else (MarianConfig, MarianMTModel)
    )
    config = make_config(
        vocab_size=len(tokenizer),
        d_model=sizes.width,
        encoder_layers=sizes.encoder_layers,
        decoder_layers=sizes.decoder_layers,
        encoder_attention_heads=sizes.heads,
        decoder_attention_heads=sizes.heads,
        encoder_ffn_dim=sizes.feed_forward,
        decoder_ffn_dim=sizes.feed_forward,
        activation_function=sizes.activation,
        dropout=sizes.dropout,
        attention_dropout=sizes.dropout,
        activation_dropout=sizes.dropout,
        scale_embedding=True,
        max_position_embeddings=positions,
        pad_token_id=tokenizer.padding_id,
        eos_token_id=tokenizer.end_id,
        decoder_start_token_id=tokenizer.start_id,
        forced_eos_token_id=None,
    )
    return make(config)


@torch.no_grad()
def twin_of(model: Translator, tokenizer: TrainedTokenizer, sizes: TranslatorConfig, positions: int) -> Any:
    """One with the weights and the positions of `model`, which takes so many of these."""
    theirs = untrained_twin(tokenizer, sizes, positions)
    for ours, other in same_modules(model, theirs):
        other.load_state_dict(ours.state_dict())
    for side in (theirs.model.encoder, theirs.model.decoder):
        side.embed_positions.weight.copy_(sinusoids(positions, sizes.width))
    return theirs.eval()


def _attention(ours: nn.Module, theirs: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    return [
        (ours.query, theirs.q_proj),
        (ours.key, theirs.k_proj),
        (ours.value, theirs.v_proj),
        (ours.output, theirs.out_proj),
    ]


def _feed_forward(ours: nn.Module, theirs: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    return [
        (ours.feed_forward.linear1, theirs.fc1),
        (ours.feed_forward.linear2, theirs.fc2),
        (ours.residuals[-1].norm, theirs.final_layer_norm),
    ]
