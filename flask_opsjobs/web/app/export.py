"""Streams rows as CSV or NDJSON. The last line of a file says whether it is complete."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from flask import Response, current_app
from flask.ctx import AppContext

from ...core.visible_text import SHAPELESS
from .problems import Problem

_log = logging.getLogger("flask_opsjobs")

Row = Mapping[str, Any]
# The places where a spreadsheet would read a formula: =, +, - or @, also full-width, at the start of a
# cell, after invisible characters there, and after a character that separates cells in other CSV dialects.
_FORMULA = re.compile(rf"(?:\A|(?<=[;\t\r\n]))(?=[{SHAPELESS}\"']*[=+\-@\uff1d\uff0b\uff0d\uff20])")


class Json(str):
    """A cell whose text is JSON already."""


def make_download(
    kind: str, name: str, columns: Sequence[str], batches: Iterable[Sequence[Row]], note: str = ""
) -> Response:
    """The rows as a file called `name`; `kind` is csv or ndjson, `note` says which rows are left out, if any.

    The first batch is read before the response begins, so that its error becomes a problem page. An error
    of a later batch becomes the last line of the file.
    """
    rest = iter(batches)
    first = next(rest, ())
    write, mimetype = _KINDS[kind]
    lines = write(columns, chain([first], _within(current_app.app_context, rest)), note)
    file = f"opsjobs-{name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.{kind}"
    headers = {"Content-Disposition": f'attachment; filename="{file}"'}
    return Response(lines, mimetype=mimetype, headers=headers)


def _within(
    context: Callable[[], AppContext], batches: Iterator[Sequence[Row]]
) -> Iterator[Sequence[Row]]:
    """The batches, each read in an app context of its own: the request's context has ended by then."""
    while True:
        with context():
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def _csv(columns: Sequence[str], batches: Iterator[Sequence[Row]], note: str) -> Iterator[str]:
    def line(cells: Iterable[str]) -> str:
        written = io.StringIO()
        csv.writer(written).writerow(cells)
        return written.getvalue()

    def last(count: int, why: str) -> str:
        return line(
            [f"# {'incomplete' if why else 'complete'}: {count} rows. {why or note}".strip()]
        )

    yield line(columns)
    yield from _all(batches, lambda row: line(_cell(row[name]) for name in columns), last)


def _ndjson(columns: Sequence[str], batches: Iterator[Sequence[Row]], note: str) -> Iterator[str]:
    def line(row: Row) -> str:
        pairs = (f"{json.dumps(name)}: {_json(row[name])}" for name in columns)
        return f"{{{', '.join(pairs)}}}\n"

    def last(count: int, why: str) -> str:
        found = {"rows": count, "is_complete": not why, "note": why or note or None}
        return json.dumps({"opsjobs_export": found}) + "\n"

    yield from _all(batches, line, last)


def _all(
    batches: Iterator[Sequence[Row]],
    line: Callable[[Row], str],
    last: Callable[[int, str], str],
) -> Iterator[str]:
    """The lines of all rows, one piece per batch, then the line that says whether the file is complete."""
    count = 0
    try:
        for batch in batches:
            yield "".join(map(line, batch))
            count += len(batch)
    except Problem as problem:
        yield last(count, f"Stopped: {problem.says}")
    except Exception:
        _log.exception("an export broke off after %s rows", count)
        yield last(count, "Stopped by an error; the application's log has it.")
    else:
        yield last(count, "")


def _cell(value: Any) -> str:
    """A value as a CSV cell. A text that a spreadsheet would run as a formula is marked as text."""
    if isinstance(value, str):
        marked = _FORMULA.sub("'", value)
        is_plain = marked == value and not value.startswith(("\t", "\r", "\n"))
        return marked if is_plain or marked.startswith("'") else f"'{marked}"
    if isinstance(value, datetime):
        return _moment(value)
    if isinstance(value, list | tuple):
        return _cell(" ".join(map(str, value)))
    return "" if value is None else str(value)


def _json(value: Any) -> str:
    if isinstance(value, Json):
        return value
    return json.dumps(value, ensure_ascii=False, default=_moment)


def _moment(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_KINDS = {"csv": (_csv, "text/csv"), "ndjson": (_ndjson, "application/x-ndjson")}
