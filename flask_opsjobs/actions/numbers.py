"""Reads whole numbers as forms, commands and Python give them."""

from __future__ import annotations

import re
from typing import Any


def whole(value: Any) -> int | None:
    """The number, also where it is written in digits; None when it is none, or has more than nine of them."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value.strip()):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def read_whole(value: Any, most: int, words: str) -> int:
    """The number from 1 to `most`. Raises `ValueError` with `words`, which end in `{}`: what is allowed goes there."""
    number = whole(value)
    if number is None or not 1 <= number <= most:
        raise ValueError(f"{words.format(f'a whole number from 1 to {most:,}')}; got {value!r}")
    return number
