"""Decides the cards of the overview: a count, one sentence that says why, a few examples, and a link each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ...core.redis_facts import PlainJobs
from ...core.words import agree, counted, span
from ...jobs.rows import Count
from ...overview.blocks import Block, Split
from ...overview.failure_queries import FailureSummary
from ...overview.headline import PageLink
from ...overview.pace_queries import Pace
from ...overview.queries import Overview, Resolved, StateDepth
from ...workflows.lifecycle import NEEDS
from ...workflows.queries import RunRow


@dataclass(frozen=True)
class Example:
    """A line of a card. `payload` passes the display policy; `moment` becomes an age, or a time ahead."""

    link: PageLink
    note: str
    payload: str | None = None
    moment: datetime | None = None
    is_ahead: bool = False
    count: Count | None = None


@dataclass(frozen=True)
class Card:
    """A card of the overview. `is_` chooses its colour, `shape` its glyph. A count of None means not known.

    `payload` is appended to the sentence `says`, through the display policy; `next_at` follows it.
    """

    is_: str
    shape: str
    title: str
    count: Count | None
    says: str
    go: PageLink
    examples: Sequence[Example] = ()
    payload: str | None = None
    tag: str = ""
    next_at: datetime | None = None


WAITS = ("scheduled", "deferred", "retryable")
_EXAMPLES = 3
# How each action is written after a number: "121 tried again".
_DONE = {
    "job.retry": "tried again",
    "job.run_again": "run again",
    "job.cancel": "canceled",
    "job.discard": "discarded",
    "job.skip": "skipped",
    "job.reschedule": "rescheduled",
    "job.edit": "edited",
    "job.delete": "deleted",
    "job.recall": "recalled from Redis",
    "job.rescue": "rescued from a worker that is gone",
}


@dataclass(frozen=True)
class AttentionFacts:
    """The facts from which the cards are made."""

    overview: Overview
    resolved: Resolved
    pace: Pace
    plain_jobs: PlainJobs
    split: Split
    # Because Redis or a loop does not answer.
    is_pace_unknown: bool = False
    # Whether plain RQ jobs get rows here.
    adopts: bool = True
    # Whether RQ's own view is mounted.
    has_bridge: bool = False


def make_cards(seen: AttentionFacts) -> list[Card]:
    """The six cards; those that need an operator come first."""
    return [
        _review(seen.overview),
        _blocked(seen.split, is_all_held=seen.overview.is_all_held),
        _waiting(seen.overview),
        _runnable(seen),
        _plain_jobs(seen.plain_jobs, adopts=seen.adopts, has_bridge=seen.has_bridge),
        _resolved(seen.resolved, seen.overview.cleared),
    ]


def _jobs(text: str, **values: str | int) -> PageLink:
    return PageLink(text, "jobs", values)


def _review(seen: Overview) -> Card:
    """Failed jobs that wait for a decision, jobs whose worker is gone, and runs that cannot go on."""
    failed, gone, runs = seen.failed, seen.abandoned, seen.stuck
    count = Count.sum([failed, Count(gone), Count(len(runs))])
    says = []
    if runs:
        needs = agree(len(runs), "needs", "need")
        says.append(f"{counted(len(runs), 'run')} of workflows {needs} a person.")
    if gone:
        wait = agree(gone, "waits", "wait")
        says.append(f"{counted(gone, 'job')} of missing workers {wait} for a rescue.")
    if failed.number or seen.failures.to_review or not says:
        says.append(_say_failed(seen))
    others = [*([_of_abandoned(seen)] if gone else ()), *(_of_run(run, why) for run, why in runs)]
    failures = [_of_failure(each) for each in seen.failures.to_review]
    # One line is kept for what is no failure.
    examples = [*failures[: _EXAMPLES - len(others[:1])], *others][:_EXAMPLES]
    go = _jobs("Browse failed jobs", state="failed")
    if failed.number:
        go = _jobs(f"Review {_many(failed, 'failed job')}", state="failed")
    elif gone:
        go = PageLink("See the workers", "workers", {})
    elif runs:
        go = PageLink("See the runs", "workflows", {})
    # A zero alarms nobody, also while a failure is open of which no job is left.
    quiet = ("waiting", "review") if failures else ("resolved", "finished")
    look = ("review", "review") if count.number else quiet
    return Card(*look, "Needs review", count, " ".join(says), go, examples)


def _say_failed(seen: Overview) -> str:
    """What most of the failed jobs have in common."""
    worst = seen.failures.to_review
    if not worst:
        if seen.failed.number:
            wait = agree(seen.failed.number, "waits", "wait")
            return f"{_many(seen.failed, 'failed job')} {wait} for a decision."
        return "No failed job waits for a decision."
    says = _many(seen.failures.open, "failure")
    fresh = "" if worst[0].is_fresh else ", none is new"
    if not seen.failed.number:
        is_open = agree(seen.failures.open.number, "is", "are")
        says = f"No failed job is left. {says} {is_open} not resolved"
    else:
        says = f"{says} ended jobs"
    return f"{says}{fresh}. Look first at `{worst[0].task}`."


def _of_failure(failure: FailureSummary) -> Example:
    link = PageLink(failure.task, "lifeline", {}, target=f"failure/{failure.id}")
    return Example(link, counted(failure.jobs, "job"), failure.name, failure.last_at)


def _of_abandoned(seen: Overview) -> Example:
    gone = [worker for worker in seen.workers if worker.state == "missing"]
    since = min((worker.ended_at for worker in gone if worker.ended_at), default=None)
    link = PageLink("left by missing workers", "workers", {})
    return Example(link, counted(seen.abandoned, "job"), moment=since)


def _of_run(run: RunRow, why: str) -> Example:
    link = PageLink(f"run {run.id}", "workflow", {"workflow_id": run.id})
    return Example(link, NEEDS[why], moment=run.created_at)


def _blocked(found: Split, *, is_all_held: bool) -> Card:
    blocks = found.blocks
    unknown = Count(0, "exact" if is_all_held else "at_least")
    count = Count.sum([unknown, *(block.count for block in blocks)])
    if not blocks and not is_all_held:
        says = "None of the oldest due jobs is held. Younger ones were not examined for limiters."
        go = PageLink("See the limiters", "limiters", {})
        return Card("waiting", "blocked", "Blocked", count, says, go)
    if not blocks:
        says = "No due job is held: their queues are open and have workers."
        go = PageLink("See the queues", "queues", {})
        return Card("waiting", "blocked", "Blocked", count, says, go)
    largest = blocks[0]
    others = len(blocks) - 1
    more = f" {others} more {agree(others, 'holds', 'hold')} jobs." if others else ""
    quote = _quote(largest)
    examples = [
        Example(_link(block, block.name), _NOTES[block.kind], moment=block.since, count=block.count)
        for block in blocks[:_EXAMPLES]
    ]
    # A person's reason ends the sentence.
    says = f"{_many(largest.count, 'job')} {_verb(largest)}{'' if quote else '.' + more}"
    go = _link(largest, "See what blocks them")
    return Card("blocked", "blocked", "Blocked", count, says, go, examples, quote)


# What `since` of a block means: the time of a decision, or else the age of its oldest due job.
_NOTES = {
    "redis": "oldest due",
    "suspended": "oldest due",
    "worker": "no worker, oldest due",
    "paused": "paused",
    "draining": "draining",
    "task": "paused",
    "cooldown": "cools down",
    "limit": "limit reached, oldest due",
}


def _verb(block: Block) -> str:
    """A phrase that says what the jobs wait for, and until when if that is known."""
    verb = agree(block.count.number, "waits", "wait")
    until = f" until {block.until:%H:%M:%S} UTC" if block.until else ""
    return {
        "redis": f"{verb} for Redis, which does not answer",
        "suspended": f"{verb} while all workers are suspended by RQ's own command",
        "worker": f"{verb}: `{block.name}` has no live worker",
        "paused": f"{verb}: `{block.name}` is paused",
        "draining": f"{verb}: `{block.name}` is draining",
        "task": f"{verb}: the task `{block.name}` is paused",
        "cooldown": f"{verb} for the limiter `{block.name}`, which cools down{until}",
        "limit": f"{verb} for the limiter `{block.name}`, which is full",
    }[block.kind]


def _quote(block: Block) -> str | None:
    """Who decided it and why; None when nobody did."""
    if block.by is None:
        return None
    return f"{block.by}: {block.reason}" if block.reason else block.by


def _link(block: Block, text: str) -> PageLink:
    if block.kind in ("cooldown", "limit"):
        return PageLink(text, "limiter", {"limiter": block.name})
    if block.kind == "task":
        return PageLink(text, "task", {"name": block.name})
    if block.kind in ("redis", "suspended"):
        return PageLink("Redis" if text == block.name else text, "queues", {})
    return PageLink(text, "queue", {"name": block.name})


def _waiting(seen: Overview) -> Card:
    count = Count.sum(seen.live[state].count for state in WAITS)
    is_still = any(loop.loop == "stage" and not loop.is_running for loop in seen.loops)
    says = "Nothing to do: they wait for a time or another job."
    if is_still or not seen.loops:
        says = "None of them becomes due: the loop `stage` is silent."
    if not count.number:
        says = "No job is scheduled, waits for a retry, or waits for another job."
    examples = [
        _of_state(state, seen.live[state], "oldest" if state == "deferred" else "first due")
        for state in WAITS
    ]
    go = _jobs("Browse waiting jobs", state="scheduled")
    next_at = None if is_still else seen.next_due
    return Card("waiting", "scheduled", "Waiting", count, says, go, examples, next_at=next_at)


def _runnable(seen: AttentionFacts) -> Card:
    free, started = seen.split.free, seen.overview.live["started"]
    due = Count.sum(depth.count for depth in free.values())
    examples = [
        *(_of_state(state, depth, "oldest") for state, depth in free.items()),
        _of_state("started", started, "longest"),
    ]
    count = Count.sum([due, started.count])
    some = next((one.link.text for one in examples if one.count and one.count.number), "started")
    go = _jobs(f"Browse {some} jobs", state=some)
    says = _how_fast(due, started.count, seen)
    return Card("runnable", "started", "Runnable", count, says, go, examples)


def _how_fast(due: Count, started: Count, seen: AttentionFacts) -> str:
    if not due.number:
        return (
            "Every due job that is not blocked has started."
            if started.number
            else "No due job is free to start."
        )
    if seen.is_pace_unknown:
        return "They are due now. How fast they start is not known while Redis or a loop does not answer."
    speed = seen.pace.ends_a_minute
    if speed is None:
        return "They are due and not blocked. Their pace is not known: the loop `roll_up` does not run."
    if not speed:
        return "They are due and not blocked. No job ended in the last ten minutes."
    least = "at least " if due.kind != "exact" else ""
    takes = span(max(1.0, due.number / speed * 60))
    return f"At the pace of the last ten minutes, the last of them starts in {least}about {takes}."


def _of_state(state: str, depth: StateDepth, word: str) -> Example:
    return Example(
        _jobs(state, state=state),
        word if depth.since else "",
        moment=depth.since,
        count=depth.count,
        is_ahead=word == "first due",
    )


def _plain_jobs(plain_jobs: PlainJobs, *, adopts: bool, has_bridge: bool) -> Card:
    title, go = "Bridge-only follow-up", PageLink("See their queues", "queues", {})
    if adopts:
        go = _jobs("See plain RQ jobs", origin="rq")
    if has_bridge:
        go = PageLink("Look into RQ", "rq", {})
    if plain_jobs.problem is not None:
        says = f"{plain_jobs.problem}, so it is not known which jobs are only in RQ."
        return Card("missing", "bridge", title, None, says, go)
    is_part = plain_jobs.is_cut or bool(plain_jobs.unreachable)
    count = Count(plain_jobs.number, "at_least" if is_part else "exact")
    if not count.number and plain_jobs.unreachable:
        names = _names(plain_jobs.unreachable)
        says = f"The Redis of {names} does not answer. The other queues hold no plain job."
        return Card("missing", "bridge", title, count, says, go)
    if not count.number:
        return Card(
            "waiting",
            "bridge",
            title,
            count,
            "RQ holds no plain job.",
            go,
        )
    failed = plain_jobs.by_status.get("failed", 0)
    says = "Enqueued with RQ itself, without a row here: you can see them, but not change them."
    if adopts:
        says = "Enqueued with RQ itself: RQ runs them, and each gets a row here."
    says += f" {failed:,} failed." if failed else ""
    says += (
        f" The Redis of {_names(plain_jobs.unreachable)} does not answer."
        if plain_jobs.unreachable
        else ""
    )
    examples = [
        Example(
            PageLink(
                f"{job.rq_id[:8]}…" if len(job.rq_id) > 10 else job.rq_id,
                "queue",
                {"name": job.queue},
            ),
            job.status,
            payload=job.function or None,
            moment=job.moment,
        )
        for job in plain_jobs.examples
    ]
    return Card("bridge" if failed else "waiting", "bridge", title, count, says, go, examples)


def _names(queues: Sequence[str]) -> str:
    more = f" and {len(queues) - 2} more" if len(queues) > 2 else ""
    return " and ".join(f"`{name}`" for name in queues[:2]) + more


def _resolved(resolved: Resolved, cleared: Count) -> Card:
    parts = [
        f"{number:,} {_DONE.get(action, action)}"
        for action, number in sorted(resolved.by_action.items(), key=lambda pair: -pair[1])
    ]
    says = ", ".join(parts[:3]) + "." if parts else "Nobody decided about a job in the last day."
    examples = [
        Example(
            PageLink(
                f"{action.number:,} {_DONE.get(action.action, action.action)}",
                "audit_event",
                {"sequence": action.sequence},
            ),
            action.actor,
            moment=action.at,
        )
        for action in resolved.actions
    ]
    if cleared.number:
        ended = PageLink("ended by themselves", "lifeline", {"state": "ended"})
        examples = [*examples[: _EXAMPLES - 1], Example(ended, _many(cleared, "incident"))]
    go = PageLink("See what was done", "audit", {})
    return Card(
        "resolved", "finished", "Resolved", resolved.count, says, go, examples, tag="last 24 h"
    )


def _many(count: Count, noun: str) -> str:
    more = "+" if count.kind == "at_least" else ""
    return counted(count.number, noun, more=more)
