"""What counts as a text that nobody can read, in training and in prediction alike."""

from __future__ import annotations

import re

# All that Python takes for white space, the zero-width space and the byte-order mark. They stand here one by one, since
# classes such as \s hold other characters in the expressions of Arrow than in those of Python.
READABLE = "[^\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200b\u2028\u2029\u202f\u205f\u3000\ufeff]"
_FOUND = re.compile(READABLE)


def is_blank(text: str) -> bool:
    """Whether a text is empty, or holds nothing but white space and zero-width characters."""
    return _FOUND.search(text) is None
