"""Declares the states of a worker and the arrows between them, as data."""

from __future__ import annotations

from ..core.arrow import Arrow

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

ARROWS = (
    Arrow(
        "register",
        sources=(ABSENT,),
        targets=("alive",),
        by="worker",
        meaning="a process has started",
        made_by=("register_worker", "register_plain_worker", "observe_plain_workers"),
    ),
    Arrow(
        "beat",
        sources=("late", "missing"),
        targets=("alive",),
        by="worker",
        meaning="a heartbeat has arrived",
        made_by=(
            "record_heartbeat",
            "watch_workers",
            "register_plain_worker",
            "observe_plain_workers",
        ),
    ),
    Arrow(
        "turn_late",
        sources=("alive",),
        targets=("late",),
        by="watcher",
        meaning="no heartbeat has arrived for some time",
        made_by=("watch_workers",),
    ),
    Arrow(
        "turn_missing",
        sources=("alive", "late"),
        targets=("missing",),
        by="watcher",
        meaning="no heartbeat has arrived for longer, its process or its key in Redis is gone",
        made_by=("watch_workers", "end_gone_workers", "end_plain_workers"),
    ),
    Arrow(
        "end",
        sources=("alive", "late", "missing"),
        targets=("stopped",),
        by="worker",
        meaning="it said that it stops",
        made_by=("stop_worker", "observe_plain_workers"),
    ),
    Arrow(
        "drain",
        sources=("alive", "late"),
        targets=("stopped",),
        by="operator",
        meaning="it takes nothing new, ends what it runs, and says that it stops",
        made_by=("stop_worker",),
    ),
    Arrow(
        "stop",
        sources=("alive", "late"),
        targets=("stopped",),
        by="operator",
        meaning="as a drain, but what still runs after a grace is killed; a plain RQ worker ends its job",
        made_by=("stop_worker", "observe_plain_workers"),
    ),
    Arrow(
        "forget",
        sources=ENDED,
        targets=(),
        by="operator",
        meaning="no page shows it any more, until it sends a heartbeat",
    ),
    Arrow(
        "delete",
        sources=ENDED,
        targets=(ABSENT,),
        by="retain",
        meaning="its row is deleted after the time that the settings say",
        made_by=("retain_workers",),
    ),
)


def sources_of(name: str) -> tuple[str, ...]:
    """The states from which the arrow `name` may leave."""
    return next(arrow.sources for arrow in ARROWS if arrow.name == name)
