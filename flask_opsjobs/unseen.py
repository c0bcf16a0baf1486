"""What of a text nobody sees as it stands: characters without a shape, and those that turn what follows around."""

from __future__ import annotations

import re
import unicodedata

# In a class of a pattern: marks, embeddings, overrides and isolates, which let a text be read in another order.
TURNS = r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"

_TURNED = re.compile(f"[{TURNS}]")
# Letters and symbols by their category, and yet empty: Hangul fillers, a blank of Braille, a note without a head.
_EMPTY = frozenset("\u115f\u1160\u3164\uffa0\u2800\U0001d159")


def count_seen(text: str) -> int:
    """How many characters a person sees, and one between words. What only changes another one does not count."""
    words = (sum(map(_is_seen, word)) for word in text.split())
    seen = [count for count in words if count]
    return sum(seen) + max(0, len(seen) - 1)


def unturned(text: str) -> str:
    """The text with each character that turns it written out, as `\\u202e`, so that it is read in its own order."""
    return _TURNED.sub(written_out, text)


def written_out(found: re.Match[str]) -> str:
    """The one character that was found, as Python writes it: `\\x1b`, `\\u202e`."""
    return ascii(found[0])[1:-1]


def _is_seen(each: str) -> bool:
    # Letters, numbers, punctuation, symbols; no marks, separators, controls, formats, or what has no meaning.
    return unicodedata.category(each)[0] in "LNPS" and each not in _EMPTY
