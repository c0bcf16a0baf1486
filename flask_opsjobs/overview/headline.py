"""Makes the overview's headline of sources, incidents, failures and what people decided, the worst first."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby

from ..core.redis_facts import UnreachableRedis
from ..core.words import agree, counted
from ..jobs.rows import Count
from ..lifeline.detectors import DETECTORS, detector_of
from ..lifeline.lifecycle import SHOWN_AS
from ..lifeline.loop_runs import LoopRow
from ..lifeline.queries import IncidentRow
from .queries import Overview, QueueDepth

# What does not happen while a loop is silent. No other loop or process does its work.
_STANDS_STILL = {
    "dispatch": "due jobs start only after a commit, or when a busy worker takes them",
    "stage": "scheduled and retryable jobs do not become due",
    "cron": "no cron slot runs",
    "expire": "deadlines are not enforced for waiting jobs",
    "detect": "nobody looks for incidents",
    "escalate": "the escalation policy is not called",
    "watch": "jobs of missing workers are not rescued",
    "recall": "jobs that Redis lost are not dispatched again",
    "observe": "plain RQ workers are not seen",
    "retain": "old jobs are not removed",
    "roll_up": "the charts get no new numbers",
    "check_integrity": "no integrity check is made",
    "verify_audit": "nobody verifies the audit",
}
_LOST = "None is lost: Postgres keeps them"
# The doctor says these too.
NO_WORKER = "No worker is running."
NO_LOOP_MEANS = (
    "Nobody looks for incidents, scheduled and retryable jobs do not become due, and jobs of dead workers "
    "are not rescued."
)
NOT_COUNTED = "Whether a job is lost is not known: no integrity check is made."
WHY_SILENT = (
    "The log of their process, `flask opsjobs run`, says why. If it has ended, start it again."
)
_RUN_LOOPS = "Start `flask opsjobs run`."
NOBODY_LOOKS = (
    "Nobody looks for incidents.",
    "The loop detect has never run. Restart the loops, so that they know it.",
)


@dataclass(frozen=True)
class PageLink:
    """A link to a page: an endpoint with its values; or the page of `target`, below that endpoint.

    `text` is shown without a link to readers who may not go there.
    """

    text: str
    endpoint: str
    values: Mapping[str, str | int]
    target: str = ""


@dataclass(frozen=True)
class Wrong:
    """One problem: a status word, the fact, what it means or what to do, its start, and a page to open.

    `quote` is what a person wrote about it, and must pass the display policy. `since` is None when it is not
    known. `incident` is the one that it tells of: its next step is that of the incident. `run` says which
    command ends it; a phone shows it without `rest`. `source` is as in a `Problem` of a page.
    """

    level: str
    fact: str
    rest: str = ""
    since: datetime | None = None
    go: PageLink | None = None
    quote: str | None = None
    incident: IncidentRow | None = None
    run: str = ""
    source: str | None = None


# So many lines at most tell of queues, and of tasks, that people hold.
_MOST_ALIKE = 4
_LEVELS = {severity: level for severity, (level, _) in SHOWN_AS.items()}
_LIFELINE = PageLink("See Lifeline", "lifeline", {})
_WORKERS = PageLink("See the workers", "workers", {})


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
    fact = say_silent(loops)
    if len(silent) == len(loops):
        waiting = Count.sum(due.values()) if due else Count(0)
        many = f" {_say_waiting(waiting)}" if waiting.number else ""
        since = max((loop.last_at for loop in silent), default=None)
        yield Wrong("critical", fact, f"{NO_LOOP_MEANS}{many}", since, _LIFELINE, run=_RUN_LOOPS)
    elif silent:
        names = [loop.loop for loop in silent]
        effects = [_STANDS_STILL[name] for name in names if name in _STANDS_STILL][:2]
        means = "; ".join(effects)
        rest = f"{means[:1].upper()}{means[1:]}. " if means else ""
        rest += WHY_SILENT
        yield Wrong("critical", fact, rest, min(loop.last_at for loop in silent), _LIFELINE)


def say_silent(loops: Sequence[LoopRow]) -> str:
    """Which of the loops are silent, in a sentence; empty when all run."""
    silent = [loop.loop for loop in loops if not loop.is_running]
    if len(silent) == len(loops):
        return "No background loop is running." if loops else "No background loop has ever run."
    if len(silent) == 1:
        return f"The loop {silent[0]} is silent."
    return f"{len(silent)} loops are silent: {', '.join(silent)}." if silent else ""


def find_wrong(
    seen: Overview, unreachable: Sequence[UnreachableRedis] = (), *, is_suspended: bool = False
) -> list[Wrong]:
    """All problems, the worst first; empty when there are none.

    First what this process sees itself: sources that do not answer, and RQ's own flag, which suspends all
    workers. Then open incidents, one line for each class; failures that are new or back and have no incident;
    and what people decided that holds due jobs.
    """
    due = {queue.name: _due(queue) for queue in seen.queues if queue.due}
    found = find_wrong_sources(unreachable, seen.loops, due, seen.served)
    if is_suspended:
        fact = "All workers are suspended by RQ's own command."
        rest = "They take no jobs of any queue until somebody ends it."
        run = "Run `rq resume -u` with the URL of that Redis."
        found.append(Wrong("critical", fact, rest, go=_WORKERS, run=run))
    if seen.loops and not any(loop.loop == "detect" for loop in seen.loops):
        found.append(Wrong("critical", *NOBODY_LOOKS, go=_LIFELINE, run=_RUN_LOOPS))
    by_subject = {(row.class_, row.subject): row for row in seen.incidents}
    for number, one in enumerate(unreachable):
        if (told := by_subject.get(("redis_away", f"redis/{one.place}"))) is not None:
            level = _LEVELS[told.severity]
            found[number] = replace(found[number], level=level, go=_to_incident(told))
    incidents = _without_said(seen, unreachable)
    found += _incidents([each for each in incidents if each.severity == "critical"], seen)
    found += _failures(seen)
    found += _incidents([each for each in incidents if each.severity != "critical"], seen)
    held = [
        *_first_few([*_paused_tasks(seen)], "task", "paused"),
        *_first_few([*_held_queues(seen)], "queue", "paused or draining with due jobs"),
    ]
    return [*found, *_no_worker(seen), *_cooldowns(seen), *held]


def _first_few(found: Sequence[Wrong], noun: str, how: str) -> Sequence[Wrong]:
    """The first few of what is held in the same way, and the others as one line."""
    if len(found) <= _MOST_ALIKE:
        return found
    few, others = found[: _MOST_ALIKE - 1], found[_MOST_ALIKE - 1 :]
    fact = f"{len(others):,} more {noun}s are {how}."
    since = min((each.since for each in others if each.since), default=None)
    go = PageLink(f"See the {noun}s", f"{noun}s", {})
    return [*few, replace(others[0], fact=fact, rest="", since=since, go=go, quote=None)]


def say_whole(seen: Overview) -> str:
    """Whether a job is lost, as far as the integrity check tells; empty before the first one."""
    if not seen.integrity:
        return ""
    if not any(loop.loop == "check_integrity" and loop.is_running for loop in seen.loops):
        return NOT_COUNTED
    off = [check.queue for check in seen.integrity if check.difference]
    if off:
        return f"The integrity check shows a difference: {_list(off)}."
    return "No managed job is lost."


def _due(queue: QueueDepth) -> Count:
    return Count.sum(queue.states[state].count for state in ("available", "queued"))


def _without_said(seen: Overview, unreachable: Sequence[UnreachableRedis]) -> Sequence[IncidentRow]:
    """The open incidents without those that say what a line above says of a source."""
    away = {("redis_away", f"redis/{one.place}") for one in unreachable}
    silent = {("loop_silent", f"loop/{each.loop}") for each in seen.loops if not each.is_running}
    said = away | silent
    return [each for each in seen.incidents if (each.class_, each.subject) not in said]


def _incidents(rows: Sequence[IncidentRow], seen: Overview) -> Iterator[Wrong]:
    """A line for each class, the classes that affect most first."""
    classes: dict[str, list[IncidentRow]] = {}
    for row in rows:
        classes.setdefault(row.class_, []).append(row)
    for same in sorted(classes.values(), key=lambda same: -sum(row.affected for row in same)):
        yield _incident(same[0]) if len(same) == 1 else _alike(same, seen.has_more_incidents)


def _incident(row: IncidentRow) -> Wrong:
    level, go, why = _LEVELS[row.severity], _to_incident(row), row.why
    if row.subject.startswith("failure/"):
        # The error itself is payload: the page of the failure shows it to those who may see it.
        why = f"{counted(row.affected, 'job')} failed with the same error."
    return Wrong(level, f"{row.title}.", why, row.opened_at, go, incident=row)


def _to_incident(row: IncidentRow) -> PageLink:
    if row.subject.startswith("failure/"):
        return PageLink("See the failure", "lifeline", {}, target=row.subject)
    return PageLink(f"See incident {row.id}", "lifeline", {}, target=f"incident/{row.id}")


def _alike(rows: Sequence[IncidentRow], has_more: bool) -> Wrong:
    """Many incidents of one class as one line: how many, and the first names."""
    detector = detector_of(rows[0].class_)
    more = " or more" if has_more else ""
    fact = f"{detector.title}: {counted(len(rows), 'incident', more=more)}."
    rest = "; ".join(row.title for row in rows[:2])
    rest += f"; {len(rows) - 2} more." if len(rows) > 2 else "."
    values = {"class": detector.class_} if detector.class_ in DETECTORS else {}
    go = PageLink("See them", "lifeline", values)
    return Wrong(_LEVELS[rows[0].severity], fact, rest, min(row.opened_at for row in rows), go)


def _failures(seen: Overview) -> Iterator[Wrong]:
    """Failures that are new or back, as far as no incident says so."""
    fresh = [each for each in seen.failures.worst if each.is_fresh and not each.has_incident]
    if not fresh:
        return
    worst = fresh[0]
    go = PageLink("See the failure", "lifeline", {}, target=f"failure/{worst.id}")
    since = worst.regressed_at or worst.first_at
    if len(fresh) == 1:
        how = "fails again" if worst.regressed_at else "fails with a new error"
        deploy = worst.regressed_in if worst.regressed_at else worst.first_in
        fact = f"{worst.task} {how}{f', since deploy {deploy}' if deploy else ''}."
        jobs = agree(worst.jobs, "job", "jobs")
        yield Wrong("failed", fact, f"{worst.jobs:,} {jobs} failed with it.", since, go)
        return
    names = list(dict.fromkeys(each.task for each in fresh))
    fact = f"{len(fresh)} failures are new or regressed: {_list(names)}."
    jobs = agree(worst.jobs, "job", "jobs")
    rest = f"The worst: {worst.jobs:,} {jobs} of {worst.task}."
    yield Wrong("failed", fact, rest, min(each.regressed_at or each.first_at for each in fresh), go)


def _cooldowns(seen: Overview) -> Iterator[Wrong]:
    for limiter in dict.fromkeys(one.limiter for one in seen.cooling):
        mine = [one for one in seen.cooling if one.limiter == limiter]
        longest = max(mine, key=lambda one: one.until)
        number = sum(one.number for one in seen.held if one.limiter == limiter and one.is_cooling)
        if not number and seen.is_all_held:
            continue  # a cooldown that blocks no job is no problem
        some = sum(one.partitions for one in mine)
        whose = "Limiter" if not longest.partitions else f"{counted(some, 'partition')} of limiter"
        fact = f"{whose} {limiter} {_cools(longest.partitions and some)} until {longest.until:%H:%M:%S} UTC."
        rest = _say_held(number, is_all=seen.is_all_held)
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


def _paused_tasks(seen: Overview) -> Iterator[Wrong]:
    is_all = seen.live["available"].count.kind == "exact"
    for name, of_task in groupby(seen.paused, key=lambda one: one.task):
        jobs = list(of_task)
        number = sum(one.number for one in jobs)
        if not number and is_all:
            continue  # as a paused queue without due jobs, it blocks none
        go = PageLink("See the task", "task", {"name": name})
        yield Wrong(
            "blocked",
            f"Task {name} is paused until somebody resumes it.",
            _say_held(number, is_all=is_all),
            jobs[0].paused_at,
            go,
            _quote(jobs[0].paused_by, jobs[0].paused_reason),
        )


def _say_held(number: int, *, is_all: bool) -> str:
    """How many due jobs wait for what somebody decided, when perhaps not all due jobs were examined."""
    if not number:
        return "None of the oldest due jobs waits for it; younger ones were not examined."
    more = "" if is_all else " or more"
    return f"{counted(number, 'due job', more=more)} {agree(number, 'waits', 'wait')}."


def _quote(by: str | None, reason: str | None) -> str | None:
    """Who decided, and the reason in that person's words."""
    if by is None:
        return None
    return f"{by}: “{reason}”" if reason else by


def _no_worker(seen: Overview) -> Iterator[Wrong]:
    if not seen.alive:
        since = max((one.heartbeat_at for one in seen.workers), default=None)
        yield Wrong(
            "warned", NO_WORKER, since=since, go=_WORKERS, run="Start one: `flask opsjobs worker`."
        )


def _counted(count: Count, noun: str) -> str:
    more = " or more" if count.kind == "at_least" else ""
    return counted(count.number, noun, more=more)


def _list(names: Sequence[str]) -> str:
    """`a and b`; `a, b and 3 more`."""
    if len(names) <= 2:
        return " and ".join(names)
    return f"{', '.join(names[:2])} and {len(names) - 2} more"
