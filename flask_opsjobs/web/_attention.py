"""The six statuses of attention: needs review, blocked, waiting, runnable, only in RQ, resolved."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ..facts import OutsideFacts
from ..jobs.lifecycle import ENDED_BY
from ..jobs.rows import Count
from ..overview.attention_queries import Failures, Resolved
from ..overview.outages import Place
from ..overview.pace_queries import Pace
from ..overview.queries import Depth, Overview, QueueDepth
from ._cards import Card, Example
from ._filters import span

WAITS = ("scheduled", "deferred", "retryable")
_EXAMPLES = 3
# What was done to a job, as a part of "121 by …".
_ACTS = {
    "job.retry": "tried again",
    "job.run_again": "run again",
    "job.cancel": "canceled",
    "job.discard": "discarded",
    "job.delete": "deleted",
    "job.rescue": "rescued from a worker that is gone",
}


@dataclass(frozen=True)
class Seen:
    """All that the cards speak of."""

    overview: Overview
    failures: Failures
    resolved: Resolved
    pace: Pace
    outside: OutsideFacts


def make_cards(seen: Seen) -> list[Card]:
    """The cards, those that need somebody first."""
    return [
        _review(seen.failures),
        _blocked(seen.overview),
        _waiting(seen.overview),
        _runnable(seen.overview, seen.pace),
        _outside(seen.outside),
        _resolved(seen.resolved),
    ]


def _jobs(text: str, **values: str | int) -> Place:
    return Place(text, "jobs", values)


def _review(failures: Failures) -> Card:
    groups, number = failures.groups, failures.count.number
    if not groups:
        go = _jobs("Browse failed jobs", state="failed")
        return Card(
            "resolved",
            "finished",
            "Needs review",
            Count(0),
            "No failed job waits for a decision.",
            go,
        )
    widest = groups[0]
    if widest.number > 1:
        says = f"{widest.number:,} of them failed alike in `{widest.worker}`"
    elif number == 1:
        says = f"It failed in `{widest.worker}`"
    else:
        says = f"No two are alike; the first failed in `{widest.worker}`"
    examples = [
        Example(
            Place(str(group.job_id), "job", {"job_id": group.job_id}),
            f"{group.number:,} alike" if group.number > 1 else "alone",
            payload=group.error or ENDED_BY[group.ended_by],
            moment=group.since,
        )
        for group in groups
    ]
    go = _jobs(f"Review {_many(failures.count, 'failed job')}", state="failed")
    why = widest.error or ENDED_BY[widest.ended_by]
    return Card("review", "review", "Needs review", failures.count, says, go, examples, why)


def _is_blocked(queue: QueueDepth) -> bool:
    return queue.is_paused or not queue.listeners


def _due(queues: Collection[QueueDepth]) -> Count:
    return Count.sum(
        queue.states[state].count for queue in queues for state in ("available", "queued")
    )


def _blocked(seen: Overview) -> Card:
    blocked = [queue for queue in seen.queues if queue.due and _is_blocked(queue)]
    blocked.sort(key=lambda queue: -queue.due)
    go = Place("See what blocks them" if blocked else "See the queues", "queues", {})
    if not blocked:
        says = "Every queue with due jobs is open, and somebody listens to it."
        return Card("waiting", "blocked", "Blocked", Count(0), says, go)
    causes = [f"`{queue.name}` {_cause(queue)}" for queue in blocked[:2]]
    more = f"; and so {len(blocked) - 2} more" if len(blocked) > 2 else ""
    examples = [
        Example(
            Place(queue.name, "queue", {"name": queue.name}),
            "due",
            moment=queue.due_since,
            count=_due([queue]),
        )
        for queue in blocked[:_EXAMPLES]
    ]
    says = f"{'; '.join(causes)}{more}."
    return Card("blocked", "blocked", "Blocked", _due(blocked), says, go, examples)


def _cause(queue: QueueDepth) -> str:
    return "is paused" if queue.is_paused else "has no live worker"


def _waiting(seen: Overview) -> Card:
    count = Count.sum(seen.live[state].count for state in WAITS)
    says = "All in order: due later, backing off, or behind another job."
    if not count.number:
        says = "No job is due later, backs off, or waits for another one."
    examples = [
        _of_state(state, seen.live[state], "oldest" if state == "deferred" else "first due")
        for state in WAITS
    ]
    go = _jobs("Browse waiting jobs", state="scheduled")
    return Card("waiting", "scheduled", "Waiting", count, says, go, examples, next_at=seen.next_due)


def _runnable(seen: Overview, pace: Pace) -> Card:
    free = [queue for queue in seen.queues if not _is_blocked(queue)]
    started = seen.live["started"]
    due = _due(free)
    examples = [
        *(_of_state(state, _free(free, state), "oldest") for state in ("available", "queued")),
        _of_state("started", started, "longest"),
    ]
    count = Count.sum([due, started.count])
    some = next((one.place.text for one in examples if one.count and one.count.number), "started")
    go = _jobs(f"Browse {some} jobs", state=some)
    return Card(
        "runnable", "started", "Runnable", count, _how_fast(due, started.count, pace), go, examples
    )


def _free(queues: Sequence[QueueDepth], state: str) -> Depth:
    depths = [queue.states[state] for queue in queues]
    since = min((depth.since for depth in depths if depth.since), default=None)
    return Depth(Count.sum(depth.count for depth in depths), since)


def _how_fast(due: Count, started: Count, pace: Pace) -> str:
    if not due.number:
        return (
            "All that is due and free to go has started."
            if started.number
            else "Nothing is due that is free to go."
        )
    speed = pace.ends_a_minute
    if speed is None:
        return "Due now and free to go. Nobody counts how fast they end: the loop `roll_up` has not run lately."
    if not speed:
        return "Due now and free to go. No job ended in the last ten minutes."
    least = "at least " if due.kind != "exact" else ""
    takes = span(max(1.0, due.number / speed * 60))
    return f"Moving. At the pace of the last ten minutes the last of them starts in {least}about {takes}."


def _of_state(state: str, depth: Depth, word: str) -> Example:
    return Example(
        _jobs(state, state=state),
        word if depth.since else "",
        moment=depth.since,
        count=depth.count,
        is_ahead=word == "first due",
    )


def _outside(outside: OutsideFacts) -> Card:
    title, go = "Bridge-only follow-up", Place("See their queues", "queues", {})
    if outside.said is not None:
        says = f"{outside.said}, so what lies only there cannot be told."
        return Card("missing", "bridge", title, None, says, go)
    count = Count(outside.number, "at_least" if outside.is_cut else "exact")
    if not count.number:
        return Card(
            "waiting",
            "bridge",
            title,
            count,
            "RQ holds no job of these queues that is not recorded here.",
            go,
        )
    failed = outside.by_status.get("failed", 0)
    says = "Enqueued straight into RQ and seen only from outside; they can be inspected, not repaired here."
    says += f" {failed:,} failed." if failed else ""
    examples = [
        Example(
            Place(
                f"{job.rq_id[:8]}…" if len(job.rq_id) > 10 else job.rq_id,
                "queue",
                {"name": job.queue},
            ),
            job.status,
            payload=job.function or None,
            moment=job.moment,
        )
        for job in outside.examples
    ]
    return Card("bridge" if failed else "waiting", "bridge", title, count, says, go, examples)


def _resolved(resolved: Resolved) -> Card:
    parts = [
        f"{number:,} {_ACTS.get(action, action)}"
        for action, number in sorted(resolved.by_action.items(), key=lambda pair: -pair[1])
    ]
    says = ", ".join(parts[:3]) + "." if parts else "Nobody decided about a job in the last day."
    examples = [
        Example(
            Place(
                f"{act.number:,} {_ACTS.get(act.action, act.action)}",
                "audit_event",
                {"sequence": act.sequence},
            ),
            act.actor,
            moment=act.at,
        )
        for act in resolved.acts
    ]
    go = Place("See what was done", "audit", {})
    return Card(
        "resolved", "finished", "Resolved", resolved.count, says, go, examples, tag="last 24 h"
    )


def _many(count: Count, thing: str) -> str:
    more = "+" if count.kind == "at_least" else ""
    return f"{count.number:,}{more} {thing}{'' if count.number == 1 else 's'}"
