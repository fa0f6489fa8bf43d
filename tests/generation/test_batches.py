"""Many sources at once: the same targets as one by one, in the order of the sources."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from transferkit.generation.batches import Decoding, decode_all
from transferkit.generation.decoding import Bounds, Sampler, beam_search, decode
from transferkit.models.lean_translator import LeanTranslator
from transferkit.models.translator import build_translator

BOUNDS = Bounds(start=2, end=3, max_length=12)
# With an end that does not come, so that every target runs away.
FAR = Bounds(start=2, end=19, max_length=500)
SOURCES = [[5, 6, 7, 3], [], [9, 3], [4, 5, 6, 7, 8, 9, 10, 3], [11, 12, 3], [9, 3]]


@pytest.fixture(scope="module")
def decoder() -> LeanTranslator:
    torch.manual_seed(1)
    sizes = {"width": 16, "heads": 2, "feed_forward": 32, "encoder_layers": 1, "decoder_layers": 1}
    return LeanTranslator(build_translator(20, 20, **sizes), "fp32")  # type: ignore[arg-type]


@pytest.fixture(params=[1, 3], ids=["one thread", "three threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("max_tokens", [1, 9, 4096])
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("bounds", [BOUNDS, FAR], ids=["near", "far"])
def test_batches_change_no_target(decoder: LeanTranslator, beams: int, max_tokens: int, bounds: Bounds) -> None:
    heard: list[int] = []
    found = decode_all(decoder, SOURCES, 1, bounds, Decoding(beams, max_tokens=max_tokens), heard.append)
    assert sum(heard) == 5
    for source, own in zip(SOURCES, found, strict=True):
        if not source:
            assert [one.tokens for one in own] == [()]
            continue
        ids = torch.tensor([source])
        own_bounds = replace(bounds, max_length=min(bounds.max_length, 2 * len(source) + 10))
        searched = beam_search(decoder, ids, None, own_bounds, beams)
        alone = searched[0] if beams > 1 else decode(decoder, ids, None, own_bounds)
        assert [one.tokens for one in own] == [one.tokens for one in alone]
        assert [one.score for one in own] == pytest.approx([one.score for one in alone], abs=1e-4)


def test_a_target_does_not_run_away(decoder: LeanTranslator) -> None:
    found = decode_all(decoder, SOURCES, 1, FAR, Decoding())
    assert [len(one.tokens) for (one,) in found] == [2 * len(source) + 10 if source else 0 for source in SOURCES]


@pytest.mark.parametrize("beams", [1, 2])
def test_a_bound_that_is_asked_for_takes_the_place_of_all_others(decoder: LeanTranslator, beams: int) -> None:
    near = replace(FAR, max_length=5)
    found = decode_all(decoder, [[9, 3], []], 1, near, Decoding(beams, max_length=20))
    assert [(len(own[0].tokens), own[0].ended) for own in found] == [(20, False), (0, True)]
    with pytest.raises(ValueError, match="at least a token; max_length is 0"):
        Decoding(max_length=0)


def test_a_search_of_several_beams_draws_nothing() -> None:
    with pytest.raises(ValueError, match="several beams draws nothing; give beams=1"):
        Decoding(2, pick=Sampler())


@pytest.mark.parametrize("penalty", [10.5, -1000.0, float("inf"), float("nan")])
def test_a_length_penalty_that_tells_nothing_apart_is_refused(penalty: float) -> None:
    with pytest.raises(ValueError, match="A length penalty is from -10 to 10; this one is"):
        Decoding(2, penalty)


@pytest.mark.parametrize("beams", [0, -3])
def test_decoding_without_a_beam_is_refused(beams: int) -> None:
    with pytest.raises(ValueError, match=f"with at least a beam; beams is {beams}"):
        Decoding(beams)


@pytest.mark.usefixtures("threads")
def test_sampling_draws_with_its_own_generator(decoder: LeanTranslator) -> None:
    def drawn(seed: int) -> list[tuple[int, ...]]:
        sampler = Sampler(temperature=2.0, generator=torch.Generator().manual_seed(seed))
        found = decode_all(decoder, SOURCES, 1, BOUNDS, Decoding(pick=sampler, max_tokens=9))
        return [own[0].tokens for own in found]

    assert drawn(0) == drawn(0) != drawn(1)
