"""What is exported to CTranslate2 translates as the model does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from transferkit.generation.ctranslate2 import compare_ctranslate2, export_ctranslate2
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
