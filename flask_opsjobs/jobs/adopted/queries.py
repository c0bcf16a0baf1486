"""Reads what only adopted jobs have, for pages and exports: RQ's facts, and the texts of their payloads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from ..models import Job
from .models import RqFacts, StoredView


@dataclass(frozen=True)
class AdoptedRow:
    """RQ's facts about one adopted job, and its payload as text. `…_after`: the begin of an interval."""

    rq_place: str
    rq_id: str
    rq_status: str
    structure: str | None
    depends_on: Sequence[str]
    allows_failure: bool
    group_id: str | None
    cron: str | None
    repeats_left: int | None
    retries_left: int | None
    rate_limit_key: str | None
    ttl_seconds: int | None
    created_source: str
    dispatched_source: str | None
    started_source: str | None
    ended_source: str | None
    created_after: datetime | None
    dispatched_after: datetime | None
    started_after: datetime | None
    ended_after: datetime | None
    arguments: str | None
    result: str | None


_OF_JOB = ("rq_place", "rq_id", "rq_status")
_OF_VIEW = ("arguments", "result")
_COLUMNS: tuple[Any, ...] = tuple(
    getattr(Job if name in _OF_JOB else StoredView if name in _OF_VIEW else RqFacts, name)
    for name in AdoptedRow.__annotations__
)


def find_adopted(session: Session, job_id: int) -> AdoptedRow | None:
    """What RQ said of this job; None when it is a managed one."""
    found = (
        select(*_COLUMNS)
        .join(RqFacts, RqFacts.job_id == Job.id)
        .outerjoin(StoredView, StoredView.job_id == Job.id)
        .where(Job.id == job_id)
    )
    row = session.execute(found).one_or_none()
    return None if row is None else AdoptedRow(*row)


def find_jobs_in_rq(
    session: Session, place: str, rq_ids: Sequence[str], deliveries: Mapping[str, int]
) -> dict[str, int]:
    """The ids of the jobs that RQ has under these ids at a place: those of managed and of adopted jobs.

    `deliveries` are the ids of managed jobs, by the RQ id of their delivery. When RQ has used an id again,
    the newest row counts.
    """
    if not rq_ids:
        return {}
    stored = set(session.scalars(select(Job.id).where(Job.id.in_(deliveries.values()))))
    adopted = (
        select(Job.rq_id, Job.id)
        .where(Job.origin == "rq", Job.rq_place == place, Job.rq_id.in_(rq_ids))
        .order_by(Job.id)
    )
    return {
        **{rq_id: id for rq_id, id in deliveries.items() if id in stored},
        **{str(rq_id): id for rq_id, id in session.execute(adopted)},
    }


def list_arguments(session: Session, ids: Sequence[int]) -> dict[int, str]:
    """The arguments of adopted jobs as JSON texts, by job. One whose payload was not read is left out."""
    if not ids:
        return {}
    found = select(StoredView.job_id, StoredView.arguments).where(StoredView.job_id.in_(ids))
    return {id: text for id, text in session.execute(found) if text is not None}
