"""Finds tasks that workers hand back because their code lacks them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from ...core.words import agree, counted
from ..finding import Detector, DetectorPass, Facts, Finding, Observation, Words


def _detect(facts: Facts) -> DetectorPass:
    return facts.look("detect_missing_code", _finding)


def _finding(row: Mapping[str, Any]) -> Finding:
    return Finding(
        subject=f"task/{row['task']}",
        since=row["since"],
        affected=row["number"],
        facts={
            "task": row["task"],
            "queue": row["queue"],
            "number": row["number"],
            "jobs": row["jobs"][:100],
        },
        evidence=(Observation("handed_back", "worker", {"queue": row["queue"]}),),
    )


def _say(facts: Mapping[str, Any]) -> Words:
    jobs = counted(facts["number"], "job")
    return Words(
        title=f"Workers do not have the task {facts['task']}",
        why=f"Workers of the queue {facts['queue']} hand {jobs} back, because no task of that name is "
        f"declared "
        f"there. Ten minutes after the first time a job fails.",
        next_step="Deploy the code to these workers, or "
        f"{agree(facts['number'], 'pause its queue', 'pause their queue')}.",
    )


DETECTOR = Detector(
    class_="code_missing",
    title="Missing code",
    severity="critical",
    found_when="workers have handed a job back for 30 s or longer, because they do not have its task",
    near_miss="one refusal during a rolling deploy; arguments that the task does not accept",
    say=_say,
    detect=_detect,
    quiet_after=timedelta(seconds=60),
    repairs=("worker.drain", "queue.pause"),
)
