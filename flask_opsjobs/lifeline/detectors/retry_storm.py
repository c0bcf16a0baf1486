"""Finds queues that mostly repeat what failed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from ...core.words import counted
from ..finding import Detector, DetectorPass, Facts, Finding, Observation, Words


def _detect(facts: Facts) -> DetectorPass:
    return facts.look("detect_retry_storms", _finding)


def _finding(row: Mapping[str, Any]) -> Finding:
    return Finding(
        subject=f"queue/{row['queue']}",
        affected=row["jobs"],
        facts={"queue": row["queue"], "task": row["task"], "repeats": row["number"]},
        evidence=(Observation("repeats", "detect", {"task": row["task"]}),),
    )


def _say(facts: Mapping[str, Any]) -> Words:
    return Words(
        title=f"The queue {facts['queue']} mostly repeats",
        why=f"{counted(facts['repeats'], 'attempt')} that ended within ten minutes repeated a failed "
        f"one: more "
        f"than half of the queue's. The last one was of {facts['task']}.",
        next_step="Pause the queue until the cause is mended, so that no job uses up its attempts.",
    )


DETECTOR = Detector(
    class_="retry_storm",
    title="Retry storms",
    severity="warning",
    found_when="within ten minutes over half of a queue's attempts were repeats, 100 or more of 20 jobs "
    "or more",
    near_miss="one job with twenty tries; a retry that an operator asked for",
    say=_say,
    detect=_detect,
    quiet_after=timedelta(seconds=60),
    repairs=("queue.pause",),
)
