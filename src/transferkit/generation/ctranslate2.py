"""A translator as a CTranslate2 model, the way to production speed on a CPU, and how often both say the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn
from torch.nn import functional

from transferkit.errors import AdaptationError, RunError
from transferkit.formatting import percent
from transferkit.generation.batches import in_length_order, longest_target
from transferkit.generation.decoding import Bounds, beam_search, decode
from transferkit.models.attention import MultiHeadAttention
from transferkit.models.layers import DecoderLayer, EncoderLayer, FeedForward, Residual, sinusoids
from transferkit.models.lean_translator import LeanTranslator, check_linears
from transferkit.models.translator import Translator
from transferkit.tokenization.trained import END, START, UNKNOWN, TrainedTokenizer

Quantization = Literal["int8"]

# Positions are a table there, and a longer source or target is refused; the library's own bound on sources is as much.
# A model of longer ones gets as many as it needs.
POSITIONS = 1024
# Of the sources of one batch, whose longest bounds the targets of both.
_MAX_TOKENS = 2048


@dataclass(frozen=True)
class Agreement:
    """How many of `sentences` came out the same, token by token, greedily and by a search of `beams` beams.

    `too_long` more were left out, since they do not fit the `positions` of the export.
    """

    sentences: int
    greedy: int
    beam: int
    beams: int
    too_long: int = 0
    positions: int = POSITIONS

    def __str__(self) -> str:
        left_out = f" Left out for more than {self.positions:,} tokens: {self.too_long:,}." if self.too_long else ""
        if not self.sentences:
            return f"CTranslate2 was compared on no sentence.{left_out}"
        shares = [percent(equal / self.sentences) for equal in (self.greedy, self.beam)]
        return (
            f"CTranslate2 gives the same tokens for {shares[0]} of {self.sentences:,} sentences by greedy decoding and "
            f"for {shares[1]} by a beam search of {self.beams}.{left_out}"
        )


def export_ctranslate2(
    model: Translator, source_tokens: Sequence[str], target_tokens: Sequence[str], folder: Path,
    quantization: Quantization | None = None, max_length: int = 256,
) -> None:  # fmt: skip
    """Write a folder that `ctranslate2.Translator` loads. It adds the end to a source by itself.

    Args:
        model: any with heads, norms and activations that are the same in all layers, as `build_translator` makes them.
        source_tokens, target_tokens: the vocabularies in the order of their ids.
        folder: it is made where it does not exist.
        quantization: `int8` keeps weights in a byte each, with a scale by row.
        max_length: the most tokens of a source or a target, its end included, that it has to take; it takes 1,024.

    Raises:
        RunError: CTranslate2 is not installed.
        AdaptationError: it has no such model.
    """
    specs = library().specs
    _check(model, source_tokens, target_tokens)
    first = cast(EncoderLayer, model.encoder.layers[0])
    residual = cast(Residual, first.residuals[0])
    spec = specs.TransformerSpec.from_config(
        (len(model.encoder.layers), len(model.decoder.layers)),
        first.attention.heads,
        pre_norm=residual.pre_norm,
        activation=_activation(specs.Activation, first.feed_forward),
    )
    positions = max(POSITIONS, max_length)
    _fill_encoder(spec.encoder, model, positions)
    _fill_decoder(spec.decoder, model, positions)
    spec.register_source_vocabulary(list(source_tokens))
    spec.register_target_vocabulary(list(target_tokens))
    config = spec.config
    config.unk_token, config.bos_token, config.eos_token = UNKNOWN, START, END
    config.decoder_start_token, config.add_source_eos = START, True
    config.layer_norm_epsilon = residual.norm.eps
    spec.validate()
    spec.optimize(quantization=quantization)
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))


def compare_ctranslate2(
    model: Translator, source: TrainedTokenizer, target: TrainedTokenizer, texts: Sequence[str], folder: Path,
    max_length: int = 256, beams: int = 4,
) -> Agreement:  # fmt: skip
    """Translate `texts` with the model and with what was exported of it to `folder`, greedily and by beam search.

    Args:
        model: the one that was exported.
        source, target: its tokenizers.
        texts: empty ones are left out, and those that do not fit the positions are left out and counted.
        folder: what `export_ctranslate2` wrote.
        max_length: the most tokens of a translation, its end included; the one that it was exported with.
        beams: of the beam search.

    Raises:
        RunError: CTranslate2 is not installed.
    """
    translator: Any = library().Translator(str(folder))
    everything = [[*row, source.end_id] for row in source.encode(texts) if row]
    positions = max(POSITIONS, max_length)
    ids = [row for row in everything if len(row) <= positions]
    lean = LeanTranslator(model, "fp32")
    equal = {"greedy": 0, "beam": 0}
    for rows, batch, mask in in_length_order(ids, source.padding_id, _MAX_TOKENS // beams):
        most = longest_target(batch.shape[1], max_length)
        bounds = Bounds.of(target, most)
        tokens = [source.names(ids[row][:-1]) for row in rows]
        greedy = [one.tokens for one in decode(lean, batch, mask, bounds)]
        best = [found[0].tokens for found in beam_search(lean, batch, mask, bounds, beams)]
        for way, width, expected in (("greedy", 1, greedy), ("beam", beams, best)):
            found = translated(translator, tokens, most, width)
            numbers = [tuple(target.ids(row)) for row in found]
            equal[way] += sum(a == b for a, b in zip(expected, numbers, strict=True))
    return Agreement(len(ids), equal["greedy"], equal["beam"], beams, len(everything) - len(ids), positions)


def translated(translator: Any, sources: Sequence[Sequence[str]], max_length: int, beams: int = 1) -> list[list[str]]:
    """Tokens of the best target of each source, searched as `decode` and `beam_search` do.

    Args:
        translator: a `ctranslate2.Translator` of what was exported.
        sources: tokens, without an end.
        max_length: the most tokens of a target, its end among them.
        beams: 1 for greedy decoding.
    """
    found = translator.translate_batch(
        list(sources), beam_size=beams, max_decoding_length=max_length, min_decoding_length=0, length_penalty=1,
        max_batch_size=_MAX_TOKENS, batch_type="tokens", max_input_length=0,
    )  # fmt: skip
    return [result.hypotheses[0] for result in found]


def library() -> Any:
    """CTranslate2.

    Raises:
        RunError: it is not installed.
    """
    try:
        import ctranslate2
    except ImportError:
        raise RunError(
            "CTranslate2 is not installed; install TransferKit with it: pip install 'transferkit[ctranslate2]'."
        ) from None
    return ctranslate2


def _check(model: Translator, source_tokens: Sequence[str], target_tokens: Sequence[str]) -> None:
    sizes = (model.source_embedding.num_embeddings, model.target_embedding.num_embeddings)
    if sizes != (len(source_tokens), len(target_tokens)):
        raise AdaptationError(
            f"The vocabularies have {len(source_tokens):,} and {len(target_tokens):,} tokens, and the model "
            f"{sizes[0]:,} and {sizes[1]:,}; give those it was trained with."
        )
    if not len(model.encoder.layers) or not len(model.decoder.layers):
        raise AdaptationError("CTranslate2 has no translator without a layer on each side; export one that has them.")
    check_linears(model, "CTranslate2")


def _activation(kinds: Any, feed_forward: FeedForward) -> Any:
    known = {functional.relu: kinds.RELU, functional.gelu: kinds.GELU}
    if feed_forward.activation not in known:
        raise AdaptationError("CTranslate2 has ReLU and GELU of the activations of a Translator, and not this one's.")
    return known[feed_forward.activation]


def _fill_encoder(spec: Any, model: Translator, positions: int) -> None:
    _fill_inputs(spec, spec.embeddings[0], model.source_embedding, positions)
    _fill_final_norm(spec, model.encoder.norm)
    for part, layer in zip(spec.layer, model.encoder.layers, strict=True):
        assert isinstance(layer, EncoderLayer)
        own, feed_forward = layer.residuals
        _fill_self_attention(part.self_attention, layer.attention, own)
        _fill_feed_forward(part.ffn, layer.feed_forward, feed_forward)


def _fill_decoder(spec: Any, model: Translator, positions: int) -> None:
    _fill_inputs(spec, spec.embeddings, model.target_embedding, positions)
    _fill_final_norm(spec, model.decoder.norm)
    for part, layer in zip(spec.layer, model.decoder.layers, strict=True):
        assert isinstance(layer, DecoderLayer)
        own, cross, feed_forward = layer.residuals
        _fill_self_attention(part.self_attention, layer.self_attention, own)
        _fill_cross_attention(part.attention, layer.cross_attention, cross)
        _fill_feed_forward(part.ffn, layer.feed_forward, feed_forward)
    _fill_linear(spec.projection, model.projection)


def _fill_inputs(spec: Any, embeddings: Any, embedding: nn.Embedding, positions: int) -> None:
    """Embeddings, which both libraries multiply by sqrt(D), and positions."""
    # A copy, as the library quantizes in place.
    embeddings.weight = embedding.weight.detach().clone()
    spec.scale_embeddings = True
    spec.position_encodings.encodings = sinusoids(positions, embedding.embedding_dim)


def _fill_final_norm(spec: Any, norm: nn.Module) -> None:
    if isinstance(norm, nn.LayerNorm):
        _fill_norm(spec.layer_norm, norm)


def _fill_self_attention(spec: Any, attention: MultiHeadAttention, residual: nn.Module) -> None:
    _fill_linear(spec.linear[0], attention.query, attention.key, attention.value)
    _fill_linear(spec.linear[1], attention.output)
    _fill_norm_of(spec, residual)


def _fill_cross_attention(spec: Any, attention: MultiHeadAttention, residual: nn.Module) -> None:
    _fill_linear(spec.linear[0], attention.query)
    _fill_linear(spec.linear[1], attention.key, attention.value)
    _fill_linear(spec.linear[2], attention.output)
    _fill_norm_of(spec, residual)


def _fill_feed_forward(spec: Any, feed_forward: FeedForward, residual: nn.Module) -> None:
    _fill_linear(spec.linear_0, feed_forward.linear1)
    _fill_linear(spec.linear_1, feed_forward.linear2)
    _fill_norm_of(spec, residual)


def _fill_norm_of(spec: Any, residual: nn.Module) -> None:
    assert isinstance(residual, Residual)
    _fill_norm(spec.layer_norm, residual.norm)


def _fill_norm(spec: Any, norm: nn.LayerNorm) -> None:
    spec.gamma, spec.beta = norm.weight.detach(), norm.bias.detach()


def _fill_linear(spec: Any, *layers: nn.Linear) -> None:
    """One product in place of several with the same input."""
    spec.weight = torch.cat([layer.weight.detach() for layer in layers])
    biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
    if biases:
        spec.bias = torch.cat(biases)
