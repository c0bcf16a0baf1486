"""Writes out control and bidi characters, so that a text cannot hide part of itself."""

from __future__ import annotations

import re
import unicodedata

# For a character class: bidi marks, embeddings, overrides and isolates, which change the order of the shown
# text.
TURNS = r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"

# For a character class: characters without a visible shape, except the tab and the ends of a line.
SHAPELESS = (
    r"\x00-\x08\x0b\x0c\x0e-\x20\x7f-\xa0\xad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f"
    r"\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb"
)

# All control and bidi characters, except the tab and the ends of a line, which pages show as space.
_UNSEEN = re.compile(rf"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f{TURNS}]")
_NOT_OF_A_LINE = re.compile(rf"[\x00-\x1f\x7f-\x9f\u2028\u2029{TURNS}]")
# Letters and symbols by category, but blank: Hangul fillers, the blank Braille pattern, the null note head.
_EMPTY = frozenset("\u115f\u1160\u3164\uffa0\u2800\U0001d159")


def count_seen(text: str) -> int:
    """How many visible characters the text has, with one space between words.

    Combining marks do not count.
    """
    words = (sum(map(_is_seen, word)) for word in text.split())
    seen = [count for count in words if count]
    return sum(seen) + max(0, len(seen) - 1)


def visible(text: str) -> str:
    """The text with control and bidi characters escaped (`\\u202e`): it is shown whole and in order.

    A text that says that it is HTML is a plain one then.
    """
    # No character that is written out is printable. To ask that is four times as fast as to look for them.
    return str(text) if text.isprintable() else _UNSEEN.sub(_written_out, text)


def on_one_line(text: str) -> str:
    """The text as `visible` escapes it, with tabs and line ends escaped too: it cannot fake a new line."""
    return _NOT_OF_A_LINE.sub(_written_out, text)


def _written_out(found: re.Match[str]) -> str:
    """The character that was found, escaped as Python does: `\\x1b`, `\\u202e`."""
    return ascii(found[0])[1:-1]


def _is_seen(each: str) -> bool:
    # Counts letters, numbers, punctuation and symbols; not marks, separators, controls, formats and
    # unassigned ones.
    return unicodedata.category(each)[0] in "LNPS" and each not in _EMPTY
