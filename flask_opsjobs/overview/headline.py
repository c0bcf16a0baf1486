"""Finds all problems for the overview's headline, the worst first, each with its start and a next step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from ..core.redis_facts import UnreachableRedis
from ..core.words import agree, counted
from ..jobs.rows import Count
from ..lifeline.loop_runs import LoopRow
from .queries import Overview, QueueDepth

# What does not happen while a loop is silent. No other loop or process does its work.
_STANDS_STILL = {
    "dispatch": "due jobs start only after a commit, or when a busy worker takes them",
    "stage": "scheduled and retryable jobs do not become due",
    "cron": "no cron slot runs",
    "expire": "deadlines are not enforced for waiting jobs",
    "watch": "jobs of missing workers are not rescued",
    "recall": "jobs that Redis lost are not dispatched again",
    "observe": "plain RQ workers are not seen",
    "retain": "old jobs are not removed",
    "roll_up": "the charts get no new numbers",
    "check_integrity": "no integrity check is made",
}
_LOST = "None is lost: Postgres keeps them"


@dataclass(frozen=True)
class PageLink:
    """A link to a page: an endpoint with its values.

    `text` is shown without a link to readers who may not go there.
    """

    text: str
    endpoint: str
    values: Mapping[str, str | int]


@dataclass(frozen=True)
class Wrong:
    """One problem: a status word, the fact, what it means or what to do, its start, and a page to open.

    `quote` is what a person wrote about it, and must pass the display policy. `since` is None when it is not
    known.
    """

    level: str
    fact: str
    rest: str = ""
    since: datetime | None = None
    go: PageLink | None = None
    quote: str | None = None


def find_wrong_sources(
    unreachable: Sequence[UnreachableRedis],
    loops: Sequence[LoopRow] | None,
    due: Mapping[str, Count] | None,
    served: Collection[str] = (),
) -> list[Wrong]:
    """Every source that does not answer, the worst first.

    `loops` and `due` are None when Postgres was not read. `served` are the queues whose jobs a live worker
    takes straight from Postgres.
    """
    found = [_redis(one, due, served, len(unreachable) > 1) for one in unreachable]
    return [*found, *_loops(loops, due)]


def _redis(
    one: UnreachableRedis,
    due: Mapping[str, Count] | None,
    served: Collection[str],
    is_one_of_many: bool,
) -> Wrong:
    named = ", ".join(f"`{name}`" for name in one.queues[:2])
    more = f" and {len(one.queues) - 2} more" if len(one.queues) > 2 else ""
    whose = f" of the queues {named}{more}" if is_one_of_many else ""
    last = (
        f" It last answered this process at {one.answered_at:%H:%M:%S} UTC."
        if one.answered_at
        else ""
    )
    sentence = "No job starts there until it answers. It is not known how many jobs wait for it."
    if due is not None:
        names = one.queues if is_one_of_many else due
        waiting = Count.sum(due[name] for name in names if name in due and name not in served)
        sentence = f"No job starts there until it answers. {_say_waiting(waiting)}"
        if served and not waiting.number:
            sentence = "Jobs run from Postgres, plain RQ jobs wait."
        elif served:
            sentence = (
                "Jobs run from Postgres where a worker of ours listens, plain RQ jobs wait. "
                f"Elsewhere {_say_waiting(waiting)}"
            )
    rest = f"{sentence}{last} Check that it runs and can be reached."
    go = PageLink("See what waits", "jobs", {"state": "available"})
    return Wrong("critical", f"Redis{whose} does not answer.", rest, one.since, go)


def _say_waiting(count: Count) -> str:
    if not count.number:
        return "No due job waits for it."
    more = " or more" if count.kind != "exact" else ""
    verb = "wait" if more else agree(count.number, "waits", "wait")
    return f"{counted(count.number, 'due job', more=more)} {verb}. {_LOST}."


def _loops(loops: Sequence[LoopRow] | None, due: Mapping[str, Count] | None) -> Iterator[Wrong]:
    if loops is None:
        return
    silent = [loop for loop in loops if not loop.is_running]
    start = "Start `flask opsjobs run`."
    go = PageLink("See the queues", "queues", {})
    if len(silent) == len(loops):
        fact = "No background loop is running." if loops else "No background loop has ever run."
        waiting = Count.sum(due.values()) if due else Count(0)
        many = f" {_say_waiting(waiting)}" if waiting.number else ""
        means = "Scheduled and retryable jobs do not become due, and jobs of dead workers are not rescued."
        rest = f"{means}{many} {start}"
        since = max((loop.last_at for loop in silent), default=None)
        yield Wrong("critical", fact, rest, since, go)
    elif silent:
        names = [loop.loop for loop in silent]
        effects = [_STANDS_STILL[name] for name in names if name in _STANDS_STILL][:2]
        means = "; ".join(effects)
        fact = (
            f"The loop {names[0]} is silent."
            if len(names) == 1
            else f"{len(names)} loops are silent: {', '.join(names)}."
        )
        rest = f"{means[:1].upper()}{means[1:]}. " if means else ""
        rest += "Other loops still run: the log of their process says why."
        yield Wrong("critical", fact, rest, min(loop.last_at for loop in silent), go)


def find_wrong(
    seen: Overview, unreachable: Sequence[UnreachableRedis] = (), *, is_suspended: bool = False
) -> list[Wrong]:
    """All problems, the worst first; empty when there are none.

    `is_suspended`: RQ's own flag suspends all workers, so no job starts, even if everything else works.
    """
    due = {queue.name: _due(queue) for queue in seen.queues if queue.due}
    found = find_wrong_sources(unreachable, seen.loops, due, seen.served)
    if is_suspended:
        rest = "They take no jobs of any queue until somebody runs `rq resume -u` with the URL of that Redis."
        fact = "All workers are suspended by RQ's own command."
        found.append(Wrong("critical", fact, rest, go=PageLink("See the workers", "workers", {})))
    return [*found, *(one for rule in _RULES for one in rule(seen))]


def say_well(seen: Overview) -> str:
    """The sentence that says what was checked, when there are no problems."""
    many = len(seen.alive)
    alive = f"{counted(many, 'worker')} {agree(many, 'sends', 'send')} heartbeats."
    whole = " Nothing is lost: the integrity check finds no difference." if seen.integrity else ""
    return f"No failed job is left from the last hour, every loop is running, {alive}{whole}"


def _due(queue: QueueDepth) -> Count:
    return Count.sum(queue.states[state].count for state in ("available", "queued"))


def _queue_without_worker(seen: Overview) -> Iterator[Wrong]:
    unserved = [queue for queue in seen.queues if queue.is_unserved]
    for queue in sorted(unserved, key=lambda queue: -queue.due):
        mine = [one for one in seen.workers if queue.name in one.queues]
        fact = f"Queue {queue.name} has {_counted(_due(queue), 'due job')} and no live worker."
        gone = f" {counted(len(mine), 'worker')} of it went silent." if mine else ""
        rest = f"Its jobs do not start: run `flask opsjobs worker {queue.name}`.{gone}"
        # Take the later time. When old workers leave the list, it can only move back, never forward.
        since = max(
            filter(None, [queue.due_since, *(one.heartbeat_at for one in mine)]), default=None
        )
        yield Wrong(
            "critical", fact, rest, since, PageLink("See its jobs", "jobs", {"queue": queue.name})
        )


_MACHINERY = PageLink("See the integrity check", "overview", {"_anchor": "machinery"})


def _jobs_differ(seen: Overview) -> Iterator[Wrong]:
    off = [check for check in seen.integrity if check.difference]
    for check in sorted(off, key=lambda check: -abs(check.difference)):
        number = abs(check.difference)
        if check.difference > 0:
            fact = f"Queue {check.queue} lacks {counted(number, 'enqueued job')}."
            rest = "Somebody deleted their rows outside the library."
        else:
            fact = f"Queue {check.queue} has {counted(number, 'job')} too many."
            rest = "Rows were inserted outside `enqueue`, for example by a partial restore of the database."
        yield Wrong("open", fact, rest, check.counted_at, _MACHINERY)


def _failed_lately(seen: Overview) -> Iterator[Wrong]:
    if seen.failed_last_hour.number:
        last = seen.failures[0].task if seen.failures else ""
        fact = f"{_counted(seen.failed_last_hour, 'job')} failed in the last hour."
        rest = f"The last one: {last}." if last else ""
        go = PageLink("See the failed jobs", "jobs", {"state": "failed"})
        yield Wrong("failed", fact, rest, seen.first_failure, go)


def _slots_missed(seen: Overview) -> Iterator[Wrong]:
    if not seen.missed:
        return
    number = sum(one.slots for one in seen.missed.values())
    last = max(one.last_at for one in seen.missed.values())
    fact = f"{counted(number, 'cron slot')} {agree(number, 'was', 'were')} missed in the last day."
    go = PageLink("See the cron entries", "cron", {})
    if len(seen.missed) == 1:
        (name,) = seen.missed
        fact = f"Cron entry {name} missed {counted(number, 'slot')} in the last day."
        go = PageLink("See the entry", "cron_entry", {"name": name})
    rest = f"The last one was due at {last:%Y-%m-%d %H:%M} UTC. Its entry says why, and can run it now."
    yield Wrong("late", fact, rest, go=go)


_WORKERS = PageLink("See the workers", "workers", {})


def _worker_missing(seen: Overview) -> Iterator[Wrong]:
    missing = [worker for worker in seen.workers if worker.state == "missing"]
    if not missing:
        return
    names = [worker.name for worker in missing]
    fact = f"Worker {names[0]} went missing within a day."
    if len(names) > 1:
        fact = f"{counted(len(names), 'worker')} went missing within a day: {_list(names)}."
    rest = "The jobs that ran there have been rescued."
    if seen.abandoned:
        verb = agree(seen.abandoned, "waits", "wait")
        rest = f"{counted(seen.abandoned, 'job')} that they were running {verb} for a rescue."
    since = min((one.ended_at for one in missing if one.ended_at), default=None)
    yield Wrong("missing", fact, rest, since, _WORKERS)


def _worker_late(seen: Overview) -> Iterator[Wrong]:
    if late := [worker for worker in seen.workers if worker.state == "late"]:
        names = [worker.name for worker in late]
        fact = f"Worker {names[0]} is late with its heartbeat."
        if len(names) > 1:
            fact = (
                f"{counted(len(names), 'worker')} are late with their heartbeats: {_list(names)}."
            )
        since = min(worker.heartbeat_at for worker in late)
        rest = "If no heartbeat comes, the jobs are rescued."
        yield Wrong("late", fact, rest, since, _WORKERS)


# What somebody must do about a stuck run, and how grave it is.
_STUCK = {
    "trouble": (
        "open",
        "cannot be advanced",
        "The loop `advance` tries again each second; the page of a run says what stops it.",
    ),
    "ambiguous": (
        "open",
        "{verb} an ambiguous signal",
        "Several waits are open for it: say for which it is.",
    ),
    "overdue": (
        "late",
        "{verb} been waiting for a signal for more than a day",
        "Send the signal, skip the wait, or cancel the run.",
    ),
}


def _runs_stuck(seen: Overview) -> Iterator[Wrong]:
    for why, (level, verb, todo) in _STUCK.items():
        runs = [run for run, need in seen.stuck if need == why]
        if not runs:
            continue
        says = verb.format(verb=agree(len(runs), "has", "have"))
        fact = f"{counted(len(runs), 'run')} of workflows {says}."
        go = PageLink("See the runs", "workflows", {})
        if len(runs) == 1:
            go = PageLink("See the run", "workflow", {"workflow_id": runs[0].id})
            fact = f"Run {runs[0].id} of a workflow {says}."
        yield Wrong(level, fact, todo, None, go)


def _cooldowns(seen: Overview) -> Iterator[Wrong]:
    for limiter in dict.fromkeys(one.limiter for one in seen.cooling):
        mine = [one for one in seen.cooling if one.limiter == limiter]
        longest = max(mine, key=lambda one: one.until)
        number = sum(one.number for one in seen.held if one.limiter == limiter and one.is_cooling)
        if not number:
            continue  # a cooldown that blocks no job is no problem
        some = sum(one.partitions for one in mine)
        whose = "Limiter" if not longest.partitions else f"{counted(some, 'partition')} of limiter"
        fact = f"{whose} {limiter} {_cools(longest.partitions and some)} until {longest.until:%H:%M:%S} UTC."
        more = "" if seen.is_all_held else " or more"
        rest = f"{counted(number, 'due job', more=more)} {agree(number, 'waits', 'wait')}."
        go = PageLink("See the limiter", "limiter", {"limiter": limiter})
        yield Wrong("blocked", fact, rest, longest.since, go, _quote(longest.by, longest.reason))


def _cools(partitions: int) -> str:
    return "cool down" if partitions > 1 else "cools down"


def _held_queues(seen: Overview) -> Iterator[Wrong]:
    for queue in seen.queues:
        decided, count = queue.decision, queue.states["available"].count
        if decided is None or queue.state == "open" or not count.number:
            continue
        how = "is paused" if queue.state == "paused" else "is draining"
        means = "Nothing is dispatched" if queue.state == "paused" else "Nothing more is dispatched"
        fact = f"Queue {queue.name} {how} with {_counted(count, 'due job')}."
        go = PageLink("See the queue", "queue", {"name": queue.name})
        yield Wrong(
            "blocked",
            fact,
            f"{means} until somebody resumes it.",
            decided.paused_at or queue.due_since,
            go,
            _quote(decided.paused_by, decided.paused_reason),
        )


def _quote(by: str | None, reason: str | None) -> str | None:
    """Who decided, and the reason in that person's words."""
    if by is None:
        return None
    return f"{by}: “{reason}”" if reason else by


def _live_jobs_differ(seen: Overview) -> Iterator[Wrong]:
    compared = min(
        (check.compared_at for check in seen.integrity if check.compared_at), default=None
    )
    for what, numbers in (
        ("queued, but not in Redis", [b.queued_nowhere for b in seen.integrity]),
        ("started, but reserved by no worker", [b.started_unreserved for b in seen.integrity]),
        ("in Redis, but without a row in Postgres", [b.orphan_deliveries for b in seen.integrity]),
    ):
        if number := sum(numbers):
            fact = f"{counted(number, 'job')} {agree(number, 'is', 'are')} {what}."
            yield Wrong(
                "warned", fact, "The loops correct this by themselves.", compared, _MACHINERY
            )


def _loop_failed(seen: Overview) -> Iterator[Wrong]:
    if failing := [loop for loop in seen.loops if loop.error and loop.is_running]:
        names = [loop.loop for loop in failing]
        fact = f"The loop {names[0]} failed in the last pass."
        if len(names) > 1:
            fact = f"{len(names)} loops failed in the last pass: {_list(names)}."
        go = PageLink("See the loops", "overview", {"_anchor": "machinery"})
        since = min(loop.last_at for loop in failing)
        yield Wrong("warned", fact, "The next pass runs by itself.", since, go)


def _no_worker(seen: Overview) -> Iterator[Wrong]:
    if not seen.alive:
        since = max((one.heartbeat_at for one in seen.workers), default=None)
        yield Wrong(
            "warned", "No worker is running.", "Start one: `flask opsjobs worker`.", since, _WORKERS
        )


_RULES: Sequence[Callable[[Overview], Iterator[Wrong]]] = (
    _queue_without_worker,
    _jobs_differ,
    _failed_lately,
    _runs_stuck,
    _slots_missed,
    _worker_missing,
    _no_worker,
    _worker_late,
    _cooldowns,
    _held_queues,
    _live_jobs_differ,
    _loop_failed,
)


def _counted(count: Count, noun: str) -> str:
    more = " or more" if count.kind == "at_least" else ""
    return counted(count.number, noun, more=more)


def _list(names: Sequence[str]) -> str:
    """`a and b`; `a, b and 3 more`."""
    if len(names) <= 2:
        return " and ".join(names)
    return f"{', '.join(names[:2])} and {len(names) - 2} more"
