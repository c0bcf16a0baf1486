"""Reads what needs an operator: failures to review, limited jobs and cooldowns; and the last decisions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from ..core import sql
from ..jobs.rows import CAP, Count
from ..limits import bucket, stored_buckets
from ..limits.models import Bucket, Limiter

_MOST_FAILED = 2_000
_MOST_EVENTS = 500
_GROUPS = 3
_MOST_BUCKETS = 500
_MOST_COOLING = 50


@dataclass(frozen=True)
class FailureGroup:
    """Failures of one task with the same error.

    `error` is its first words (payload); `job_id` is the last job.
    """

    task: str
    ended_by: str
    error: str | None
    number: int
    since: datetime
    job_id: int


@dataclass(frozen=True)
class Failures:
    """How many failed jobs wait for a decision, and the largest groups of them."""

    count: Count
    groups: Sequence[FailureGroup]


@dataclass(frozen=True)
class RecentAction:
    """A decision about jobs that was executed, and the number of its jobs."""

    sequence: int
    at: datetime
    actor: str
    action: str
    number: int


@dataclass(frozen=True)
class Resolved:
    """The decisions about jobs since a moment: the number of jobs by action, and the largest decisions."""

    count: Count
    by_action: Mapping[str, int]
    actions: Sequence[RecentAction]


def find_failures(session: Session) -> Failures:
    """The failed jobs that wait for a decision.

    With more than 2,000 failed jobs the count is a lower bound.
    """
    params = {"most": _MOST_FAILED, "groups": _GROUPS}
    rows = session.connection().exec_driver_sql(sql.load("sample_failures"), params).all()
    if not rows:
        return Failures(Count(0), [])
    kind = "at_least" if rows[0].looked >= _MOST_FAILED else "exact"
    return Failures(Count(rows[0].total, kind), [FailureGroup(*row[:6]) for row in rows])


def find_resolved(session: Session, since: datetime) -> Resolved:
    """The decisions about jobs since `since`, among the last 500 decisions of any kind."""
    params = {"since": since, "most": _MOST_EVENTS}
    rows = session.connection().exec_driver_sql(sql.load("list_recent_actions"), params).all()
    actions = [RecentAction(*row[:5]) for row in rows]
    by_action = Counter[str]()
    for action in actions:
        by_action[action.action] += action.number
    is_cut = bool(rows) and rows[0].is_cut
    count = Count(by_action.total(), "at_least" if is_cut else "exact")
    actions.sort(key=lambda action: (-action.number, -action.sequence))
    return Resolved(count, by_action, actions[:_GROUPS])


@dataclass(frozen=True)
class Held:
    """Due jobs of one queue that a limiter does not let start now, in one or more of its partitions.

    `since` is when the first of them was due. `is_cooling`: a cooldown is the reason; else its places or
    tokens are used up.
    """

    limiter: str
    queue: str
    number: int
    since: datetime
    is_cooling: bool


@dataclass(frozen=True)
class CooldownSummary:
    """An operator's cooldown of a limiter, or of `partitions` of its partitions for the same reason."""

    limiter: str
    until: datetime
    since: datetime
    by: str
    reason: str | None
    partitions: int = 0


def find_held(session: Session, now: datetime) -> tuple[Sequence[Held], bool]:
    """The due jobs that limiters hold back, and whether these are all: only the oldest jobs are looked at."""
    params = {"most": CAP + 1, "buckets": _MOST_BUCKETS}
    rows = session.connection().exec_driver_sql(sql.load("sample_limited_jobs"), params).all()
    if not rows:
        return [], True
    keys = [(row.limiter, row.partition) for row in rows]
    found: dict[tuple[str, str, bool], Held] = {}
    buckets = stored_buckets.list_buckets_of(session.connection(), keys)
    for row, seen in zip(rows, buckets, strict=True):
        # Jobs of an undeclared limiter are not dispatched.
        room = 0 if seen.shape is None else bucket.room(seen.shape, seen.standing, now)
        if room is None or room >= row.weight:
            continue
        number = row.number - int(row.number * room / row.weight)
        until = seen.standing.cooldown_until
        key = (row.limiter, row.queue, until is not None and until > now)
        before = found.get(key)
        since = row.since if before is None else min(before.since, row.since)
        found[key] = Held(
            row.limiter, row.queue, number + (before.number if before else 0), since, key[2]
        )
    is_all = sum(row.number for row in rows) == rows[0].total <= CAP
    return list(found.values()), is_all


def list_cooldowns(session: Session, now: datetime) -> Sequence[CooldownSummary]:
    """The current cooldowns: of limiters, then of partitions, longest first; at most 50 of each kind."""
    of_all = (
        select(Limiter.name, *_decided(Limiter))
        .where(Limiter.cooldown_until > now)
        .order_by(Limiter.cooldown_until.desc())
    )
    of_some = (
        select(Bucket.limiter, *_decided(Bucket))
        .where(Bucket.cooldown_until > now)
        .order_by(Bucket.cooldown_until.desc())
    )
    found = [CooldownSummary(*row) for row in session.execute(of_all.limit(_MOST_COOLING))]
    partitions = Counter(
        CooldownSummary(*row) for row in session.execute(of_some.limit(_MOST_COOLING))
    )
    return [*found, *(replace(one, partitions=number) for one, number in partitions.items())]


def _decided(table: type[Limiter] | type[Bucket]) -> tuple[Any, ...]:
    return table.cooldown_until, table.cooldown_at, table.cooldown_by, table.cooldown_reason


def count_orphans(session: Session) -> int:
    """How many started jobs have lost their worker and are not rescued yet (stuck jobs)."""
    rows = session.connection().exec_driver_sql(sql.load("list_orphans")).all()
    return sum(row.jobs for row in rows)
