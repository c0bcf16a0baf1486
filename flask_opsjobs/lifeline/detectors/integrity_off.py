"""Describes queues whose counts of jobs do not agree. The loop `check_integrity` reports them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from ...core.words import counted
from ..finding import Detector, Finding, Observation, Words
from ..integrity import QueueDifference


def find_difference(found: QueueDifference) -> Finding:
    """The finding that two counts of a queue in a row do not agree."""
    parts = {
        "difference": found.missing,
        "nowhere": found.nowhere,
        "unreserved": found.unreserved,
        "orphans": found.orphans,
    }
    return Finding(
        subject=f"queue/{found.queue}",
        affected=sum(map(abs, parts.values())),
        facts={"queue": found.queue, "counted_at": found.counted_at.isoformat(), **parts},
        evidence=(
            Observation("difference", "check_integrity", {k: v for k, v in parts.items() if v}),
        ),
    )


def _say(facts: Mapping[str, Any]) -> Words:
    number = facts["difference"]
    jobs = counted(abs(number), "job")
    why = []
    if number > 0:
        why.append(
            f"{jobs} more were enqueued than are stored or were deleted by us: somebody else deleted rows"
        )
    if number < 0:
        why.append(
            f"{jobs} more are stored than were enqueued: somebody else inserted rows, as by a restore"
        )
    parts = (
        (facts["nowhere"], "job", "jobs", "queued, but not in Redis"),
        (facts["unreserved"], "job", "jobs", "started, but held by no worker"),
        (facts["orphans"], "delivery", "deliveries", "in Redis without a job"),
    )
    why += [f"{counted(found, one, many)} {what}" for found, one, many, what in parts if found]
    shown = number or sum(found for found, *_ in parts)
    return Words(
        title=f"The integrity check of the queue {facts['queue']} shows {shown:+,}",
        why=f"{'; '.join(why)}.",
        next_step="Find out who wrote to opsjobs.jobs. The difference stays until the rows are back."
        if number
        else "See whether the loops run: they recall, rescue and remove within seconds.",
    )


DETECTOR = Detector(
    class_="integrity_off",
    title="Integrity check",
    severity="critical",
    found_when="the difference of a queue was not 0 in two counts in a row: of rows, of what is in Redis, "
    "and of "
    "what workers hold",
    near_miss="an enqueue in a transaction that is still open; one count between two changes",
    say=_say,
    found_by="check_integrity",
    quiet_after=timedelta(seconds=5),
    affects=("difference", "differences"),
)
