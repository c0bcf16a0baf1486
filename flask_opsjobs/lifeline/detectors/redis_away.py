"""Describes a Redis that does not answer. The loop `recall` reports it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from ..finding import Detector, Finding, Observation, Words


def find_silent_redis(place: str, why: str, has_plain_workers: bool) -> Finding:
    """The finding that a Redis does not answer. `place` is its name, as in `redis_lost`.

    It is critical when a plain `rq worker` serves a queue or no pool does: then jobs wait.
    """
    return Finding(
        subject=f"redis/{place}",
        severity="critical" if has_plain_workers else "warning",
        facts={"place": place, "why": why, "has_plain_workers": has_plain_workers},
        evidence=(Observation("no_answer", "recall", {"why": why}),),
    )


def _say(facts: Mapping[str, Any]) -> Words:
    wait = "Jobs that only a plain `rq worker` serves wait." if facts["has_plain_workers"] else ""
    return Words(
        title=f"The Redis {facts['place']} does not answer",
        why=f"{facts['why']}. Workers take managed jobs from Postgres. {wait} None is lost.".replace(
            "  ", " "
        ),
        next_step="Bring Redis back. What it lost is recalled by itself.",
    )


DETECTOR = Detector(
    class_="redis_away",
    title="Redis away",
    severity="critical",
    found_when="a Redis did not answer three passes of the loop `recall`; a warning when only workers "
    "of ours, "
    "which take jobs without Redis, listen",
    near_miss="one pass without an answer",
    say=_say,
    found_by="recall",
    open_after=timedelta(seconds=4),
    quiet_after=timedelta(seconds=10),
    hides=("delivery_lost", "loop_failing", "orphan_delivery", "queue_unserved"),
)
