"""Cleans texts for the terminal: writes out control characters, so that none acts and none begins a line."""

from __future__ import annotations

from ..core.visible_text import on_one_line


def plain(*lines: str) -> str:
    """The lines joined, with each control character in a line written out, as `\\x1b` or `\\n`."""
    return "\n".join(map(on_one_line, lines))
