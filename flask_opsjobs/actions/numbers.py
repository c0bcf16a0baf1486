"""Reads whole numbers from forms, commands and Python."""

from __future__ import annotations

import re
from typing import Any


def whole(value: Any) -> int | None:
    """The number, given as an int or as digits; None for anything else, or for more than nine digits."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value.strip()):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def read_whole(value: Any, most: int, words: str) -> int:
    """The number from 1 to `most`.

    Otherwise raises `ValueError`. Its text is `words`, with `{}` replaced by the allowed range.
    """
    number = whole(value)
    if number is None or not 1 <= number <= most:
        raise ValueError(f"{words.format(f'a whole number from 1 to {most:,}')}; got {value!r}")
    return number
