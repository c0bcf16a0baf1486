"""Writes a report as one HTML file, which requests nothing and runs nothing, for the screen and for paper."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from functools import cache

from markupsafe import Markup

from .._folders import folder
from ..core.visible_text import on_one_line
from .bundle import Bundle
from .report import Block, Points, Row, Table, Text, make_post_mortem, seal

_HEAD = Markup(
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src '{hash}'; base-uri 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>"""
)


@cache
def _style() -> Markup:
    return Markup((folder("static") / "forensics.css").read_text())  # a file of ours, without a `<`


def style_source() -> str:
    """The file's one style as a source for a content security policy: `sha256-…`."""
    return f"sha256-{base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()}"


def write_bundle_html(bundle: Bundle, reader: str, environment: str) -> bytes:
    """The report of a bundle as a file. Its last line names its hash, see `report.seal`."""
    report = make_post_mortem(bundle, reader, environment)
    parts = [
        _HEAD.format(hash=style_source(), title=on_one_line(report.title), style=_style()),
        _element("h1", report.title),
        _element("p", report.says),
    ]
    for section in report.sections:
        parts.append(Markup("<section>"))
        parts.append(_element("h2", section.title))
        for block in section.blocks:
            parts += _write(block)
        parts.append(Markup("</section>"))
    around = ("<p>SHA-256 of all lines above: <code>", "</code></p></main></body></html>")
    return seal("\n".join(parts), around)


def _write(block: Block) -> Iterator[Markup]:
    match block:
        case Text(says, "prompt"):
            yield Markup('<p class="prompt">To write: {}</p>').format(on_one_line(says))
        case Text(says, "quote"):
            yield _element("blockquote", says)
        case Text(says):
            yield _element("p", says)
        case Points(items, is_numbered):
            yield Markup("<ol>" if is_numbered else "<ul>")
            for item in items:
                lead = _element("strong", item.lead) if item.rest else on_one_line(item.lead)
                link = Markup(' <a href="{0}" rel="noreferrer">{0}</a>').format(item.url)
                yield Markup("<li>{} {}{}</li>").format(
                    lead, on_one_line(item.rest), link if item.url else ""
                )
            yield Markup("</ol>" if is_numbered else "</ul>")
        case Table():
            yield from _write_table(block)


def _write_table(table: Table) -> Iterator[Markup]:
    title = on_one_line(table.title)
    yield Markup('<div class="scroll" tabindex="0" role="group" aria-label="{}">').format(title)
    yield Markup("<table>\n<caption>{}</caption>\n<thead><tr>").format(title)
    for place, column in enumerate(table.columns):
        number = Markup(' class="n"') if place in table.numeric else ""
        yield Markup('<th scope="col"{}>{}</th>').format(number, on_one_line(column))
    yield Markup("</tr></thead>\n<tbody>")
    for row in table.rows:
        yield _row(row, table.numeric)
    yield Markup("</tbody>\n</table></div>")


def _row(row: Row, numeric: Sequence[int]) -> Markup:
    mark = Markup(' class="{}"').format(row.mark) if row.mark else ""
    cells = Markup("").join(
        Markup("<td{}>{}</td>").format(
            Markup(' class="n"') if place in numeric else "", on_one_line(cell)
        )
        for place, cell in enumerate(row.cells)
    )
    return Markup("<tr{}>{}</tr>").format(mark, cells)


def _element(name: str, text: str) -> Markup:
    return Markup("<{0}>{1}</{0}>").format(name, on_one_line(text))
