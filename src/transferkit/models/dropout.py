"""Dropout (Srivastava et al. 2014) whose random numbers come cheap on a CPU.

torch draws one random number for each element, in one thread, and that takes longer than the matrix product before it.
Sixteen bits decide whether an element stays, so one draw of 64 bits serves four elements, and a generator of numpy's
draws them in half of torch's time.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

_DRAWS = 1 << 16


def dropout(x: Tensor, probability: float) -> Tensor:
    """x with elements set to zero at random and the others divided by what share of them is kept.

    The probability is met to 1 in 65,536, and the scale fits the probability that is drawn. In bf16 the scale is
    rounded, at 0.1 by 0.16 %. `torch.manual_seed` decides what is dropped.
    """
    dropped = round(probability * _DRAWS)
    if x.device.type != "cpu" or dropped in (0, _DRAWS):
        # Sixteen bits cannot tell such a probability from none or from all.
        return functional.dropout(x, probability)
    draws = _random_words(-(-x.numel() // 4)).view(torch.int16)[: x.numel()].view(x.shape)
    # In place: a comparison that gives booleans goes element by element, and takes as long as the drawing.
    keep = draws.ge_(dropped + torch.iinfo(torch.int16).min)
    return x * keep.to(x.dtype).mul_(_DRAWS / (_DRAWS - dropped))


def _random_words(number: int) -> Tensor:
    """So many times 64 random bits: int64 [number]."""
    seed = torch.empty((), dtype=torch.int64).random_()
    return torch.from_numpy(np.random.SFC64(int(seed)).random_raw(number).view(np.int64))


class CheapDropout(nn.Dropout):
    """`nn.Dropout` with the draws of `dropout`."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """Any shape; in eval mode the input itself."""
        return dropout(input, self.p) if self.training else input
