"""What needs somebody and what was done about it: failures without a decision, and the last decisions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from .. import sql
from ..jobs.rows import Count

_MOST_FAILED = 2_000
_MOST_EVENTS = 500
_GROUPS = 3


@dataclass(frozen=True)
class Alike:
    """Failures of one worker that ended alike. `error` is payload, its first words; `job_id` is the last one."""

    worker: str
    ended_by: str
    error: str | None
    number: int
    since: datetime
    job_id: int


@dataclass(frozen=True)
class Failures:
    """How many jobs failed without a decision since, and the widest groups of them."""

    count: Count
    groups: Sequence[Alike]


@dataclass(frozen=True)
class Act:
    """A decision that was carried out: on how many targets, by whom."""

    sequence: int
    at: datetime
    actor: str
    action: str
    number: int


@dataclass(frozen=True)
class Resolved:
    """What was decided about jobs since a moment: how many by action, and the widest of the decisions."""

    count: Count
    by_action: Mapping[str, int]
    acts: Sequence[Act]


def find_failures(session: Session) -> Failures:
    """The failed jobs that wait for a decision; of more than 2,000 at least."""
    asked = {"most": _MOST_FAILED, "groups": _GROUPS}
    rows = session.connection().exec_driver_sql(sql.load("sample_failures"), asked).all()
    if not rows:
        return Failures(Count(0), [])
    kind = "at_least" if rows[0].looked >= _MOST_FAILED else "exact"
    return Failures(Count(rows[0].total, kind), [Alike(*row[:6]) for row in rows])


def find_resolved(session: Session, since: datetime) -> Resolved:
    """The decisions about jobs since then, among the last 500 of all decisions."""
    asked = {"since": since, "most": _MOST_EVENTS}
    rows = session.connection().exec_driver_sql(sql.load("list_recent_acts"), asked).all()
    acts = [Act(*row[:5]) for row in rows]
    by_action = Counter[str]()
    for act in acts:
        by_action[act.action] += act.number
    is_cut = bool(rows) and rows[0].is_cut
    count = Count(by_action.total(), "at_least" if is_cut else "exact")
    acts.sort(key=lambda act: (-act.number, -act.sequence))
    return Resolved(count, by_action, acts[:_GROUPS])
