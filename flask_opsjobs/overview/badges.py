"""The numbers beside the entries of the navigation: what needs somebody, in one query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from .. import sql

_MOST_FAILED = 1_000
_MOST_LANES = 500


@dataclass(frozen=True)
class Badge:
    """A number, the status word that colours it, and the words that follow the number."""

    number: int
    status: str
    says: str


def find_badges(session: Session, now: datetime, late_seconds: float) -> Mapping[str, Badge]:
    """The badges as of `now`, by the endpoint of their entry; an entry that needs nobody has none."""
    asked = {
        "most": _MOST_FAILED,
        "most_lanes": _MOST_LANES,
        "now": now,
        "late_seconds": late_seconds,
    }
    found = session.connection().exec_driver_sql(sql.load("count_badges"), asked).one()
    badges = {}
    if found.failed:
        more = "or more " if found.failed >= _MOST_FAILED else ""
        badges["jobs"] = Badge(found.failed, "review", f"{more}{_verb(found.failed)} review")
    if found.unserved or found.paused:
        badges["queues"] = _of_queues(found.unserved, found.paused)
    if found.missing:
        badges["workers"] = Badge(
            found.missing, "missing", f"{_noun('worker', found.missing)} missing"
        )
    if found.missed:
        badges["cron"] = Badge(found.missed, "missed", f"{_noun('slot', found.missed)} missed")
    if found.cooling:
        words = f"{_noun('limiter', found.cooling)} in cooldown"
        badges["limiters"] = Badge(found.cooling, "blocked", words)
    return badges


def _of_queues(unserved: int, paused: int) -> Badge:
    said = []
    if unserved:
        said.append(f"{_noun('queue', unserved)} without a worker")
    if paused:
        said.append(f"{_noun('queue', paused)} paused with due jobs")
    words = (
        said[0]
        if len(said) == 1
        else f"queues: {unserved} without a worker, {paused} paused with due jobs"
    )
    return Badge(unserved + paused, "blocked", words)


def _noun(thing: str, number: int) -> str:
    return thing if number == 1 else thing + "s"


def _verb(number: int) -> str:
    return "needs" if number == 1 else "need"
