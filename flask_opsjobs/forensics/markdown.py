"""Writes a report as Markdown (CommonMark with tables). What it quotes stays text, and is never markup."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..core.visible_text import on_one_line
from .bundle import Bundle
from .report import Block, Points, Table, Text, make_post_mortem, seal

# What begins markup anywhere in a line. A backslash before it makes it text.
_MARKUP = re.compile(r"[\\`*_\[\]<>&|~$]")
# What begins a heading, a list, a rule or a code block at the begin of a line.
_AT_BEGIN = re.compile(r"^(?:[#+=:-]|(\d+)(?=[.)]))")
# An address that some readers make a link of, although nothing marks it.
_LINKED = re.compile(r"(?i)\b(https?|ftp|mailto|xmpp|www)([:.])|@")


def write_bundle_markdown(
    bundle: Bundle, reader: str, environment: str, address: str = ""
) -> bytes:
    """The report of a bundle as a file. Its last line names its hash, see `report.seal`.

    It begins with the address of a page, if one is given.
    """
    report = make_post_mortem(bundle, reader, environment)
    lines = [address, ""] if address else []
    lines += [f"# {escape(report.title)}", "", escape(report.says)]
    for section in report.sections:
        lines += ["", f"## {section.title}"]
        for block in section.blocks:
            lines += ["", *_write(block)]
    return seal("\n".join([*lines, "", "---", ""]), ("SHA-256 of all lines above: `", "`"))


def escape(text: str) -> str:
    """The text on one line, as Markdown that shows exactly this text."""
    line = _MARKUP.sub(r"\\\g<0>", on_one_line(text).strip())
    line = _LINKED.sub(_unlink, line)
    return _AT_BEGIN.sub(lambda found: f"{found[1]}\\" if found[1] else f"\\{found[0]}", line)


def _unlink(found: re.Match[str]) -> str:
    return f"{found[1]}\\{found[2]}" if found[1] else "\\@"


def _write(block: Block) -> Iterator[str]:
    match block:
        case Text(says, "prompt"):
            yield f"*To write: {escape(says)}*"
        case Text(says, "quote"):
            yield f"> {escape(says)}"
        case Text(says):
            yield escape(says)
        case Points(items, is_numbered):
            for number, item in enumerate(items, 1):
                lead = f"**{escape(item.lead)}**" if item.rest else escape(item.lead)
                rest = f" {escape(item.rest)}" if item.rest else ""
                url = f" <{_address(item.url)}>" if item.url else ""
                yield f"{f'{number}.' if is_numbered else '-'} {lead}{rest}{url}"
        case Table():
            yield from _write_table(block)


def _write_table(table: Table) -> Iterator[str]:
    yield f"{escape(table.title)}:"
    yield ""
    yield _row(map(escape, table.columns))
    yield _row("---:" if place in table.numeric else "---" for place in range(len(table.columns)))
    for row in table.rows:
        cells = map(escape, row.cells)
        yield _row(f"**{cell}**" if row.mark and cell else cell for cell in cells)


def _row(cells: Iterator[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _address(url: str) -> str:
    """An address of the host's settings, as it may stand between angle brackets."""
    return re.sub(r"[\s<>\\]", lambda found: f"%{ord(found[0]):02X}", url)
