"""The errors a user may meet. Every message says what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TransferKitError(Exception):
    """A mistake of the input that the user can mend; the command line prints it and exits with code 2."""


class ConfigError(TransferKitError):
    """A setting is unknown, out of range, or has no effect."""


class DataError(TransferKitError):
    """Data cannot be read or cannot be learnt from."""


class BackboneError(TransferKitError):
    """A pretrained model or its tokenizer cannot be had or does not fit."""


class AdaptationError(TransferKitError):
    """A strategy cannot be applied, merged, saved or loaded as asked."""


class RunError(TransferKitError):
    """A run folder is missing, incomplete, or would be overwritten."""


def first_line(error: BaseException) -> str:
    """The first line of what a library's error says, or its kind where it says nothing."""
    return (str(error) or type(error).__name__).splitlines()[0]


def did_you_mean(name: str, known: Iterable[str], most: int = 3) -> str:
    """A hint that names what `name` may stand for: ' Did you mean a, b?', or the known names, or nothing."""
    names = [str(item) for item in known]
    lowered = {item.lower(): item for item in names}
    close = [lowered[item] for item in difflib.get_close_matches(name.lower(), lowered, n=most, cutoff=0.5)]
    if close:
        return f" Did you mean {', '.join(close)}?"
    if not names:
        return ""
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return f" There is: {shown}."
