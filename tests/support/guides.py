"""Reads what pages of the docs show as the output of a command, to compare it with what it prints."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.support.sources import ROOT

_CONSOLE = re.compile(r"^( *)```console\n(.*?)^\1```", re.MULTILINE | re.DOTALL)

_NUMBER = re.compile(r"\d[\d,.:-]*")


def outputs(page: str) -> Iterator[tuple[str, str]]:
    """Each command of a page, a path from the root, that is followed by output, with that output."""
    for indent, block in _CONSOLE.findall((ROOT / page).read_text()):
        lines = re.sub(f"^{indent}", "", block, flags=re.MULTILINE)
        for typed in re.split(r"^\$ ", lines, flags=re.MULTILINE):
            command, _, printed = typed.partition("\n")
            if printed:
                yield re.sub(r"  +#.*", "", command), printed


def is_shown(page: str, command: str, real: str, *, is_exact: bool = False) -> bool:
    """Whether a page shows this output of a command, in which `…` is any text.

    Numbers and times may differ, unless the page `is_exact`.
    """
    found = [printed for typed, printed in outputs(page) if typed == command]
    assert found, f"{page} shows no output of {command}"
    for printed in found:
        texts = (
            [printed, real] if is_exact else [_NUMBER.sub("0", text) for text in (printed, real)]
        )
        if re.fullmatch(".*".join(map(re.escape, texts[0].split("…"))), texts[1]):
            return True
    return False
