"""What the pages of the docs show as the output of a command, to compare it with what the command prints."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.support.sources import ROOT

_CONSOLE = re.compile(r"^( *)```console\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


def outputs(page: str) -> Iterator[tuple[str, str]]:
    """Each command of a page, a path from the root, that is followed by output, with that output."""
    for indent, block in _CONSOLE.findall((ROOT / page).read_text()):
        lines = re.sub(f"^{indent}", "", block, flags=re.MULTILINE)
        for typed in re.split(r"^\$ ", lines, flags=re.MULTILINE):
            command, _, printed = typed.partition("\n")
            if printed:
                yield re.sub(r"  +#.*", "", command), printed


def is_shown(page: str, command: str, real: str) -> bool:
    """Whether a page shows this output of a command: numbers and times may differ, and `…` stands for more."""
    found = [printed for typed, printed in outputs(page) if typed == command]
    assert found, f"{page} shows no output of {command}"
    return any(re.fullmatch(_pattern(printed), _plain(real)) for printed in found)


def _pattern(printed: str) -> str:
    return ".*".join(map(re.escape, _plain(printed).split("…")))


def _plain(text: str) -> str:
    """Without what differs from run to run; one thing is written as several are."""
    return re.sub(r"\d[\d,.:-]*", "0", text)
