"""Finds failures that nobody has decided about and that end jobs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from ...core.words import agree, counted
from ..finding import Detector, DetectorPass, Facts, Finding, Observation, Words


def _detect(facts: Facts) -> DetectorPass:
    return facts.look("detect_failures", _finding, has_regressed=False)


def _finding(row: Mapping[str, Any]) -> Finding:
    # The text of the error is payload: only the page of the failure shows it.
    what = {name: row[name] for name in ("task", "type", "raised_in")}
    return Finding(
        subject=f"failure/{row['id']}",
        since=row["first_at"],
        affected=row["jobs"],
        facts={"failure": row["id"], "failed_jobs": row["jobs"], **what},
        evidence=(Observation("failed", "roll_up", {"sample": row["sample_job_id"]}),),
    )


def _say(facts: Mapping[str, Any]) -> Words:
    jobs = counted(facts["failed_jobs"], "job")
    where = f" in {facts['raised_in']}" if facts["raised_in"] else ""
    return Words(
        title=f"{facts['task']} fails{': ' if facts['type'] else ''}{facts['type'] or ''}",
        why=f"{jobs} {agree(facts['failed_jobs'], 'has', 'have')} failed with this error{where}, "
        "and nobody has resolved or ignored it.",
        next_step="Mend it and say in which deploy it is resolved, or ignore it for a while.",
    )


DETECTOR = Detector(
    class_="failure_new",
    title="Failures",
    severity="warning",
    found_when="jobs failed with an error within a day, and nobody has resolved or ignored it",
    near_miss="an attempt that failed and whose job is tried again; a failure that is ignored or resolved",
    say=_say,
    detect=_detect,
    quiet_after=timedelta(seconds=10),
    repairs=("operation.retry", "failure.resolve", "failure.ignore"),
)
