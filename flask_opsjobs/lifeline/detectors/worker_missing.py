"""Finds workers that the watcher gave up."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from ...core.words import counted, moment
from ..finding import Detector, DetectorPass, Facts, Finding, Observation, Words

_KINDS = {"plain": "RQ's key of it has expired", "pool": "no heartbeat of it arrives"}


def _detect(facts: Facts) -> DetectorPass:
    return facts.look("detect_missing_workers", _finding)


def _finding(row: Mapping[str, Any]) -> Finding:
    jobs, last_at = row["jobs"], row["heartbeat_at"].isoformat()
    is_repaired = not jobs or row["is_deploy"]
    return Finding(
        subject=f"worker/{row['name']}",
        since=row["ended_at"],
        affected=min(len(jobs), 100),
        severity="notice" if is_repaired else "warning",
        facts={
            "worker": row["name"],
            "kind": row["kind"],
            "host": row["host"],
            "last_at": last_at,
            "jobs": jobs[:100],
            "has_more_jobs": len(jobs) > 100,
            "is_least": len(jobs) > 100,
            "is_deploy": row["is_deploy"],
        },
        evidence=(
            Observation("last_heartbeat", "watch", {"at": last_at, "host": row["host"]}),
            Observation("left_jobs", "watch", {"jobs": len(jobs)}),
        ),
    )


def _say(facts: Mapping[str, Any]) -> Words:
    last = moment(datetime.fromisoformat(facts["last_at"]))
    jobs = len(facts["jobs"])
    more = "+" if facts["has_more_jobs"] else ""
    left = f"It left {counted(jobs, 'job', more=more)}, which are started and do not run."
    if not jobs:
        left = "It left no job, or its jobs were rescued."
    if facts["is_deploy"]:
        left += " There was a deploy within five minutes."
    return Words(
        title=f"Worker {facts['worker']} is missing",
        why=f"{_KINDS[facts['kind']].capitalize()}; the last one came at {last}, from {facts['host']}. "
        f"{left}",
        next_step="Rescue its jobs." if jobs else "Nothing to do.",
    )


DETECTOR = Detector(
    class_="worker_missing",
    title="Missing workers",
    severity="warning",
    found_when="the watcher gave a worker up: a notice when it left no jobs, or within five minutes of "
    "a deploy",
    near_miss="a late worker; a watcher that was asleep; a clean stop; RQ's key flushed while the "
    "worker lives",
    say=_say,
    detect=_detect,
    quiet_after=timedelta(seconds=10),
    repairs=("job.rescue", "worker.forget"),
)
