"""Describes outages of Postgres. The process of the loops reports them when Postgres is back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from ...core.words import moment, took
from ..finding import Detector, DetectorPass, Facts, Finding, Observation, Words

SUBJECT = "postgres"
# A shorter outage is a lost connection or a failover that nobody noticed.
SHORTEST = timedelta(seconds=5)


def find_outage(began_at: datetime, ended_at: datetime, why: str) -> Finding:
    """The finding that Postgres did not answer between these times."""
    outage = {"began_at": began_at.isoformat(), "ended_at": ended_at.isoformat(), "why": why}
    return Finding(
        subject=SUBJECT,
        since=began_at,
        facts=outage,
        evidence=(Observation("outage", "loops", outage),),
    )


def _answers(_facts: Facts) -> DetectorPass:
    """A pass that reads Postgres finds nothing: it answers."""
    return DetectorPass()


def _say(facts: Mapping[str, Any]) -> Words:
    began, ended = (datetime.fromisoformat(facts[name]) for name in ("began_at", "ended_at"))
    lasted = took((ended - began).total_seconds())
    return Words(
        title=f"Postgres did not answer for {lasted}",
        why=f"From {moment(began)} to {moment(ended)}: {facts['why']}. Workers held what they had; "
        f"nothing was "
        "enqueued.",
    )


DETECTOR = Detector(
    class_="postgres_away",
    title="Postgres away",
    severity="critical",
    found_when="Postgres did not answer the loops for more than five seconds; found when it is back",
    near_miss="one lost connection",
    say=_say,
    detect=_answers,
    found_by="loops",
    quiet_after=timedelta(seconds=60),
    hides=(
        "batch_overdue",
        "cron_missed",
        "lane_starving",
        "loop_failing",
        "loop_silent",
        "queue_unserved",
        "worker_missing",
    ),
)
