"""Reads the kinds of jobs that wait: jobs of which all that decides whether they run is the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy.orm import Session

from ..core import sql
from ..core.round_trips import start_reading
from ..limits import bucket
from ..settings import Settings
from .evidence import Evidence
from .queries import count_ahead, job_of, list_evidence_of_jobs, with_ahead
from .waiting import WaitingKind


def list_kinds(
    session: Session, ids: Sequence[int], now: datetime, settings: Settings
) -> list[WaitingKind]:
    """The kinds of these jobs, without those that do not wait any more. Only columns of the jobs are read."""
    if not ids:
        return []
    params = {"ids": list(ids), "now": now}
    rows = session.connection().exec_driver_sql(sql.load("group_waiting_jobs"), params)
    return [
        WaitingKind(
            Evidence(now, settings, job_of(row)),
            row.ids,
            row.dispatch_nos,
            ((row.first_due, row.first_deadline), (row.last_due, row.last_deadline)),
        )
        for row in rows
    ]


def add_evidence(
    session: Session, kinds: Sequence[WaitingKind], now: datetime, settings: Settings
) -> list[WaitingKind]:
    """These kinds with all evidence that is in Postgres. What Redis knows is not read."""
    at_limiters = [kind for kind in kinds if _may_have_turn(kind.evidence)]
    lanes = {kind.evidence.job.lane: (kind.evidence.job.limiter, None) for kind in at_limiters}
    ids = [job_id for kind in at_limiters for job_id in kind.ids]
    counting = start_reading(session, count_ahead, lanes, ids) if ids else None
    found = list_evidence_of_jobs(session, [kind.evidence.job for kind in kinds], now, settings)
    ahead = counting.value if counting else {}
    return [
        part
        for kind, evidence in zip(kinds, found, strict=True)
        for part in _parts_by_ahead(replace(kind, evidence=evidence), ahead)
    ]


def _may_have_turn(evidence: Evidence) -> bool:
    """Whether the jobs before it in its lane may decide whether it starts."""
    return evidence.is_due and evidence.job.state != "queued" and evidence.job.limiter is not None


def _parts_by_ahead(
    kind: WaitingKind, ahead: Mapping[int, tuple[int, int]]
) -> Iterator[WaitingKind]:
    """The kind, split by what is ahead of its jobs at a limiter. Jobs behind all room are one part."""
    limit = kind.evidence.limit
    if not _may_have_turn(kind.evidence) or limit is None or limit.shape is None:
        yield kind
        return
    room = bucket.room(limit.shape, limit.level, kind.evidence.now) or 0
    front = max(int(room), 0) + 1
    parts: dict[int, list[int]] = {}
    for job_id in kind.ids:
        parts.setdefault(min(ahead[job_id][0], front), []).append(job_id)
    for ids in parts.values():
        # Whoever is behind as many as have room is behind their weight too.
        yield kind.only(ids, with_ahead(kind.evidence, *min(ahead[job_id] for job_id in ids)))
