"""Rules about its queue: an operator's pause, who listens, how much may lie in Redis."""

from __future__ import annotations

from collections.abc import Iterator

from .reasons import as_text, count, make_reason
from .seen import Seen
from .shapes import Reason


def queue_paused(seen: Seen) -> Iterator[Reason]:
    """Nothing of the queue is handed out, and what lay in Redis was taken back."""
    if seen.is_held_back and seen.queue.is_paused and not seen.queue.is_draining:
        yield _decision(seen, "queue_paused", "is paused: nothing of it is handed out.")


def queue_draining(seen: Seen) -> Iterator[Reason]:
    """Nothing more of the queue is handed out; what lies in Redis still runs."""
    if seen.is_held_back and seen.queue.is_draining:
        yield _decision(
            seen, "queue_draining", "drains: only what was handed out already still runs."
        )


def _decision(seen: Seen, code: str, says: str) -> Reason:
    queue = seen.queue
    return make_reason(
        seen,
        code,
        f"The queue {seen.job.queue} {says}",
        "Resume the queue.",
        witness="operator",
        read={"is_paused": queue.is_paused, "is_draining": queue.is_draining, "paused_at": queue.paused_at},
        by=queue.paused_by,
        quote=queue.paused_reason,
        since=queue.paused_at,
    )  # fmt: skip


def no_live_worker(seen: Seen) -> Iterator[Reason]:
    """Nobody who is alive listens to the queue."""
    if not seen.is_due or seen.alive:
        return
    last = seen.last_listener
    name = seen.job.queue
    yield make_reason(
        seen,
        "no_live_worker",
        f"No live worker listens to the queue {name}."
        + (f" {last.name} was the last one." if last else " None is known to have done so lately."),
        f"Start one: `flask opsjobs worker {name}`.",
        witness="inferred",
        read={"live_workers": 0, "last_worker": last and last.name, "last_beat_at": last and last.beat_at},
        since=last.beat_at if last else None,
    )  # fmt: skip


def workers_busy(seen: Seen) -> Iterator[Reason]:
    """All who listen have a job in hand."""
    if not seen.is_due or not seen.alive or len(seen.busy) < len(seen.alive):
        return
    name, longest = seen.job.queue, seen.busy[0]
    many = len(seen.alive)
    who = "The only worker" if many == 1 else f"All {many:,} workers"
    yield make_reason(
        seen,
        "workers_busy",
        f"{who} of the queue {name} {'has' if many == 1 else 'have'} a job in hand, {_before(seen)}.",
        f"It runs when its turn comes; one more worker is `flask opsjobs worker {name}`.",
        witness="worker",
        read={
            "workers": f"{len(seen.busy)} of {many} busy",
            "ahead": _ahead(seen),
            "longest": f"job/{longest.running_job} since {as_text(longest.running)}",
        },
        since=longest.running,
    )


def _before(seen: Seen) -> str:
    ahead = _ahead(seen)
    if ahead is None:
        return "and it waits in Redis"
    # What waits in other lanes of the queue is not counted: a limited job has a lane of its own.
    which = (
        " of its queue and partition or in Redis"
        if seen.job.lane != seen.job.queue and seen.job.state != "queued"
        else ""
    )
    return f"and {ahead} due job{'' if ahead == '1' else 's'}{which} go{'es' if ahead == '1' else ''} before it"


def _ahead(seen: Seen) -> str | None:
    """How many due jobs go before it; None when only Redis knows, and it was not read."""
    if seen.job.state == "queued":
        place = seen.redis.position if seen.redis and seen.redis.is_reachable else None
        return None if place is None else f"{place:,}"
    before, window = seen.ahead, seen.window
    if before is None or window is None:
        return None
    return f"{before.number + window.used:,}{'+' if before.kind == 'at_least' else ''}"


def window_full(seen: Seen) -> Iterator[Reason]:
    """No more of the queue may lie in Redis."""
    window = seen.window
    if not seen.is_due or seen.job.state == "queued" or window is None or not window.is_full:
        return
    name = seen.job.queue
    is_set = seen.queue.window_size is not None
    yield make_reason(
        seen,
        "window_full",
        f"The window of the queue {name} is full: {count(window.used, 'job')} "
        f"of {window.size:,} that may lie in Redis.",
        "It is handed out when one of them has started.",
        witness="dispatcher",
        read={
            "window": f"{window.used:,} of {window.size:,}",
            "window_set": is_set,
            "ahead": _ahead(seen),
        },
    )
