"""The same row in two splits: taken out of the one that is learnt from, so that scores are of unseen rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transferkit.data.rows import Mask, Rows

# The texts to look for are hashed once a window, so windows are large: some 100 MB at 1,000 bytes a text.
_WINDOW = 1 << 17
_SEPARATOR = pa.scalar("\x1f", pa.large_string())


def not_in(rows: Rows, others: Sequence[Rows]) -> Mask:
    """For each row in use, whether none of `others` has the same text (or pair), blanks at the ends aside."""
    known = pa.concat_arrays([key for other in others for key in _keys(other)])
    found = [pc.is_in(key, value_set=known).to_numpy(zero_copy_only=False) for key in _keys(rows)]
    return ~np.concatenate(found)


def _keys(rows: Rows) -> Iterator[pa.Array]:
    for window in rows.windows(_WINDOW):
        trimmed = [pc.utf8_trim_whitespace(column).cast(pa.large_string()) for column in window.columns]
        joined = trimmed[0] if len(trimmed) == 1 else pc.binary_join_element_wise(*trimmed, _SEPARATOR)
        yield joined.combine_chunks()
