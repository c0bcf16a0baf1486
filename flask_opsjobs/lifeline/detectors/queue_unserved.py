"""Finds queues with due jobs to which no live worker listens."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from ...core.words import agree, counted
from ..finding import Detector, DetectorPass, Facts, Finding, Observation, Words


def _detect(facts: Facts) -> DetectorPass:
    seconds = facts.settings.late_seconds
    return facts.look("detect_unserved_queues", _finding, late_seconds=seconds)


def _finding(row: Mapping[str, Any]) -> Finding:
    due = row["due_at"].isoformat()
    return Finding(
        subject=f"queue/{row['queue']}",
        affected=row["number"],
        facts={"queue": row["queue"], "number": row["number"], "due_at": due},
        evidence=(Observation("first_due", "detect", {"at": due}),),
    )


def _say(facts: Mapping[str, Any]) -> Words:
    more = "+" if facts["number"] >= 1000 else ""
    jobs = counted(facts["number"], "job", more=more)
    return Words(
        title=f"Nobody serves the queue {facts['queue']}",
        why=f"{jobs} {agree(facts['number'], 'is', 'are')} due, and no live worker listens to the queue.",
        next_step=f"Start a worker: `flask opsjobs worker {facts['queue']}`.",
    )


DETECTOR = Detector(
    class_="queue_unserved",
    title="Queues that nobody serves",
    severity="critical",
    found_when="jobs of a queue have been due for 30 s, and no live worker listens to it",
    near_miss="a paused or draining queue; only scheduled jobs; a worker that is restarted within 30 s",
    say=_say,
    detect=_detect,
    open_after=timedelta(seconds=30),
    quiet_after=timedelta(seconds=10),
    repairs=("queue.pause",),
)
