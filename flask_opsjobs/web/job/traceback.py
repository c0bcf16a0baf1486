"""Shortens a traceback to a few lines: the host's own frames, and one line per run of library frames."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from ...core.words import counted

_START = "Traceback (most recent call last):"
_FRAME = re.compile(
    r'^  File "(?P<path>[^"\n]*)", line (?P<line>\d+), in (?P<name>.*)\n(?P<code>    .*)?', re.M
)
_LIBRARY = re.compile(
    r"(?:.*(?:site|dist)-packages|.*lib[/\\]python3[^/\\]*|<frozen)[/\\ ]([^/\\.>]+)"
)
_OURS = re.compile(r"(?:^|[/\\])(flask_opsjobs)[/\\]")
_MOST = 12


@dataclass(frozen=True)
class Frame:
    """One line: file and line, function and code; or `folded`, a text for several library frames."""

    where: str = ""
    name: str = ""
    code: str = ""
    folded: str = ""


def condense(text: str) -> Sequence[Frame]:
    """The frames of the last exception in a traceback, at most 12, the innermost last.

    Empty when the text does not look like a Python traceback.
    """
    frames = list(_FRAME.finditer(text.rpartition(_START)[2]))
    found = list(_folded(frames))[-_MOST:]
    # Our own frames above the host's function do not help a reader.
    return found[1:] if len(found) > 1 and found[0].folded.endswith(" flask_opsjobs") else found


def _folded(frames: Sequence[re.Match[str]]) -> Iterator[Frame]:
    for is_library, group in groupby(frames, key=lambda frame: _library(frame["path"]) is not None):
        found = list(group)
        if is_library:
            names = list(dict.fromkeys(str(_library(frame["path"])) for frame in found))
            many = counted(len(found), "frame")
            yield Frame(folded=f"{many} in {', '.join(names[:3])}{' …' if len(names) > 3 else ''}")
            continue
        for frame in found:
            short = "/".join(re.split(r"[/\\]", frame["path"])[-2:])
            code = (frame["code"] or "").strip()
            yield Frame(f"{short}:{frame['line']}", frame["name"], code)


def _library(path: str) -> str | None:
    """The library that a file belongs to; None for a file of the host's."""
    if found := _LIBRARY.match(path):
        return found[1]
    return "flask_opsjobs" if _OURS.search(path) else None
