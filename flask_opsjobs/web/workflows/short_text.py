"""Writes numbers and names as short as a drawing needs them."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from ...core.visible_text import on_one_line

# Emoji and East Asian letters take the width of two others; marks and joiners take none.
_WIDE, _NONE = "WF", ("Mn", "Me", "Cf")


def width_of(text: str) -> int:
    """The width of a text, in letters of the Latin alphabet."""
    return len(text) if text.isascii() else sum(map(_width, text))


def cut(text: str, most: int) -> str:
    """The text on one line, in at most the width of `most` letters; a cut one ends in `…`.

    >>> cut("fulfil_order", 12), cut("fulfil_order", 8)
    ('fulfil_order', 'fulfil_…')
    """
    text = on_one_line(text)
    if width_of(text) <= most:
        return text
    kept = ""
    left = most - 1
    for each in text:
        left -= _width(each)
        if left < 0:
            break
        kept += each
    # Nothing is left to join or to change behind the cut.
    return kept.rstrip("\u200d\ufe0f ") + "…"


@lru_cache(4_096)
def units(value: float) -> str:
    """A length in units of the drawing, to a tenth: `12.5`, `12`."""
    return f"{value:.1f}".removesuffix(".0")


def _width(each: str) -> int:
    if unicodedata.category(each) in _NONE:
        return 0
    return 2 if unicodedata.east_asian_width(each) in _WIDE else 1
