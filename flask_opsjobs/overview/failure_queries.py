"""Reads the failures of the overview: the worst ones, and how often each failed in the hours of a day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from ..core import sql
from ..core.round_trips import start_reading
from ..failures.models import FailureHour
from ..failures.queries import DeployMark, floor, list_marks
from ..jobs.rows import Count

MOST_FAILURES = 5
HOURS = 24
_HOUR = timedelta(hours=1)
# Of each state so many are ranked: those that failed last.
_EXAMINED = 200
# A failure is new, or back, for so long.
_FRESH = _HOUR


@dataclass(frozen=True)
class FailureSummary:
    """A failure that is open or ignored. `title` is its error, as far as it is the same in all attempts.

    `number` counts attempts, `jobs` the jobs that ended by them. `first_in` and `regressed_in` are versions
    of deploys. `is_fresh`: it is new or back within the hour, and jobs failed by it. `has_incident`: an
    incident is or was about it. `hours` are attempts by hour, the last one is the current hour.
    """

    id: int
    task: str
    type: str | None
    title: str
    state: str
    number: int
    jobs: int
    first_at: datetime
    last_at: datetime
    regressed_at: datetime | None
    ignored_until: datetime | None
    is_fresh: bool
    first_in: str | None
    regressed_in: str | None
    has_incident: bool
    hours: Sequence[int] = ()

    @property
    def is_regressed(self) -> bool:
        """Whether it is open because it failed again after it was resolved."""
        return self.state == "open" and self.regressed_at is not None

    @property
    def name(self) -> str:
        """The type of its exception; its title when none was raised."""
        return self.type.rpartition(".")[2] if self.type else self.title


@dataclass(frozen=True)
class Failures:
    """The worst failures, and how many are open by which jobs failed. Their hours begin at `since`.

    `deploys` are those in these hours; none without failures.
    """

    worst: Sequence[FailureSummary]
    open: Count
    since: datetime
    deploys: Sequence[DeployMark] = ()

    @property
    def to_review(self) -> Sequence[FailureSummary]:
        """The open ones by which jobs failed."""
        return [each for each in self.worst if each.state == "open" and each.jobs]


def find_failures(session: Session, now: datetime) -> Failures:
    """The five worst failures: open before ignored, what is new or back first, then by failed jobs.

    Of each state the 200 that failed last are ranked. With so many open ones their number is a lower bound.
    """
    params = {"most": MOST_FAILURES, "examined": _EXAMINED, "fresh_since": now - _FRESH}
    rows = session.connection().exec_driver_sql(sql.load("list_worst_failures"), params).all()
    since = floor(now, _HOUR) - (HOURS - 1) * _HOUR
    if not rows:
        return Failures([], Count(0), since)
    many = rows[0].many
    found = [FailureSummary(*row[:-1]) for row in rows]
    marks = start_reading(session, list_marks, since)
    hours = list_hours_of_failures(session, [each.id for each in found], since)
    worst = [replace(each, hours=hours[each.id]) for each in found]
    number = Count(many, "at_least" if many >= _EXAMINED else "exact")
    return Failures(worst, number, since, marks.value)


def list_hours_of_failures(
    session: Session, failures: Sequence[int], since: datetime
) -> Mapping[int, Sequence[int]]:
    """The attempts of each failure by hour."""
    found = {id: [0] * HOURS for id in failures}
    chosen = select(FailureHour.failure_id, FailureHour.hour, FailureHour.number).where(
        FailureHour.failure_id.in_(failures),
        FailureHour.hour.between(since, since + (HOURS - 1) * _HOUR),
    )
    for id, at, number in session.execute(chosen):
        found[id][(at - since) // _HOUR] = number
    return found
