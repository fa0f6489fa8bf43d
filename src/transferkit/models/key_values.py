"""Keys and values of attention, kept from one step of decoding to the next.

Shapes: R rows, H heads, K positions, d width of a head; keys come before values in a dimension of 2.
"""

from __future__ import annotations

from torch import Tensor

# There is space for a multiple of so many positions: most steps then write into it and copy nothing.
ROOM = 16


class KeysValues:
    """Keys and values of some rows, to which every step can add a position."""

    def __init__(self, given: Tensor) -> None:
        """Begin with [2, R, H, K, d], where K may be 0."""
        # Every step reads all of it: without gaps, that is fastest.
        self._held = given.contiguous()
        self._length = given.shape[3]

    @property
    def keys(self) -> Tensor:
        """[R, H, K, d]."""
        return self._held[0, :, :, : self._length]

    @property
    def values(self) -> Tensor:
        """[R, H, K, d]."""
        return self._held[1, :, :, : self._length]

    def add(self, new: Tensor) -> None:
        """Put [2, R, H, d] after what is there."""
        if self._length == self._held.shape[3]:
            parts, rows, heads, _, width = self._held.shape
            larger = self._held.new_empty(parts, rows, heads, self._length + ROOM, width)
            larger[:, :, :, : self._length] = self._held
            self._held = larger
        self._held[:, :, :, self._length] = new
        self._length += 1

    def rows(self, index: Tensor) -> KeysValues:
        """Of these rows, int64 [any number], which may repeat; later additions to either do not show in the other."""
        chosen = KeysValues(self._held.index_select(1, index))
        chosen._length = self._length
        return chosen
