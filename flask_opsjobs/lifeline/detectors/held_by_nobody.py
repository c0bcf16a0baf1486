"""Finds jobs that count as running or taken, and that their worker does not name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...core.words import agree, counted
from ..finding import Detector, DetectorPass, Facts, Finding, Observation, Words


def _detect(facts: Facts) -> DetectorPass:
    seconds = facts.settings.heartbeat_seconds
    return facts.look("detect_jobs_held_by_nobody", _finding, heartbeat_seconds=seconds)


def _finding(row: Mapping[str, Any]) -> Finding:
    return Finding(
        subject=f"worker/{row['name'] or row['worker_id']}",
        affected=row["number"],
        facts={
            "worker_id": row["worker_id"],
            "worker": row["name"],
            "number": row["number"],
            "jobs": row["jobs"][:100],
            "has_more_jobs": row["number"] > 100,
        },
        evidence=(
            Observation("not_named", "heartbeat", {"jobs": row["number"], "first": row["jobs"][0]}),
        ),
    )


def _say(facts: Mapping[str, Any]) -> Words:
    jobs = counted(facts["number"], "job")
    worker = facts["worker"] or f"{facts['worker_id']}, which is unknown,"
    return Words(
        title=f"Nobody holds {jobs} of worker {facts['worker'] or facts['worker_id']}",
        why=f"{jobs} {agree(facts['number'], 'counts', 'count')} as started or taken by worker {worker} "
        f"but two "
        "heartbeats of it do not name them.",
        next_step="Rescue the jobs: each is due again, and this counts as a failed attempt.",
    )


DETECTOR = Detector(
    class_="held_by_nobody",
    title="Jobs held by nobody",
    severity="critical",
    found_when="a job is started or taken, and two heartbeats of its worker do not name it",
    near_miss="a claim between two heartbeats; a plain rq worker, which never names its jobs",
    say=_say,
    detect=_detect,
    repairs=("job.rescue",),
)
