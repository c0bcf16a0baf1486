"""What a command prints of what people and jobs wrote: never a control sequence, which a terminal would obey."""

from __future__ import annotations

import re

# All controls but the line feed, and what turns the direction of what follows.
_OBEYED = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """The text with each such character written out, as `\\x1b`."""
    return _OBEYED.sub(lambda found: ascii(found[0])[1:-1], text)
