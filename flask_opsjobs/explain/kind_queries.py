"""Reads the kinds of jobs that wait: jobs of which all that decides whether they run is the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy.orm import Session

from ..core import sql
from ..limits import bucket
from ..settings import Settings
from .evidence import Evidence
from .queries import MOST_AHEAD, count_ahead, job_of, list_evidence_of_jobs, with_ahead
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
    found = list_evidence_of_jobs(session, [kind.evidence.job for kind in kinds], now, settings)
    kinds = [replace(kind, evidence=each) for kind, each in zip(kinds, found, strict=True)]
    return _split_by_ahead(session, kinds)


def _split_by_ahead(session: Session, kinds: Sequence[WaitingKind]) -> list[WaitingKind]:
    """The kinds, those at a limiter split by what is ahead of their jobs.

    Only so many jobs are counted in a lane as have room: all others are behind them.
    """
    asked = [kind for kind in kinds if _has_turn(kind.evidence)]
    if not asked:
        return list(kinds)
    lanes = {kind.evidence.job.lane: _front(kind.evidence) for kind in asked}
    ahead = count_ahead(session, lanes, [job_id for kind in asked for job_id in kind.ids])
    return [part for kind in kinds for part in _parts_by_ahead(kind, ahead)]


def _has_turn(evidence: Evidence) -> bool:
    """Whether the jobs before it in its lane decide whether it starts."""
    is_due = evidence.is_due and evidence.job.state != "queued"
    return is_due and evidence.limit is not None and evidence.limit.shape is not None


def _front(evidence: Evidence) -> tuple[str | None, int]:
    limit = evidence.limit
    assert limit is not None
    assert limit.shape is not None
    room = bucket.room(limit.shape, limit.level, evidence.now) or 0
    return limit.name, min(max(int(room), 0) + 1, MOST_AHEAD)


def _parts_by_ahead(
    kind: WaitingKind, ahead: Mapping[int, tuple[int, int]]
) -> Iterator[WaitingKind]:
    if not _has_turn(kind.evidence):
        yield kind
        return
    parts: dict[tuple[int, int], list[int]] = {}
    for job_id in kind.ids:
        parts.setdefault(ahead[job_id], []).append(job_id)
    for (number, weight), ids in parts.items():
        yield kind.only(ids, with_ahead(kind.evidence, number, weight))
