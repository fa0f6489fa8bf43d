"""The same row in two splits: taken out of the one that is learnt from, so that scores are of unseen rows."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from transferkit.data.rows import Mask, TextRows


def not_in(rows: TextRows, others: Sequence[TextRows]) -> Mask:
    """For each row in use, whether none of `others` has the same text (or pair).

    Blanks at the ends count for nothing, and neither does whether an accent is a character of its own.
    """
    known = np.concatenate([_fingerprints(other) for other in others])
    fresh: Mask = np.isin(_fingerprints(rows), known, invert=True)
    return fresh


def _fingerprints(rows: TextRows) -> npt.NDArray[np.uint64]:
    """64 bits for each row in use; that any two of a million different rows share them has odds of 3e-8."""
    windows = (zip(*(column.to_pylist() for column in window.columns), strict=True) for window in rows.windows())
    digests = [b"".join(digest(texts) for texts in window) for window in windows]
    return np.frombuffer(b"".join(digests), dtype=np.uint64)


def digest(texts: tuple[str, ...]) -> bytes:
    """64 bits of a text, or of a pair, in which neither blanks at the ends nor the form of accents counts."""
    row = unicodedata.normalize("NFC", "\x1f".join(text.strip() for text in texts))
    return hashlib.blake2b(row.encode(), digest_size=8).digest()
