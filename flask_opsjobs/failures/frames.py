"""Reads the frames of a stored traceback, and says which of them are the host's code. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..jobs.host_code import is_host_file

_BEGIN = "Traceback (most recent call last):"
# What stands before the name of a library or of a module of Python's own.
_ABOVE_LIBRARIES = re.compile(
    r".*[\\/](?:(?:site|dist)-packages|lib[\\/]python3\.[0-9]+)[\\/]", re.IGNORECASE
)
_SEPARATOR = re.compile(r"[\\/]")
_MOST_PARTS = 3
_FRAME = re.compile(r'  File "(?P<path>.*)", line (?P<line>[0-9]+), in (?P<function>.+)')


@dataclass(frozen=True)
class TracebackFrame:
    """One call: the file as the traceback names it, the line, the function, and the source line if known."""

    path: str
    line: int
    function: str
    source: str | None
    is_host: bool

    @property
    def place(self) -> str:
        """The end of the path and the line: `shop/webhooks/signing.py:24`."""
        return f"{_end_of(self.path)}:{self.line}"


def read_frames(traceback: str | None, package: str) -> list[TracebackFrame]:
    """Return the frames of the error itself, the innermost last; none of the errors that led to it.

    `package` is the top-level package of the task's function.
    """
    lines = (traceback or "").rpartition(_BEGIN)[2].split("\n")
    frames = []
    for at, line in enumerate(lines):
        if found := _FRAME.fullmatch(line):
            after = lines[at + 1] if at + 1 < len(lines) else ""
            source = after.strip() if after.startswith("    ") else None
            is_host = is_host_file(found["path"], package)
            frames.append(
                TracebackFrame(
                    found["path"], int(found["line"]), found["function"], source, is_host
                )
            )
    return frames


def say_where(frames: list[TracebackFrame]) -> str | None:
    """Return the innermost function of the host's code, as `sign in shop/webhooks/signing.py`, or None.

    The end of the path is enough: what is before it differs from machine to machine.
    """
    inner = next((frame for frame in reversed(frames) if frame.is_host), None)
    if inner is None:
        return None
    return f"{inner.function} in {_end_of(inner.path)}"


def _end_of(path: str) -> str:
    parts = _SEPARATOR.split(_ABOVE_LIBRARIES.sub("", path))
    return "/".join(parts[-_MOST_PARTS:])
