"""Exports the jobs of a filter as CSV or NDJSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

from flask import Response

from ...core.display import Display
from ...jobs.search import attempt_queries, further_queries, group_queries, hit_queries
from ...jobs.search.export_queries import ExportRow, batch_of_jobs, list_jobs_in_full
from ...jobs.search.filter import JobFilter
from ...jobs.search.hit_queries import Hits
from ...jobs.search.queries import find_in_state
from ..app import access, export, problems
from ..app.host import host, reading, stream
from . import list_request

_SIZE = 500
_PAYLOAD = ("ended_reason", "error", "args", "meta")
_COLUMNS = tuple(field.name for field in fields(ExportRow))


def csv() -> Response:
    """The jobs as CSV."""
    return stream(lambda: _answer("csv"))


def ndjson() -> Response:
    """The jobs as NDJSON, one JSON object per line."""
    return stream(lambda: _answer("ndjson"))


def _answer(kind: str) -> Response:
    asked = list_request.read_list_request()
    if asked.before is not None or asked.after is not None:
        raise problems.unreadable(
            "before and after: an export is the whole list, not a page of it."
        )
    may_see = access.may_see_payload()
    columns = [name for name in _COLUMNS if may_see or name not in _PAYLOAD]
    display = Display(host().display, may_see=may_see)
    wanted = asked.wanted
    if wanted.is_search:
        with reading() as read:
            found, _ = find_in_state(read.session, wanted, read.now, list_request.is_shown())
        rows, note = _batches_of(wanted, found), _tell(found)
    else:
        rows, note = _batches(wanted), ""
    batches = ([_row(row, columns, display) for row in batch] for batch in rows)
    return export.make_download(kind, "jobs", columns, batches, note)


def _batches(wanted: JobFilter) -> Iterator[Sequence[ExportRow]]:
    """Batches from the newest job down, each read in its own transaction.

    Jobs enqueued meanwhile have higher ids, so they are not part of the file.
    """
    before, now = None, None
    while True:
        with reading() as read:
            now = now or read.now
            batch = batch_of_jobs(read.session, wanted, now, before=before, size=_SIZE)
        if batch:
            yield batch
        if len(batch) < _SIZE:
            return
        before = batch[-1].id


def _batches_of(wanted: JobFilter, found: Hits) -> Iterator[Sequence[ExportRow]]:
    for at in range(0, len(found.jobs), _SIZE):
        with reading() as read:
            batch = list_jobs_in_full(read.session, wanted, found.ids[at : at + _SIZE])
        yield batch


def _tell(found: Hits) -> str:
    """A note that says which jobs a search did not look at."""
    if found.searched.stopped_at_hits:
        return (
            f"More jobs match: here are those among the newest {hit_queries.NEWEST_JOBS} jobs, "
            f"and others, {hit_queries.MOST_HITS} in all."
        )
    if found.searched.stopped_at_newest_hits:
        return f"More jobs match: here are the newest {hit_queries.MOST_HITS}."
    if found.searched.stopped_at_groups:
        return (
            f"Searched the newest {group_queries.MOST_GROUPS} workflows or batches, and of each the "
            f"newest {group_queries.MOST_JOBS} jobs of each state; {hit_queries.MOST_HITS} jobs in all."
        )
    if found.searched.stopped_at_attempts:
        return (
            f"Searched the newest {attempt_queries.MOST_ATTEMPTS} attempts of the failure, the death or the "
            "deploy."
        )
    if found.searched.stopped_at_newest:
        return (
            f"Searched at most {further_queries.MOST_NEWEST} jobs of its task, queue or state, the newest "
            "first."
        )
    if found.searched.stopped_at_newest_errors:
        return f"Searched the newest {further_queries.MOST_NEWEST} jobs with an error."
    if found.searched.stopped_at_last_ended:
        return f"Searched at most {further_queries.MOST_NEWEST} jobs, those that ended last in this time."
    if found.searched.stopped_at_errors:
        return f"Searched the newest {hit_queries.NEWEST_ERRORS} jobs with an error."
    return ""


def _row(row: ExportRow, columns: Sequence[str], display: Display) -> dict[str, Any]:
    """One job as it may be shown."""
    made = {name: getattr(row, name) for name in columns}
    made["tags"] = [display.clean(tag) for tag in row.tags]
    for name in ("ended_reason", "error"):
        if made.get(name) is not None:
            made[name] = display.clean(made[name])
    if "args" in made:
        declared = host().tasks.get(row.task)
        made["args"] = export.Json(display.plain(row.args, declared.redact if declared else ()))
        made["meta"] = export.Json(display.plain(row.meta))
    return made
