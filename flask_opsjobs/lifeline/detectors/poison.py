"""Finds jobs that kill the process that runs them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from ...core.words import counted, moment
from ..finding import Detector, DetectorPass, Facts, Finding, Observation, Words


def _detect(facts: Facts) -> DetectorPass:
    return facts.look("detect_poison", _finding)


def _finding(row: Mapping[str, Any]) -> Finding:
    last = {"at": row["last_at"].isoformat(), "cause": row["cause"]}
    return Finding(
        subject=f"job/{row['id']}",
        since=row["last_at"],
        affected=1,
        facts={
            "jobs": [row["id"]],
            "task": row["task"],
            "queue": row["queue"],
            "deaths": row["number"],
            "first_at": row["first_at"].isoformat(),
            **last,
        },
        evidence=(Observation("died", "worker", last),),
    )


def _say(facts: Mapping[str, Any]) -> Words:
    last = moment(datetime.fromisoformat(facts["at"]))
    return Words(
        title=f"Job {facts['jobs'][0]} kills its process",
        why=f"{facts['task']} killed the process that ran it {counted(facts['deaths'], 'time')} within "
        f"a day, "
        f"the last time at {last}: {facts['cause'] or 'the cause is unknown'}.",
        next_step="Discard the job, or give its task less to do at once.",
    )


DETECTOR = Detector(
    class_="poison",
    title="Jobs that kill their process",
    severity="warning",
    found_when="one job killed the process that ran it twice within a day, and has not ended",
    near_miss="a reboot, or three jobs of one worker that died at the same moment; a job that ended",
    say=_say,
    detect=_detect,
    quiet_after=timedelta(seconds=10),
    repairs=("job.discard", "job.cancel"),
)
