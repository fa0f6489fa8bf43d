"""What failed where the client of the Hugging Face hub gives up: the hub, this machine, or the way between them."""

from __future__ import annotations

import errno
from typing import TypeGuard

# Of a write, whose error names no file.
_NO_ROOM = (errno.ENOSPC, errno.EFBIG)


def is_of_the_machine(error: BaseException | None) -> TypeGuard[OSError]:
    """Whether a file or folder of this machine cannot be read or written; the client's own errors name none."""
    return isinstance(error, OSError) and (error.filename is not None or error.errno in _NO_ROOM)


def answer(error: BaseException, name: str) -> str | None:
    """What to say of `name` where `error` comes of an answer of the hub; None where the hub did not answer."""
    from huggingface_hub.errors import HfHubHTTPError

    link: BaseException | None = error
    while link is not None:
        # Files are asked for that need not be there: the 404 of one stands behind errors that do not come of it.
        if isinstance(link, HfHubHTTPError) and link.response.status_code != 404:
            return f"The hub answered {link.response.status_code} for {name!r}; try again later."
        link = link.__cause__ or link.__context__
    return None
