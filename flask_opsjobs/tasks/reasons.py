"""Finds the reason in the task: an operator paused it."""

from __future__ import annotations

from collections.abc import Iterator

from ..explain.evidence import Evidence
from ..explain.reason_kinds import Reason, make_reason


def task_paused(evidence: Evidence) -> Iterator[Reason]:
    """The task is paused: its jobs are not dispatched, while other tasks of the queue go on."""
    pause = evidence.pause
    if pause is None or not evidence.is_held_back:
        return
    yield make_reason(
        evidence,
        "task_paused",
        f"The task {evidence.job.task} is paused: its jobs are not dispatched.",
        "Resume the task.",
        source="operator",
        read={"task": evidence.job.task, "paused_at": pause.paused_at},
        by=pause.paused_by,
        quote=pause.paused_reason,
        since=pause.paused_at,
    )
