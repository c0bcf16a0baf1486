"""Control and bidi characters are written out, wherever they stand, and nothing else is."""

from __future__ import annotations

import sys
import unicodedata

from flask_opsjobs.core.visible_text import visible


def test_each_character_that_could_hide_or_turn_a_text_is_written_out() -> None:
    """Over all of Unicode: of what is not written out, nothing turns a line or controls a terminal."""
    turns = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    marks = {"\u061c", "\u200e", "\u200f"}
    for each in map(chr, range(sys.maxunicode + 1)):
        is_control = unicodedata.category(each) == "Cc" and each not in "\t\n\r"
        turned = unicodedata.bidirectional(each) in turns or each in marks
        is_kept = visible(f"a{each}b") == f"a{each}b"
        assert is_kept is not (is_control or turned), ascii(each)


def test_a_text_keeps_all_else() -> None:
    for text in ("", "send_invoice", "Zoë zahlt 3 €", "two\nlines\tand a tab", "e\u0301 \u3164"):
        assert visible(text) == text
    assert visible("paid \u202e by\x1b[1m") == "paid \\u202e by\\x1b[1m"
