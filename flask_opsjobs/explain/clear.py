"""Lists the checks that found no reason, each in a few words."""

from __future__ import annotations

from collections.abc import Iterator

from ..core.words import counted
from ..lifeline.reasons import needed_loops
from .evidence import Evidence


def list_clear(evidence: Evidence, codes: set[str]) -> Iterator[str]:
    """The checks that found no reason. `codes` are the codes of the reasons that were found."""
    if evidence.is_due:
        yield "due"
    if evidence.job.deadline_at is not None and not evidence.is_overdue:
        yield "before its deadline"
    if evidence.is_held_back and not evidence.queue.is_paused:
        yield "queue not paused"
    if evidence.is_due:
        yield from _checks_of_a_due_job(evidence, codes)
    if needed := [loop for loop in needed_loops(evidence) if evidence.is_awake(loop)]:
        yield f"{', '.join(needed)} loop awake"


def _checks_of_a_due_job(evidence: Evidence, codes: set[str]) -> Iterator[str]:
    if (
        evidence.prefetch is not None
        and evidence.job.state != "queued"
        and "prefetch_full" not in codes
    ):
        yield f"prefetch {evidence.prefetch.used:,} of {evidence.prefetch.size:,}"
    if evidence.alive:
        idle = len(evidence.alive) - len(evidence.busy)
        busy = f", {idle:,} idle" if idle else ""
        yield f"{counted(len(evidence.alive), 'worker')} live{busy}"
    if evidence.redis is not None and evidence.redis.is_reachable:
        yield "Redis answers"
        if evidence.redis.is_there and not evidence.is_lost:
            yield "delivery seen"
