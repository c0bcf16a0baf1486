"""Finds callbacks that failed: the application was not told of an end."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from ..finding import Detector, DetectorPass, Facts, Finding, Observation, Words


def _detect(facts: Facts) -> DetectorPass:
    return facts.look("detect_failed_callbacks", _finding)


def _finding(row: Mapping[str, Any]) -> Finding:
    about = {"of": f"{row['of']} {row['of_id']}", "event": row["event"], "task": row["task"]}
    return Finding(
        subject=f"job/{row['id']}",
        since=row["ended_at"],
        affected=1,
        facts={"jobs": [row["id"]], "queue": row["queue"], **about},
        evidence=(Observation("failed", "worker", {"at": row["ended_at"].isoformat(), **about}),),
    )


def _say(facts: Mapping[str, Any]) -> Words:
    return Words(
        title=f"The callback of {facts['of']} failed",
        why=f"Job {facts['jobs'][0]} ({facts['task']}) should have told your application of its "
        f"{facts['event']}. It failed, and nothing tries again.",
        next_step="Mend the callback, then retry the job.",
    )


DETECTOR = Detector(
    class_="callback_failed",
    title="Failed callbacks",
    severity="warning",
    found_when="the job of a callback ended as failed within a day",
    near_miss="a callback that backs off and is tried again",
    say=_say,
    detect=_detect,
    quiet_after=timedelta(seconds=10),
    repairs=("job.retry",),
)
