"""A translation looked at again: the probabilities and the attention of one pass through the model."""

from __future__ import annotations

import pytest
import torch

from transferkit.generation.retrace import retrace
from transferkit.models.translator import KINDS, build_translator
from transferkit.tokenization.parallel import Tokenizers
from transferkit.tokenization.trained import TrainedTokenizer


@pytest.mark.parametrize("ended", [True, False])
def test_it_says_how_sure_the_model_was_and_where_it_looked_in_one_pass(ended: bool) -> None:
    torch.manual_seed(0)
    tokenizer = TrainedTokenizer.train(["one red cat", "two green dogs"] * 2, "word")
    model = build_translator(
        len(tokenizer), len(tokenizer), encoder_layers=1, decoder_layers=2, width=12, heads=3, feed_forward=20
    )
    passes = []
    model.encoder.register_forward_hook(lambda *_: passes.append(1))
    source, target = [*tokenizer.encode(["one cat"])[0], tokenizer.end_id], tokenizer.encode(["green cat"])[0]
    found = retrace(model, Tokenizers(tokenizer, tokenizer), source, target, ended)
    assert passes == [1]
    assert found.source == ("one", "cat", "[EOS]")
    assert found.given == (("[SOS]", "green", "cat") if ended else ("[SOS]", "green"))
    assert found.written == (("green", "cat", "[EOS]") if ended else ("green", "cat"))
    given, written = ([tokenizer.backend.token_to_id(name) for name in names] for names in (found.given, found.written))
    batch = torch.tensor([source]), None, torch.tensor([given])
    with torch.no_grad():
        shares = model(*batch)[0].softmax(-1)
        seen = model.look(*batch)[1]
    assert found.probabilities == pytest.approx(
        [float(row[number]) for row, number in zip(shares, written, strict=True)]
    )
    for kind in KINDS:
        for ours, expected in zip(getattr(found.attentions, kind), getattr(seen, kind), strict=True):
            torch.testing.assert_close(ours, expected)
