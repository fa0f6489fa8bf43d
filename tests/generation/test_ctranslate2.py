"""What is exported to CTranslate2 translates as the model does."""

from __future__ import annotations

import sys
from pathlib import Path

import ctranslate2
import pytest
import torch
from torch import nn

from transferkit.errors import AdaptationError, RunError
from transferkit.generation.ctranslate2 import Agreement, compare_ctranslate2, export_ctranslate2, translated
from transferkit.models.translator import Translator, build_translator
from transferkit.tokenization.trained import TrainedTokenizer

ENGLISH = ["the red house", "a house by the sea", "the sea is red", "is the house red", "by the red sea a house is"] * 2
ITALIAN = ["la casa rossa", "una casa sul mare", "il mare è rosso", "è rossa la casa", "sul mar rosso è una casa"] * 2
SMALL = {"encoder_layers": 2, "decoder_layers": 2, "width": 16, "heads": 2, "feed_forward": 24}


@pytest.fixture(scope="module")
def tokenizers() -> tuple[TrainedTokenizer, TrainedTokenizer]:
    return TrainedTokenizer.train(ENGLISH, "word"), TrainedTokenizer.train(ITALIAN, "word")


def random_model(source: int, target: int, **settings: object) -> Translator:
    torch.manual_seed(1)
    model = build_translator(source, target, **(SMALL | settings))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model.eval()


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("pre_norm", [True, False], ids=["pre-norm", "post-norm"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_both_give_the_same_tokens(
    tokenizers: tuple[TrainedTokenizer, TrainedTokenizer], tmp_path: Path, tied: bool, pre_norm: bool, activation: str
) -> None:
    source, target = (tokenizers[0], tokenizers[0]) if tied else tokenizers
    model = random_model(len(source), len(target), tied=tied, pre_norm=pre_norm, activation=activation)
    export_ctranslate2(model, source.vocabulary(), target.vocabulary(), tmp_path)
    found = compare_ctranslate2(model, source, target, ENGLISH[:5], tmp_path, max_length=12)
    assert (found.sentences, found.greedy, found.beam) == (5, 5, 5)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_int8_is_smaller_agrees_mostly_and_leaves_the_model_alone(
    tokenizers: tuple[TrainedTokenizer, TrainedTokenizer], tmp_path: Path, tied: bool
) -> None:
    source, _ = tokenizers
    model = random_model(len(source), len(source), tied=tied, width=32)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    folders = {None: tmp_path / "exact", "int8": tmp_path / "int8"}
    for quantization, folder in folders.items():
        export_ctranslate2(model, source.vocabulary(), source.vocabulary(), folder, quantization)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    sizes = [(folder / "model.bin").stat().st_size for folder in folders.values()]
    positions = 1024 * 32 * 4
    assert sizes[1] - positions < 0.4 * (sizes[0] - positions)
    found = compare_ctranslate2(model, source, source, ENGLISH[:5], folders["int8"], max_length=12)
    assert found.greedy >= 3


def test_what_both_say_differently_is_counted(
    tokenizers: tuple[TrainedTokenizer, TrainedTokenizer], tmp_path: Path
) -> None:
    source, _ = tokenizers
    model = random_model(len(source), len(source), tied=True)
    export_ctranslate2(model, source.vocabulary(), source.vocabulary(), tmp_path)
    nn.init.normal_(model.source_embedding.weight)
    found = compare_ctranslate2(model, source, source, [*ENGLISH[:5], ""], tmp_path, max_length=12, beams=2)
    assert found.sentences == 5
    assert found.greedy < 5
    assert found.beam < 5


def test_a_search_of_one_beam_counts_each_sentence_once(
    tokenizers: tuple[TrainedTokenizer, TrainedTokenizer], tmp_path: Path
) -> None:
    source, target = tokenizers
    model = random_model(len(source), len(target))
    export_ctranslate2(model, source.vocabulary(), target.vocabulary(), tmp_path)
    found = compare_ctranslate2(model, source, target, ENGLISH[:5], tmp_path, max_length=12, beams=1)
    assert (found.sentences, found.greedy, found.beam) == (5, 5, 5)


def test_sentences_that_do_not_fit_the_positions_are_left_out_and_counted(
    tokenizers: tuple[TrainedTokenizer, TrainedTokenizer], tmp_path: Path
) -> None:
    source, target = tokenizers
    model = random_model(len(source), len(target), encoder_layers=1, decoder_layers=1)
    export_ctranslate2(model, source.vocabulary(), target.vocabulary(), tmp_path)
    texts = ["red " * 1023, "red " * 1024, ENGLISH[0]]
    found = compare_ctranslate2(model, source, target, texts, tmp_path, max_length=12, beams=2)
    assert (found.sentences, found.too_long, found.greedy, found.beam) == (2, 1, 2, 2)
    assert str(found).endswith(" Left out for more than 1,024 tokens: 1.")
    alone = compare_ctranslate2(model, source, target, texts[1:2], tmp_path, max_length=12)
    assert str(alone) == "CTranslate2 was compared on no sentence. Left out for more than 1,024 tokens: 1."


def test_a_model_of_longer_sentences_gets_the_positions_it_needs(
    tokenizers: tuple[TrainedTokenizer, TrainedTokenizer], tmp_path: Path
) -> None:
    source, target = tokenizers
    model = random_model(len(source), len(target), encoder_layers=1, decoder_layers=1)
    # No target ends before its bound.
    nn.init.constant_(model.projection.bias[target.end_id], -1e4)
    most = 2200
    export_ctranslate2(model, source.vocabulary(), target.vocabulary(), tmp_path, max_length=most)
    library = ctranslate2.Translator(str(tmp_path))
    (long,) = translated(library, [["red"] * (most - 1)], most)
    assert len(long) == most
    found = compare_ctranslate2(model, source, target, ["red " * (most - 1)], tmp_path, most, beams=2)
    assert (found.sentences, found.too_long) == (1, 0)


def test_agreement_is_said_in_a_sentence() -> None:
    assert str(Agreement(sentences=200, greedy=199, beam=197, beams=4)) == (
        "CTranslate2 gives the same tokens for 99.5\u00a0% of 200 sentences by greedy decoding and for 98.5\u00a0% "
        "by a beam search of 4."
    )


def test_models_that_ctranslate2_has_not_are_refused(
    tokenizers: tuple[TrainedTokenizer, TrainedTokenizer], tmp_path: Path
) -> None:
    source, target = tokenizers
    model = random_model(len(source), len(target))
    with pytest.raises(AdaptationError, match="give those it was trained with"):
        export_ctranslate2(model, source.vocabulary()[:-1], target.vocabulary(), tmp_path)
    model.encoder.layers[1].feed_forward.linear1 = nn.Sequential(model.encoder.layers[1].feed_forward.linear1)
    with pytest.raises(AdaptationError, match=r"no Sequential, which stands at encoder\.layers\.1\.feed_forward"):
        export_ctranslate2(model, source.vocabulary(), target.vocabulary(), tmp_path)
    model = random_model(len(source), len(target))
    model.encoder.layers[0].feed_forward.activation = torch.tanh
    with pytest.raises(AdaptationError, match="has ReLU and GELU"):
        export_ctranslate2(model, source.vocabulary(), target.vocabulary(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_the_library_the_error_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tokenizers: tuple[TrainedTokenizer, TrainedTokenizer], tmp_path: Path
) -> None:
    source, target = tokenizers
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    with pytest.raises(RunError, match=r"pip install 'transferkit\[ctranslate2\]'"):
        export_ctranslate2(random_model(len(source), len(target)), source.vocabulary(), target.vocabulary(), tmp_path)
