"""Counts what needs an operator, for the badges of the navigation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from ..core import sql
from ..core.round_trips import start_reading
from ..core.words import agree, counted
from ..lifeline.queries import count_active_incidents
from ..workflows.held_up import say_needs
from ..workflows.lifecycle import NEEDS
from ..workflows.queries import EXAMINED_WAITS, OVERDUE
from .queries import MOST_FAILED

_MOST_LANES = 500
# Of each kind: many signals may each be for many waits.
_MOST_RUNS = 100


@dataclass(frozen=True)
class Badge:
    """A number, the status word that sets its colour, and the words after the number.

    `short` is what the title of the tab says; only incidents are said there.
    """

    number: int
    status: str
    says: str
    short: str = ""


def find_badges(session: Session, now: datetime, late_seconds: float) -> Mapping[str, Badge]:
    """The badges as of `now`, by the endpoint of their navigation entry.

    An entry without problems has none.
    """
    params = {
        "most": MOST_FAILED,
        "most_lanes": _MOST_LANES,
        "most_runs": _MOST_RUNS,
        "now": now,
        "since": now - OVERDUE,
        "examined": EXAMINED_WAITS,
        "late_seconds": late_seconds,
    }
    counted_incidents = start_reading(session, count_active_incidents)
    found = session.connection().exec_driver_sql(sql.load("count_badges"), params).one()
    badges = {}
    if found.failed:
        more = "or more " if found.failed >= MOST_FAILED else ""
        badges["jobs"] = Badge(
            found.failed, "review", f"{more}{agree(found.failed, 'needs', 'need')} review"
        )
    if found.unserved or found.paused:
        badges["queues"] = _of_queues(found.unserved, found.paused)
    if found.paused_tasks:
        text = f"{agree(found.paused_tasks, 'task', 'tasks')} paused"
        badges["tasks"] = Badge(found.paused_tasks, "blocked", text)
    if found.missing:
        badges["workers"] = Badge(
            found.missing, "missing", f"{agree(found.missing, 'worker', 'workers')} missing"
        )
    if found.missed:
        badges["cron"] = Badge(
            found.missed, "missed", f"{agree(found.missed, 'slot', 'slots')} missed"
        )
    if found.cooling:
        text = f"{agree(found.cooling, 'limiter', 'limiters')} in cooldown"
        badges["limiters"] = Badge(found.cooling, "blocked", text)
    incidents = counted_incidents.value
    if incidents.unattended:
        badges["lifeline"] = _of_incidents(incidents.unattended, incidents.open["critical"])
    # `failed` counts jobs.
    columns = {why: "failed_runs" if why == "failed" else why for why in NEEDS}
    if needs := {why: number for why, name in columns.items() if (number := getattr(found, name))}:
        badges["workflows"] = _of_workflows(needs)
    return badges


def _of_incidents(number: int, critical: int) -> Badge:
    """Notices do not count, nor what somebody acknowledged or what follows from another incident."""
    says = f"{agree(number, 'incident needs', 'incidents need')} a person"
    if not critical:
        return Badge(number, "warned", says, counted(number, "incident"))
    short = f"{critical:,} critical"
    return Badge(number, "critical", f"{says}, {short}", short)


def _of_workflows(needs: Mapping[str, int]) -> Badge:
    """How many runs need a person, by the gravest reason of each."""
    number = sum(needs.values())
    parts = say_needs(Counter(needs).elements())
    status = "late" if [*needs] == ["overdue"] else "review"
    more = "or more " if max(needs.values()) >= _MOST_RUNS else ""
    return Badge(
        number, status, f"{more}{agree(number, 'run needs', 'runs need')} a person: {parts}"
    )


def _of_queues(unserved: int, paused: int) -> Badge:
    parts = []
    if unserved:
        parts.append(f"{agree(unserved, 'queue', 'queues')} without a worker")
    if paused:
        parts.append(f"{agree(paused, 'queue', 'queues')} paused with due jobs")
    text = (
        parts[0]
        if len(parts) == 1
        else f"queues: {unserved} without a worker, {paused} paused with due jobs"
    )
    return Badge(unserved + paused, "blocked", text)
