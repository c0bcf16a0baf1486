"""Writes what looks at RQ saw of plain jobs: a row for each, and never an older look over a newer one."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import psycopg
from psycopg.rows import dict_row

from ...core import sql
from ...core.db import Connection, say_without_values
from .merge import AdoptedJob, AdoptedRun, Merged, Moment, came_back, merge
from .seen import SeenJob, SeenRun

_log = logging.getLogger("flask_opsjobs.lifeline")
# RQ is asked within this time after a job was deleted here. What it still has later was not deleted there.
_ASKED_WITHIN = timedelta(seconds=60)


class OpenJob(NamedTuple):
    """An adopted job that has not ended."""

    id: int
    rq_id: str
    queue: str
    task: str


@dataclass
class Written:
    """How many jobs a pass adopted, changed, and lost sight of; ids of jobs that must be read again whole.

    `refused` are jobs that Postgres cannot store. `again` are the ids of ended jobs that RQ has as they were
    before they ran.
    """

    adopted: int = 0
    changed: int = 0
    unseen: int = 0
    overtaken: list[str] = field(default_factory=list)
    refused: int = 0
    again: list[int] = field(default_factory=list)


def write_look(
    connection: Connection,
    place: str,
    seen: Sequence[SeenJob],
    gone: Collection[str],
    moment: Moment,
) -> Written:
    """Write jobs as they were seen, and end those as `unknown` whose records are gone.

    Commits. A job that Postgres cannot store is left out and logged. Locks the jobs in id order. Raises what
    Postgres raises when it is away.
    """
    try:
        return _write(connection, place, seen, gone, moment)
    except (psycopg.DataError, psycopg.IntegrityError):
        pass
    # One job spoils the others: write each alone.
    total = Written()
    for job in seen:
        try:
            one = _write(connection, place, [job], (), moment)
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            _log.error("plain job %s of %s: %s", job.rq_id, place, say_without_values(error))
            one = Written(refused=1)
        total.adopted += one.adopted
        total.changed += one.changed
        total.unseen += one.unseen
        total.overtaken += one.overtaken
        total.refused += one.refused
        total.again += one.again
    total.unseen += _write(connection, place, (), gone, moment).unseen
    return total


def _write(
    connection: Connection,
    place: str,
    seen: Sequence[SeenJob],
    gone: Collection[str],
    moment: Moment,
) -> Written:
    written = Written()
    with connection.transaction():
        current, former = _lock(connection, place, seen, gone)
        new = [job for job in seen if job.rq_id not in current]
        deleted = _list_deleted(connection, place, moment) if new else frozenset()
        merged: list[tuple[SeenJob, AdoptedJob | None, Merged]] = []
        for job in seen:
            stored = current.get(job.rq_id)
            if stored is not None and stored.changed_at > moment.looked_at:
                written.overtaken.append(job.rq_id)
                continue
            if stored is None and (job.arguments is None or (job.rq_id, job.created_at) in deleted):
                written.overtaken.append(job.rq_id)  # somebody has deleted its row
                continue
            merged.append((job, stored, merge(job, stored, moment)))
            if stored is not None and came_back(job, stored):
                written.again.append(stored.id)
        ids = _insert(connection, place, [each for each in merged if each[1] is None], moment)
        written.adopted = len(ids)
        changed = [(s, m) for _, s, m in merged if s is not None and _is_changed(s, m)]
        written.changed = _update(connection, changed, moment)
        _write_views(connection, [(job, s.id if s else ids.get(job.rq_id)) for job, s, _ in merged])
        _write_runs(connection, [(m, s.id if s else ids.get(job.rq_id)) for job, s, m in merged])
        written.unseen = _end_vanished(connection, former, moment)
    return written


def _lock(
    connection: Connection, place: str, seen: Sequence[SeenJob], gone: Collection[str]
) -> tuple[dict[str, AdoptedJob], list[int]]:
    """Lock the rows of these jobs: by RQ id that of the job of now, and the ids of open older ones."""
    created = {job.rq_id: job.created_at for job in seen}
    rq_ids = [*created, *gone]
    parameters = {
        "place": place,
        "rq_ids": rq_ids,
        "created_ats": [created.get(rq_id) for rq_id in rq_ids],
    }
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(sql.load("lock_adopted_jobs"), parameters).fetchall()
    runs = _list_runs(connection, [row["id"] for row in rows])
    current, former = {}, []
    for row in rows:
        rq_id = row["rq_id"]
        if rq_id in created and row["rq_created_at"] == created[rq_id]:
            current[rq_id] = AdoptedJob(
                row["id"], row["state"], row, row["changed_at"], runs.get(row["id"], ())
            )
        elif row["ended_at"] is None:
            former.append(row["id"])
    return current, former


def _list_deleted(
    connection: Connection, place: str, moment: Moment
) -> Collection[tuple[str, datetime | None]]:
    """The jobs, by RQ id and creation, that an operator has deleted since RQ was read, or shortly before.

    Of those the look has seen what RQ was not yet asked to delete.
    """
    parameters = {"place": place, "since": moment.looked_at - _ASKED_WITHIN}
    rows = connection.execute(sql.load("list_deleted_adopted_jobs"), parameters)
    return {(rq_id, created_at) for rq_id, created_at in rows}


def _list_runs(connection: Connection, ids: Sequence[int]) -> Mapping[int, Sequence[AdoptedRun]]:
    found: dict[int, list[AdoptedRun]] = defaultdict(list)
    if ids:
        for job_id, *run in connection.execute(
            sql.load("list_runs_of_adopted_jobs"), {"ids": list(ids)}
        ):
            found[job_id].append(AdoptedRun(*run))
    return found


def _is_changed(stored: AdoptedJob, merged: Merged) -> bool:
    return any(stored.values[name] != value for name, value in merged.values.items())


def _insert(
    connection: Connection,
    place: str,
    new: Sequence[tuple[SeenJob, AdoptedJob | None, Merged]],
    moment: Moment,
) -> dict[str, int]:
    """Insert rows; return their ids by RQ id. What another copy of the loop has inserted is left to it."""
    if not new:
        return {}
    rows = [
        merged.values | {"rq_id": job.rq_id, "rq_created_at": job.created_at}
        for job, _, merged in new
    ]
    parameters = {"place": place, "rows": _to_json(rows), "looked_at": moment.looked_at}
    found = connection.execute(sql.load("insert_adopted_jobs"), parameters).fetchall()
    return {rq_id: id for id, rq_id in found}


def _update(
    connection: Connection, changed: Sequence[tuple[AdoptedJob, Merged]], moment: Moment
) -> int:
    if changed:
        rows = [merged.values | {"id": stored.id} for stored, merged in changed]
        parameters = {"rows": _to_json(rows), "looked_at": moment.looked_at}
        connection.execute(sql.load("observe_jobs"), parameters)
    return len(changed)


def _write_views(connection: Connection, jobs: Sequence[tuple[SeenJob, int | None]]) -> None:
    views = [
        {"id": id, "function": job.function, "arguments": job.arguments, "result": job.result}
        for job, id in jobs
        if id is not None and (job.arguments is not None or job.result is not None)
    ]
    if views:
        connection.execute(sql.load("write_rq_views"), {"rows": _to_json(views)})


def _write_runs(connection: Connection, jobs: Sequence[tuple[Merged, int | None]]) -> None:
    rows = [
        _run(id, number, run)
        for merged, id in jobs
        if id is not None
        for number, run in merged.runs
    ]
    if rows:
        connection.execute(sql.load("write_runs_of_adopted_jobs"), {"rows": _to_json(rows)})


def _run(job_id: int, number: int, run: SeenRun) -> dict[str, Any]:
    return {
        "job_id": job_id,
        "number": number,
        "execution_id": run.key,
        "worker": run.worker,
        "started_at": run.started_at or run.ended_at,
        "ended_at": run.ended_at,
        "outcome": run.outcome,
        "error": run.error,
        "traceback": run.traceback,
        "death_facts": {"ended_after": run.ended_after} if run.ended_after else None,
    }


def _end_vanished(connection: Connection, ids: Sequence[int], moment: Moment) -> int:
    if not ids:
        return 0
    parameters = {
        "ids": list(ids),
        "looked_at": moment.looked_at,
        "now": moment.now,
        "before": moment.before,
    }
    return connection.execute(sql.load("end_vanished_jobs"), parameters).rowcount


def _to_json(rows: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps(rows, default=_as_text)


def _as_text(value: datetime) -> str:
    return value.isoformat()


def list_open(connection: Connection, place: str, after: int, limit: int) -> list[OpenJob]:
    """Return jobs of one Redis that have not ended, after an id."""
    parameters = {"place": place, "after": after, "limit": limit}
    rows = connection.execute(sql.load("list_open_adopted_jobs"), parameters)
    return [OpenJob(*row) for row in rows]


def find_look_before(connection: Connection, place: str) -> datetime | None:
    """Return since when every structure of this Redis was read; None before the first look."""
    row = connection.execute(sql.load("find_rq_place"), {"place": place}).fetchone()
    return row[0] if row else None


def note_look(
    connection: Connection, place: str, looked_at: datetime, walked_at: datetime | None
) -> None:
    """Note that every structure was read at `looked_at` or later, and what was found is written. Commits."""
    parameters = {"place": place, "looked_at": looked_at, "walked_at": walked_at}
    connection.execute(sql.load("note_look_at_rq"), parameters)
