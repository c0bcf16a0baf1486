"""Describes started plain jobs whose worker is gone and that RQ has not cleaned up. `adopt` reports them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from ...core.words import moment
from ..finding import Detector, Finding, Observation, Words


def find_orphan(
    job_id: int, task: str, queue: str, started_at: datetime, worker: str, heard_until: str | None
) -> Finding:
    """The finding that RQ calls a job started whose worker is gone."""
    seen = {"worker": worker, "heard_until": heard_until}
    return Finding(
        subject=f"job/{job_id}",
        affected=1,
        facts={
            "jobs": [job_id],
            "task": task,
            "queue": queue,
            "started_at": started_at.isoformat(),
            "rq_worker": worker,
        },
        evidence=(Observation("silent", "adopt", seen),),
    )


def _say(facts: Mapping[str, Any]) -> Words:
    since = moment(datetime.fromisoformat(facts["started_at"]))
    worker = f"its worker {facts['rq_worker']}" if facts["rq_worker"] else "its worker"
    return Words(
        title=f"The plain job {facts['jobs'][0]} ({facts['task']}) is started and does not run",
        why=f"RQ calls it started since {since}, but {worker} is gone, and RQ has not cleaned up after it.",
        next_step="Retry or discard it. A worker of its queue also cleans up within some minutes.",
    )


DETECTOR = Detector(
    class_="rq_orphan",
    title="Plain jobs without a worker",
    severity="warning",
    found_when="a plain job is started, RQ's keys of its worker and its run have expired, and for two "
    "minutes RQ "
    "has not cleaned up",
    near_miss="a SimpleWorker that sends no heartbeats during a job; a worker whose key is alive",
    say=_say,
    found_by="adopt",
    quiet_after=timedelta(seconds=10),
    repairs=("job.retry", "job.discard"),
)
