"""Declares the states of a worker and the arrows between them, as data."""

from __future__ import annotations

from dataclasses import dataclass

MEANINGS = {
    "alive": "its heartbeats arrive",
    "late": "its heartbeat has not grown for some time; its jobs are left alone",
    "missing": "its heartbeat has not grown for longer; its jobs are rescued",
    "stopped": "it said that it stops",
}
STATES = tuple(MEANINGS)
ENDED = ("missing", "stopped")
# Used as the state when there is no worker of that name.
ABSENT = "absent"


@dataclass(frozen=True)
class WorkerArrow:
    """One legal move from any of `sources` to `target`. `made_by` names the statements that make it."""

    name: str
    sources: tuple[str, ...]
    target: str
    meaning: str
    made_by: tuple[str, ...]


ARROWS = (
    WorkerArrow(
        "register",
        sources=(ABSENT,),
        target="alive",
        meaning="a process has started",
        made_by=("register_worker", "register_plain_worker", "observe_plain_workers"),
    ),
    WorkerArrow(
        "beat",
        sources=("late", "missing"),
        target="alive",
        meaning="a heartbeat has arrived",
        made_by=(
            "record_heartbeat",
            "watch_workers",
            "register_plain_worker",
            "observe_plain_workers",
        ),
    ),
    WorkerArrow(
        "turn_late",
        sources=("alive",),
        target="late",
        meaning="no heartbeat has arrived for some time",
        made_by=("watch_workers",),
    ),
    WorkerArrow(
        "turn_missing",
        sources=("alive", "late"),
        target="missing",
        meaning="no heartbeat has arrived for longer, or its key in Redis is gone",
        made_by=("watch_workers", "end_plain_workers"),
    ),
    WorkerArrow(
        "stop",
        sources=("alive", "late", "missing"),
        target="stopped",
        meaning="it said that it stops",
        made_by=("stop_worker", "observe_plain_workers"),
    ),
    WorkerArrow(
        "delete",
        sources=ENDED,
        target=ABSENT,
        meaning="its row is deleted after the time that the settings say",
        made_by=("retain_workers",),
    ),
)
