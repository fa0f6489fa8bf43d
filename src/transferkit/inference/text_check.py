"""Whether what a caller gives in the place of a text is one."""

from __future__ import annotations

import reprlib

from transferkit.errors import DataError


def check_text(given: object, place: str) -> None:
    """Refuse what is no text; `place` is what the message calls where it stands.

    Raises:
        DataError: `given` is something else, such as the NaN that pandas puts in a gap.
    """
    if not isinstance(given, str):
        raise DataError(
            f"{place.capitalize()} holds {reprlib.repr(given)}, which is not text; give a text or leave the row out."
        )
