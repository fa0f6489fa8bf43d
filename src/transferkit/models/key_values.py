"""What queries of attention look at: keys and values, which can be kept from one step of decoding to the next.

Shapes: B rows, H heads, K positions, D / H width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# A room has space for a multiple of so many positions: most steps then write into it and copy nothing.
ROOM = 16


@dataclass(frozen=True)
class KeysValues:
    """Keys and values, each [B, H, K, D / H]; those that are kept are the filled part of a room."""

    keys: Tensor
    values: Tensor
    _room: _Room | None = None

    def kept(self) -> KeysValues:
        """As a step of decoding reads them fastest: float32 and without gaps, for one query at a time.

        Products with one query read every key once, so that copying them into place costs as much; and a library that
        builds a kernel for each shape, as that of bfloat16 does, would build one for every length.
        """
        return KeysValues(self.keys.float().contiguous(), self.values.float().contiguous())

    def extended(self, more: KeysValues) -> KeysValues:
        """With the positions of `more` after its own; this one stays as it is."""
        length = self.keys.shape[2]
        end = length + more.keys.shape[2]
        if torch.is_grad_enabled():
            return KeysValues(torch.cat([self.keys, more.keys], 2), torch.cat([self.values, more.values], 2))
        room = self._room
        # Another one that began as this one may have gone on in the room.
        if room is None or room.filled != length or end > room.keys.shape[2]:
            room = _Room.of(self, end)
        return room.take(more)

    def rows(self, index: Tensor) -> KeysValues:
        """Of these rows, int64 [any number]."""
        if self._room is None:
            return KeysValues(self.keys.index_select(0, index), self.values.index_select(0, index))
        room = _Room(self._room.keys.index_select(0, index), self._room.values.index_select(0, index))
        return room.filled_to(self.keys.shape[2])


@dataclass
class _Room:
    """Space for keys and values, each [B, H, a multiple of ROOM, D / H]; the first `filled` positions are taken."""

    keys: Tensor
    values: Tensor
    filled: int = 0

    @classmethod
    def of(cls, given: KeysValues, length: int) -> _Room:
        """With those that are given, and space for `length` positions and perhaps more."""
        rows, heads, _, width = given.keys.shape
        shape = (rows, heads, length + -length % ROOM, width)
        room = cls(torch.zeros(shape), torch.zeros(shape))
        room.take(given)
        return room

    def take(self, more: KeysValues) -> KeysValues:
        """Put `more` after what is there."""
        begin, end = self.filled, self.filled + more.keys.shape[2]
        self.keys[:, :, begin:end] = more.keys
        self.values[:, :, begin:end] = more.values
        return self.filled_to(end)

    def filled_to(self, end: int) -> KeysValues:
        """The first `end` positions, after which others may follow."""
        self.filled = end
        return KeysValues(self.keys[:, :, :end], self.values[:, :, :end], self)
