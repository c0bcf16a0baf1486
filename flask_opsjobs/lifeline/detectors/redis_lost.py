"""Describes a Redis that lost what it held or came back older. `observe` and `adopt` report it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from ...core.words import agree, counted
from ..finding import Detector, Finding, Observation, Words

_SHOWN = 20


def find_lost_redis(place: str, why: str) -> Finding:
    """The finding that a Redis lost what it held."""
    return Finding(
        subject=f"redis/{place}",
        facts={"place": place, "why": why},
        evidence=(Observation("lost", "observe", {"why": why}),),
    )


def find_jobs_again(place: str, number: int, newest: Sequence[int]) -> Finding:
    """The finding that RQ will run so many plain jobs again which have ended: it came back older than it was.

    `newest` are those that were found last, as many as a repair may have.
    """
    return Finding(
        subject=f"plain_jobs/{place}",
        affected=number,
        facts={
            "place": place,
            "number": number,
            "jobs": list(newest),
            "has_more_jobs": number > len(newest),
        },
        evidence=(Observation("queued_again", "adopt", {"jobs": list(newest[-_SHOWN:])}),),
    )


def _say(facts: Mapping[str, Any]) -> Words:
    if "number" in facts:
        jobs = counted(facts["number"], "plain job")
        return Words(
            title=f"RQ will run {jobs} again that {agree(facts['number'], 'has', 'have')} ended",
            why=f"The Redis {facts['place']} came back older than it was: it has jobs queued whose end is "
            "known. "
            "Managed jobs that ended do not run again.",
            next_step="Cancel those that must not run twice.",
        )
    return Words(
        title=f"The Redis {facts['place']} lost what it held",
        why=f"{facts['why']}. Managed jobs are dispatched again; plain jobs that were lost become unknown.",
        next_step="Run `flask opsjobs restore`: it says what Redis lacks, and puts managed jobs back at "
        "once.",
    )


DETECTOR = Detector(
    class_="redis_lost",
    title="Redis lost data",
    severity="critical",
    found_when="a Redis was started again without some of its queues or with fewer than half of its "
    "lasting keys; "
    "its replication offset went back; it evicts keys; or it has plain jobs queued that have ended",
    near_miss="a restart that reads everything from the disk; one with fewer keys after a time in which no "
    "loop ran; a plain job that is repeated or requeued",
    say=_say,
    found_by="observe",
    quiet_after=timedelta(minutes=5),
    repairs=("job.cancel",),
    hides=("delivery_lost", "orphan_delivery"),
)
