"""Writes values as the text that COPY reads. Columns are joined by tabs; a line ends with a line feed."""

from __future__ import annotations

from collections.abc import Iterable


def column(value: object) -> str:
    """A value of a column: `str(value)` escaped, NULL for None."""
    if value is None:
        return "\\N"
    text = str(value).replace("\\", "\\\\")
    return text.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def array(texts: Iterable[str]) -> str:
    """The text of an array of texts, not yet escaped as a column."""
    return "{" + ",".join(f'"{_item(text)}"' for text in texts) + "}"


def _item(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
