"""What was checked and is not in the way, in a few words each."""

from __future__ import annotations

from collections.abc import Iterator

from .reasons import count
from .rules_of_engine import needed_loops
from .seen import Seen


def list_clear(seen: Seen, codes: set[str]) -> Iterator[str]:
    """The checks that found nothing, given the codes of those that did."""
    if seen.is_due:
        yield "due"
    if seen.job.deadline_at is not None and not seen.is_overdue:
        yield "before its deadline"
    if seen.is_held_back and not seen.queue.is_paused:
        yield "queue not paused"
    if seen.is_due:
        yield from _the_way(seen, codes)
    if needed := [loop for loop in needed_loops(seen) if seen.is_awake(loop)]:
        yield f"{', '.join(needed)} loop awake"


def _the_way(seen: Seen, codes: set[str]) -> Iterator[str]:
    if seen.window is not None and seen.job.state != "queued" and "window_full" not in codes:
        yield f"window {seen.window.used:,} of {seen.window.size:,}"
    if seen.alive:
        idle = len(seen.alive) - len(seen.busy)
        busy = f", {idle:,} idle" if idle else ""
        yield f"{count(len(seen.alive), 'worker')} live{busy}"
    if seen.redis is not None and seen.redis.is_reachable:
        yield "Redis answers"
        if seen.redis.is_there and not seen.is_lost:
            yield "delivery seen"
