"""Describes lost deliveries that were recalled. The loop `recall` reports them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from ...core.words import agree, counted
from ..finding import Detector, Finding, Observation, Words

SUBJECT = "deliveries"
# Above so many within a minute a person should look.
_MANY = 100
_SHOWN = 20


def find_lost_deliveries(jobs: int, in_last_minute: int, newest: list[int]) -> Finding:
    """The finding that so many deliveries were lost, and how many in the last minute.

    `newest` are the jobs of the last ones, as many as a repair may have.
    """
    return Finding(
        subject=SUBJECT,
        affected=jobs,
        severity="warning" if in_last_minute > _MANY else "notice",
        facts={
            "number": jobs,
            "in_last_minute": in_last_minute,
            "jobs": newest,
            "has_more_jobs": jobs > len(newest),
        },
        evidence=(Observation("recalled", "recall", {"newest": newest[-_SHOWN:]}),),
    )


def _say(facts: Mapping[str, Any]) -> Words:
    jobs = counted(facts["number"], "delivery", "deliveries")
    return Words(
        title=f"{jobs} {agree(facts['number'], 'was', 'were')} lost",
        why="Redis did not have them any more, or RQ took them and did not begin them. The jobs were "
        "recalled and "
        "are dispatched again: none is lost.",
        next_step="When there are many, find out what empties Redis.",
    )


DETECTOR = Detector(
    class_="delivery_lost",
    title="Lost deliveries",
    severity="notice",
    found_when=f"the loop `recall` took lost deliveries back; a warning above {_MANY} in a minute",
    near_miss="a delivery that a worker has popped and not claimed yet; a slow Redis",
    say=_say,
    found_by="recall",
    quiet_after=timedelta(seconds=60),
    repairs=("job.recall",),
)
