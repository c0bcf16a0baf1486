"""What a command prints of what people and jobs wrote: never a control sequence, which a terminal would obey."""

from __future__ import annotations

import re

from ..unseen import TURNS, written_out

# All controls but the line feed, and what turns the direction of what follows.
_OBEYED = re.compile(rf"[\x00-\x09\x0b-\x1f\x7f-\x9f{TURNS}]")


def plain(text: str) -> str:
    """The text with each such character written out, as `\\x1b`."""
    return _OBEYED.sub(written_out, text)
