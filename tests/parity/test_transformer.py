"""Our encoder and translator with the weights of transformers' models: the same numbers."""

from __future__ import annotations

import pytest
import torch
from benchmarks.twin import same_modules
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    MarianConfig,
    MarianMTModel,
    PegasusConfig,
    PegasusForConditionalGeneration,
)

from transferkit.generation.decoding import Bounds, beam_search, decode
from transferkit.models.layers import Encoder, Shape
from transferkit.models.lean_translator import LeanTranslator
from transferkit.models.translator import Translator, build_translator

WIDTH, HEADS, WIDE = 12, 3, 20


@pytest.fixture
def ids() -> tuple[Tensor, Tensor]:
    """Ids and which of them are real."""
    ids = torch.tensor([[5, 6, 7, 8, 9], [4, 3, 2, 0, 0]])
    return ids, ids != 0


def copied(pairs: dict[nn.Module, nn.Module]) -> None:
    for ours, theirs in pairs.items():
        ours.load_state_dict(theirs.state_dict())


@pytest.mark.parametrize("padded", [False, True])
def test_the_encoder_equals_bert(ids: tuple[Tensor, Tensor], padded: bool) -> None:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=20, hidden_size=WIDTH, num_attention_heads=HEADS, intermediate_size=WIDE, num_hidden_layers=2,
        layer_norm_eps=1e-5, initializer_range=0.3,
    )  # fmt: skip
    bert = BertModel(config, add_pooling_layer=False).eval()
    for parameter in bert.parameters():
        if parameter.ndim == 1:
            # At their start norms and biases do not show where they stand.
            nn.init.normal_(parameter, mean=0.5, std=0.4)
    encoder = Encoder(2, Shape(WIDTH, HEADS, WIDE, activation="gelu", pre_norm=False)).eval()
    tokens, real = ids
    mask = real if padded else torch.ones_like(real)
    for layer, theirs in zip(encoder.layers, bert.encoder.layer, strict=True):
        attention, feed_forward = layer.attention, layer.feed_forward
        copied(
            {
                attention.query: theirs.attention.self.query,
                attention.key: theirs.attention.self.key,
                attention.value: theirs.attention.self.value,
                attention.output: theirs.attention.output.dense,
                layer.residuals[0].norm: theirs.attention.output.LayerNorm,
                feed_forward.linear1: theirs.intermediate.dense,
                feed_forward.linear2: theirs.output.dense,
                layer.residuals[1].norm: theirs.output.LayerNorm,
            }
        )
    found = encoder(bert.embeddings(tokens), mask[:, None, None, :])
    expected = bert(tokens, attention_mask=mask.long()).last_hidden_state
    torch.testing.assert_close(found[mask], expected[mask], atol=1e-5, rtol=1e-5)


TWINS = {"post-norm": (MarianConfig, MarianMTModel), "pre-norm": (PegasusConfig, PegasusForConditionalGeneration)}
Twin = MarianMTModel | PegasusForConditionalGeneration


def twin(norms: str = "post-norm") -> Twin:
    torch.manual_seed(0)
    make_config, make = TWINS[norms]
    config = make_config(
        vocab_size=20, d_model=WIDTH, encoder_layers=2, decoder_layers=2, encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS, encoder_ffn_dim=WIDE, decoder_ffn_dim=WIDE, activation_function="relu",
        scale_embedding=True, pad_token_id=0, eos_token_id=1, decoder_start_token_id=2, init_std=0.3,
        max_position_embeddings=32, forced_eos_token_id=None,
    )  # fmt: skip
    return make(config).eval()


def with_weights_of(model: Twin) -> Translator:
    ours = build_translator(
        20, 20, encoder_layers=2, decoder_layers=2, tied=True, width=WIDTH, heads=HEADS, feed_forward=WIDE,
        pre_norm=isinstance(model, PegasusForConditionalGeneration),
    ).eval()  # fmt: skip
    # Theirs has all sines before all cosines.
    ours.positions.table = model.model.encoder.embed_positions.weight.detach()
    copied(dict(same_modules(ours, model)))
    return ours


@pytest.mark.parametrize("norms", list(TWINS))
@pytest.mark.parametrize("padded", [False, True])
def test_the_translator_equals_marian_and_pegasus(ids: tuple[Tensor, Tensor], padded: bool, norms: str) -> None:
    theirs = twin(norms)
    ours = with_weights_of(theirs)
    source, real = ids
    mask = real if padded else torch.ones_like(real)
    target = torch.tensor([[2, 5, 6, 7], [2, 9, 8, 3]])
    expected = theirs(input_ids=source, attention_mask=mask.long(), decoder_input_ids=target).logits
    torch.testing.assert_close(ours(source, mask, target), expected, atol=1e-5, rtol=1e-5)


SOURCES = torch.tensor([[5, 6, 7, 8, 9], [4, 3, 2, 0, 0], [11, 12, 13, 14, 0], [15, 16, 3, 0, 0]])


def ended_often(model: Twin) -> Twin:
    """With an end that is likely enough for hypotheses to end at different lengths."""
    with torch.no_grad():
        model.final_logits_bias[0, 1] = 1.5
        model.final_logits_bias[0, 0] = -1e9
    return model


def theirs_of(model: Twin, beams: int, length: int, **settings: object) -> list[tuple[int, ...]]:
    ids = model.generate(
        input_ids=SOURCES, attention_mask=(SOURCES != 0).long(), num_beams=beams, max_new_tokens=length,
        do_sample=False, num_return_sequences=beams, **settings,
    )  # fmt: skip
    return [tuple(token for token in row[1:] if token not in (0, 1)) for row in ids.tolist()]


def decoder_of(model: Twin) -> LeanTranslator:
    """Ours with the same bias on the logits, which Marian keeps apart from its projection."""
    ours = with_weights_of(model)
    ours.projection.bias = nn.Parameter(model.final_logits_bias[0])
    return LeanTranslator(ours, "fp32")


@pytest.mark.parametrize("length", [3, 12])
def test_greedy_decoding_equals_generate(length: int) -> None:
    theirs = ended_often(twin())
    found = decode(decoder_of(theirs), SOURCES, SOURCES != 0, Bounds(2, 1, length))
    assert [hypothesis.tokens for hypothesis in found] == theirs_of(theirs, 1, length)
    assert len({len(hypothesis.tokens) for hypothesis in found}) > 1, "they end at different lengths"


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0, -0.5])
@pytest.mark.parametrize(("beams", "length"), [(2, 12), (4, 12), (4, 3), (9, 6)])
def test_beam_search_equals_generate(beams: int, length: int, penalty: float) -> None:
    theirs = ended_often(twin())
    found = beam_search(decoder_of(theirs), SOURCES, SOURCES != 0, Bounds(2, 1, length), beams, penalty)
    flat = [hypothesis.tokens for of_source in found for hypothesis in of_source]
    assert flat == theirs_of(theirs, beams, length, length_penalty=penalty)
