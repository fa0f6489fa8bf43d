"""Where decoding begins: what is no batch of sources is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from transferkit.generation.steps import begin
from transferkit.models.lean_translator import LeanTranslator
from transferkit.models.translator import build_translator

SOURCES = torch.tensor([[3, 4, 5], [6, 7, 0]])


@pytest.fixture(scope="module")
def decoder() -> LeanTranslator:
    sizes = {"width": 8, "heads": 2, "feed_forward": 8, "encoder_layers": 1, "decoder_layers": 1}
    return LeanTranslator(build_translator(10, 10, **sizes), "fp32")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        ((SOURCES != 0).float(), "A source mask is boolean, True on real tokens; this one is torch.float32"),
        ((SOURCES != 0).long(), "this one is torch.int64"),
        ((SOURCES != 0)[:, :2], r"A mask of shape \(2, 2\) is not one of sources of shape \(2, 3\)"),
        ((SOURCES != 0)[:1], r"A mask of shape \(1, 3\)"),
        ((SOURCES != 0)[:, None], r"A mask of shape \(2, 1, 3\)"),
    ],
    ids=["float", "int", "short", "one row", "over heads"],
)
def test_a_mask_that_is_not_one_of_the_sources_is_refused(decoder: LeanTranslator, mask: Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        begin(decoder, SOURCES, mask)
