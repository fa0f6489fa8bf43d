"""Decoding: batches, bounds, draws and scores."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from transferkit.generation.decoding import Bounds, Hypothesis, Sampler, beam_search, decode, largest
from transferkit.models.lean_translator import LeanTranslator
from transferkit.models.translator import Translator, build_translator

START, END = 1, 2
BOUNDS = Bounds(START, END, 6)
SOURCES = torch.tensor([[3, 4, 5, 6], [7, 8, 0, 0], [9, 3, 4, 0]])


@pytest.fixture(scope="module")
def model() -> Translator:
    torch.manual_seed(4)
    model = build_translator(
        10, 7, encoder_layers=1, decoder_layers=2, width=12, heads=3, feed_forward=20, dropout=0.5
    )  # fmt: skip
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


@pytest.fixture(scope="module")
def decoder(model: Translator) -> LeanTranslator:
    return LeanTranslator(model, "fp32")


@torch.no_grad()
def log_probability(model: Translator, source: Tensor, tokens: tuple[int, ...], has_ended: bool) -> float:
    """Of a target, computed at once and not step by step."""
    target = torch.tensor([[START, *tokens]])
    following = [*tokens, END] if has_ended else list(tokens)
    steps = model.eval()(source[None], (source != 0)[None], target).log_softmax(-1)[0]
    return sum(float(steps[place, token]) for place, token in enumerate(following))


def test_scores_are_the_log_probabilities_of_the_tokens(model: Translator, decoder: LeanTranslator) -> None:
    for source, found in zip(SOURCES, decode(decoder, SOURCES, SOURCES != 0, BOUNDS), strict=True):
        assert found.ended == (len(found.tokens) < BOUNDS.max_length)
        expected = log_probability(model, source, found.tokens, found.ended)
        assert found.score == pytest.approx(expected, abs=1e-4)


def test_a_source_has_the_same_target_alone_as_in_a_batch(decoder: LeanTranslator) -> None:
    together = beam_search(decoder, SOURCES, SOURCES != 0, BOUNDS, beams=3)
    for source, expected in zip(SOURCES, together, strict=True):
        alone = source[source != 0][None]
        (found,) = beam_search(decoder, alone, None, BOUNDS, beams=3)
        assert [h.tokens for h in found] == [h.tokens for h in expected]
        assert [h.score for h in found] == pytest.approx([h.score for h in expected], abs=1e-4)


def test_one_beam_is_greedy(decoder: LeanTranslator) -> None:
    greedy = decode(decoder, SOURCES, SOURCES != 0, BOUNDS)
    one = beam_search(decoder, SOURCES, SOURCES != 0, BOUNDS, beams=1, length_penalty=0.0)
    assert [h.tokens for h in greedy] == [of_source[0].tokens for of_source in one]


def test_a_wide_beam_finds_the_best_of_all_targets(model: Translator, decoder: LeanTranslator) -> None:
    bounds = Bounds(START, END, 3)
    words = [token for token in range(7) if token != END]
    # Every target that ends in time, and every one that the bound cuts.
    ended = [tokens for length in range(3) for tokens in product(words, repeat=length)]
    everything = [(tokens, True) for tokens in ended] + [(tokens, False) for tokens in product(words, repeat=3)]
    for source, found in zip(
        SOURCES, beam_search(decoder, SOURCES, SOURCES != 0, bounds, 250, length_penalty=0.0), strict=True
    ):
        best = max(log_probability(model, source, tokens, has_ended) for tokens, has_ended in everything)
        assert found[0].score == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize("words", [3, 64, 65, 200, 1000])
@pytest.mark.parametrize("number", [1, 8, 100])
def test_the_largest_are_those_of_topk(words: int, number: int) -> None:
    # All different, and the largest of a row side by side, in one group.
    values = torch.stack([torch.randperm(words), torch.arange(words)]).float()
    expected = values.topk(min(number, words))
    found, places = largest(values, number)
    assert torch.equal(found, expected.values)
    assert torch.equal(places, expected.indices)


def test_hypotheses_come_best_first_and_differ(decoder: LeanTranslator) -> None:
    for found in beam_search(decoder, SOURCES, SOURCES != 0, BOUNDS, beams=4):
        assert len(found) == 4
        assert len({hypothesis.tokens for hypothesis in found}) == 4
        assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


def test_no_target_is_longer_than_its_bound_and_none_holds_its_end(decoder: LeanTranslator) -> None:
    one = Bounds(START, END, 1)
    found = [*decode(decoder, SOURCES, SOURCES != 0, one), *beam_search(decoder, SOURCES, SOURCES != 0, one, 2)[0]]
    assert all(len(hypothesis.tokens) <= 1 and END not in hypothesis.tokens for hypothesis in found)


def test_every_target_has_a_bound_of_its_own(decoder: LeanTranslator) -> None:
    most = [4, 1, 3]
    bounds = replace(BOUNDS, max_length=most)
    greedy = decode(decoder, SOURCES, SOURCES != 0, bounds)
    best = beam_search(decoder, SOURCES, SOURCES != 0, bounds, beams=3)
    for row, length in enumerate(most):
        one, own = SOURCES[row, SOURCES[row] != 0][None], Bounds(START, END, length)
        assert greedy[row].tokens == decode(decoder, one, None, own)[0].tokens
        assert [h.tokens for h in best[row]] == [h.tokens for h in beam_search(decoder, one, None, own, beams=3)[0]]
    drawn = decode(decoder, SOURCES, SOURCES != 0, bounds, Sampler(temperature=5.0))
    assert all(len(one.tokens) <= length for one, length in zip(drawn, most, strict=True))
    with pytest.raises(ValueError, match="3 sources and 2 bounds"):
        decode(decoder, SOURCES, SOURCES != 0, replace(BOUNDS, max_length=[4, 1]))


def test_a_target_that_its_bound_cuts_has_not_ended(model: Translator, decoder: LeanTranslator) -> None:
    for length in (1, 2, 6):
        bounds = Bounds(START, END, length)
        searched = beam_search(decoder, SOURCES, SOURCES != 0, bounds, beams=4, length_penalty=0.0)
        for source, found in zip(SOURCES, searched, strict=True):
            assert all(one.ended or len(one.tokens) == length for one in found)
            expected = [log_probability(model, source, one.tokens, one.ended) for one in found]
            assert [one.score for one in found] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("bound", "least"), [(0, 0), (-1, -1), ([4, 0, 3], 0)])
def test_a_bound_without_room_for_a_token_is_refused(decoder: LeanTranslator, bound: Any, least: int) -> None:
    bounds = replace(BOUNDS, max_length=bound)
    message = f"A target has at least a token; max_length is {least}"
    with pytest.raises(ValueError, match=message):
        decode(decoder, SOURCES, None, bounds)
    with pytest.raises(ValueError, match=message):
        beam_search(decoder, SOURCES, None, bounds, beams=2)


def test_draws_follow_the_seed(decoder: LeanTranslator) -> None:
    def drawn(seed: int) -> list[Hypothesis]:
        sampler = Sampler(generator=torch.Generator().manual_seed(seed))
        return decode(decoder, SOURCES, SOURCES != 0, BOUNDS, sampler)

    assert drawn(0) == drawn(0)
    assert len({tuple(hypothesis.tokens for hypothesis in drawn(seed)) for seed in range(5)}) > 1


def test_what_a_sampler_draws_from() -> None:
    given = torch.tensor([[0.1, 0.5, 0.4]]).log()
    torch.testing.assert_close(Sampler().probabilities(given), given.exp())
    torch.testing.assert_close(Sampler(top_k=1).probabilities(given), torch.tensor([[0.0, 1.0, 0.0]]))
    torch.testing.assert_close(Sampler(top_k=2).probabilities(given), torch.tensor([[0.0, 5 / 9, 4 / 9]]))
    torch.testing.assert_close(Sampler(top_k=9).probabilities(given), given.exp())
    torch.testing.assert_close(Sampler(top_p=0.3).probabilities(given), torch.tensor([[0.0, 1.0, 0.0]]))
    torch.testing.assert_close(Sampler(top_p=0.8).probabilities(given), torch.tensor([[0.0, 5 / 9, 4 / 9]]))
    cold = torch.tensor([[0.01, 0.25, 0.16]]) / 0.42
    torch.testing.assert_close(Sampler(temperature=0.5).probabilities(given), cold)


def test_draws_have_the_frequencies_of_their_probabilities() -> None:
    sampler = Sampler(generator=torch.Generator().manual_seed(0))
    draws = sampler(torch.tensor([[0.1, 0.5, 0.4]]).log().repeat(20_000, 1))
    shares = draws.bincount(minlength=3) / len(draws)
    torch.testing.assert_close(shares, torch.tensor([0.1, 0.5, 0.4]), atol=0.02, rtol=0)


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.0}, {"temperature": 1e-40}, {"temperature": float("nan")}, {"temperature": float("inf")},
        {"top_p": 0.0}, {"top_p": 1.1}, {"top_p": float("nan")}, {"top_k": 0},
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_leave_nothing_to_draw_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"is finite and at least 0\.0001, top_p above 0 and at most 1, and top_k at"):
        Sampler(**settings)  # type: ignore[arg-type]


def test_the_lowest_temperature_draws_the_likeliest() -> None:
    given = torch.tensor([[-1e4, -20.0, -1e-3, -0.5]])
    assert Sampler(temperature=1e-4)(given).tolist() == [2]


def test_sources_without_a_token_and_searches_without_a_beam_are_refused(decoder: LeanTranslator) -> None:
    empty = torch.tensor([[3, 4], [0, 0]])
    with pytest.raises(ValueError, match="A source without a token cannot be translated"):
        decode(decoder, empty, empty != 0, BOUNDS)
    with pytest.raises(ValueError, match="A beam search needs a beam; 0 were asked for"):
        beam_search(decoder, SOURCES, None, BOUNDS, beams=0)


def test_the_model_answers_without_dropout(model: Translator) -> None:
    first = decode(LeanTranslator(model.train(), "fp32"), SOURCES, SOURCES != 0, BOUNDS)
    assert decode(LeanTranslator(model.train(), "fp32"), SOURCES, SOURCES != 0, BOUNDS) == first
