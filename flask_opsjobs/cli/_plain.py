"""What a command prints of what people and jobs wrote: nothing that a terminal would obey, no line of their own."""

from __future__ import annotations

from ..core.visible_text import on_one_line


def plain(*lines: str) -> str:
    """The lines; each control in one of them is written out, as `\\x1b` or `\\n`."""
    return "\n".join(map(on_one_line, lines))
