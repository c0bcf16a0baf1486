"""Reads the overview page: queues, workers and loops, incidents, failures, and what needs an operator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, bindparam, literal, select, union_all
from sqlalchemy.orm import Session

from ..core import sql
from ..core.round_trips import StartedRead, start_reading
from ..jobs.lifecycle import FINAL, STATES
from ..jobs.rows import Count
from ..lifeline import queries as incident_queries
from ..lifeline.integrity import IntegrityRow, list_integrity_checks
from ..lifeline.loop_runs import LoopRow, list_loops
from ..lifeline.queries import MOST_COUNTED, IncidentFilter, IncidentRow, count_up_to
from ..limits import bucket, stored_buckets
from ..limits.models import Bucket, Limiter
from ..queues import queries as queue_queries
from ..queues.lifecycle import state_of
from ..queues.queries import QueueRow
from ..workers import queries as worker_queries
from ..workers.queries import WorkerRow, served_by
from ..workflows import queries as workflow_queries
from ..workflows.queries import RunRow
from .failure_queries import Failures, find_failures

LIVE = tuple(state for state in STATES if state not in FINAL)
DUE = ("available", "queued")
# Open incidents above the cards. More of them are said to be more.
_MOST_INCIDENTS = 200
# Pages that only show how many jobs wait for a source that does not answer count up to this.
_MOST_DUE = 1_000
# The failed jobs that wait for a decision are counted up to this, on pages and in the navigation.
MOST_FAILED = 1_000
# The live jobs of a state are counted by queue up to this: 10,000 of them took 11 ms of a page.
_MOST_LIVE = 5_000
_MOST_EVENTS = 500
_GROUPS = 3
_MOST_BUCKETS = 500
_MOST_COOLING = 50
_MOST_PAUSED = 50


@dataclass(frozen=True)
class StateDepth:
    """The number of jobs in a live state. `since` is when the first of them entered the state or was due.

    `managed` is how many of them are managed jobs; the others are plain RQ jobs.
    """

    count: Count
    since: datetime | None = None
    managed: int = 0


@dataclass(frozen=True)
class QueueDepth:
    """A queue: an operator's decision about it, its listening workers, and its live jobs by state."""

    name: str
    decision: QueueRow | None
    listeners: int
    states: Mapping[str, StateDepth]

    @property
    def state(self) -> str:
        """`open`, `draining` or `paused`."""
        decided = self.decision
        return state_of(decided.is_paused, decided.is_draining) if decided else "open"

    @property
    def due(self) -> int:
        """How many jobs are due now; a lower bound when counting stopped early."""
        return sum(self.states[state].count.number for state in DUE)

    @property
    def is_unserved(self) -> bool:
        """Whether managed jobs are due and no worker listens, although nobody has stopped the queue.

        Plain RQ jobs may have workers that this database does not know.
        """
        is_due = any(self.states[state].managed for state in DUE)
        return self.state == "open" and is_due and not self.listeners

    @property
    def due_since(self) -> datetime | None:
        """Since when the first due job waits."""
        return min((moment for state in DUE if (moment := self.states[state].since)), default=None)


@dataclass(frozen=True)
class Overview:
    """All numbers of the overview page, read in one transaction."""

    queues: Sequence[QueueDepth]
    live: Mapping[str, StateDepth]
    next_due: datetime | None
    # The open incidents that need a person, the worst first, and whether there are more.
    incidents: Sequence[IncidentRow]
    has_more_incidents: bool
    # When the last incident ended, of those that are stored, and how many ended by themselves within a day.
    incident_ended_at: datetime | None
    cleared: Count
    failures: Failures
    # Failed jobs without a decision.
    failed: Count
    held: Sequence[Held]
    is_all_held: bool
    cooling: Sequence[CooldownSummary]
    paused: Sequence[PausedJobs]
    abandoned: int
    workers: Sequence[WorkerRow]
    loops: Sequence[LoopRow]
    integrity: Sequence[IntegrityRow]
    # Runs that cannot go on by themselves, with why: at most 25, the gravest first.
    stuck: Sequence[tuple[RunRow, str]]

    @property
    def alive(self) -> Sequence[WorkerRow]:
        """The workers that are alive and listen."""
        return [worker for worker in self.workers if worker.is_listening]

    @property
    def served(self) -> set[str]:
        """The queues whose jobs a live worker takes straight from Postgres, also without Redis."""
        return served_by(self.workers)


def find_overview(
    session: Session, now: datetime, late_seconds: float, loops_off: Collection[str] = ()
) -> Overview:
    """The numbers of the overview page as of `now`. Their cost does not grow with the number of jobs.

    `loops_off` are the loops that the settings turn off.
    """
    # It takes longest, so Postgres executes it first, while the others are made.
    sample = start_reading(session, _sample)
    workers = start_reading(session, worker_queries.list_workers, now, late_seconds)
    names = start_reading(session, queue_queries.list_queue_names, queue_queries.MOST_QUEUES)
    decided = start_reading(session, queue_queries.list_decisions)
    open_ones = start_reading(
        session,
        incident_queries.page_of_open_incidents,
        IncidentFilter(),
        limit=_MOST_INCIDENTS,
    )
    failures = start_reading(session, find_failures, now)
    held = start_reading(session, find_held, now)
    cooling = start_reading(session, list_cooldowns, now)
    paused = start_reading(session, list_paused_jobs)
    loops = start_reading(session, list_loops, now, loops_off)
    integrity = start_reading(session, list_integrity_checks)
    stuck = start_reading(session, _list_stuck, now)
    facts = find_single_facts(session, now)
    return Overview(
        queues=_queues(names.value, sample.value, workers.value, decided.value),
        live={state: _sum(state, sample.value) for state in LIVE},
        next_due=facts.next_due,
        incidents=open_ones.value[0],
        has_more_incidents=open_ones.value[1],
        incident_ended_at=facts.incident_ended_at,
        cleared=facts.cleared,
        failures=failures.value,
        failed=facts.failed,
        held=held.value[0],
        is_all_held=held.value[1],
        cooling=cooling.value,
        paused=paused.value,
        abandoned=facts.abandoned,
        workers=workers.value,
        loops=loops.value,
        integrity=integrity.value,
        stuck=stuck.value,
    )


def _list_stuck(session: Session, now: datetime) -> Sequence[tuple[RunRow, str]]:
    in_need = workflow_queries.list_runs_that_need_help(session, now)
    # A run that failed is not stuck; its jobs are among the failed ones.
    return [(run, why) for run, why in in_need if why != "failed"]


def find_queues(
    session: Session,
    workers: StartedRead[Sequence[WorkerRow]],
    decided: StartedRead[Mapping[str, QueueRow]],
) -> Sequence[QueueDepth]:
    """Every queue named by a job, by one of `workers` or in `decided`, with its depth.

    Of queues that only ended jobs name, the first 5,000.
    """
    names = start_reading(session, queue_queries.list_queue_names, queue_queries.MOST_QUEUES)
    sample = _sample(session)
    return _queues(names.value, sample, workers.value, decided.value)


def count_due(session: Session) -> Mapping[str, Count]:
    """How many jobs are due or dispatched, by queue. Above 1,000 jobs the counts are lower bounds."""
    params = {"states": list(DUE), "most": _MOST_DUE + 1}
    rows = session.connection().exec_driver_sql(sql.load("sample_live_jobs"), params).all()
    is_cut = sum(row.number for row in rows) > _MOST_DUE
    due: dict[str, Count] = {}
    for row in rows:
        before = due[row.queue].number if row.queue in due else 0
        due[row.queue] = Count(before + row.number, "at_least" if is_cut else "exact")
    return due


Sample = Mapping[tuple[str, str], StateDepth]


def _sample(session: Session) -> Sample:
    """The live jobs by state and queue. The counts of a state with more than 5,000 jobs are lower bounds."""
    params = {"states": list(LIVE), "most": _MOST_LIVE + 1}
    rows = session.connection().exec_driver_sql(sql.load("sample_live_jobs"), params).all()
    seen = dict.fromkeys(LIVE, 0)
    for state, _, number, _, _ in rows:
        seen[state] += number
    kinds = {
        state: "at_least" if number > _MOST_LIVE else "exact" for state, number in seen.items()
    }
    return {
        (state, queue): StateDepth(Count(min(number, _MOST_LIVE), kinds[state]), since, managed)
        for state, queue, number, since, managed in rows
    }


def _sum(state: str, sample: Sample) -> StateDepth:
    depths = [depth for (of_state, _), depth in sample.items() if of_state == state]
    since = min((depth.since for depth in depths if depth.since), default=None)
    counted = Count.sum(depth.count for depth in depths)
    return StateDepth(Count(min(counted.number, _MOST_LIVE), counted.kind), since)


def count_listeners(
    queues: Sequence[QueueDepth], workers: Sequence[WorkerRow]
) -> Sequence[QueueDepth]:
    """The queues, each with as many listeners as these workers are."""
    listened = _listened(workers)
    return [replace(queue, listeners=listened[queue.name]) for queue in queues]


def _listened(workers: Sequence[WorkerRow]) -> Counter[str]:
    return Counter(name for one in workers if one.is_listening for name in one.queues)


def _queues(
    named: Sequence[str],
    sample: Sample,
    workers: Sequence[WorkerRow],
    decided: Mapping[str, QueueRow],
) -> Sequence[QueueDepth]:
    known = {name for one in workers if one.state != "missing" for name in one.queues}
    listened = _listened(workers)
    names = {*named, *(queue for _, queue in sample), *decided, *known}
    capped = {state for (state, _), depth in sample.items() if depth.count.kind == "at_least"}
    nothing = {
        state: StateDepth(Count(0, "at_least" if state in capped else "exact")) for state in LIVE
    }
    return [
        QueueDepth(
            name,
            decided.get(name),
            listened[name],
            {state: sample.get((state, name), nothing[state]) for state in LIVE},
        )
        for name in sorted(names)
    ]


@dataclass(frozen=True)
class RecentAction:
    """A decision about jobs that was executed, and the number of its jobs."""

    sequence: int
    at: datetime
    actor: str
    action: str
    number: int


@dataclass(frozen=True)
class Resolved:
    """The decisions about jobs since a moment: the number of jobs by action, and the largest decisions.

    Of an operation, the jobs that it has changed so far.
    """

    count: Count
    by_action: Mapping[str, int]
    actions: Sequence[RecentAction]


@dataclass(frozen=True)
class SingleFacts:
    """What the overview says once.

    `failed` are failed jobs without a decision. `abandoned` are started jobs that have lost their worker and
    are not rescued yet. `next_due` is when the next scheduled or retryable managed job is due. `cleared`
    incidents ended by themselves within a day; the last incident ended at `incident_ended_at`.
    """

    failed: Count
    abandoned: int
    next_due: datetime | None
    incident_ended_at: datetime | None
    cleared: Count


def find_single_facts(session: Session, now: datetime) -> SingleFacts:
    """Read them as of `now`. With 1,000 failed jobs or more their number is a lower bound."""
    params = {
        "most": MOST_FAILED,
        "since": now - timedelta(days=1),
        "most_cleared": MOST_COUNTED + 1,
    }
    found = session.connection().exec_driver_sql(sql.load("read_single_facts"), params).one()
    return SingleFacts(
        Count(found.failed, "at_least" if found.examined >= MOST_FAILED else "exact"),
        found.abandoned,
        found.next_due,
        found.incident_ended_at,
        count_up_to(found.cleared),
    )


def find_resolved(session: Session, since: datetime) -> Resolved:
    """The decisions about jobs since `since`, among the last 500 decisions of any kind."""
    params = {"since": since, "most": _MOST_EVENTS, "groups": _GROUPS}
    rows = session.connection().exec_driver_sql(sql.load("list_recent_actions"), params).all()
    by_action = {row.action: row.of_action for row in rows if row.of_action}
    is_cut = bool(rows) and rows[0].is_cut
    count = Count(sum(by_action.values()), "at_least" if is_cut else "exact")
    return Resolved(
        count, by_action, [RecentAction(*row[:5]) for row in rows[:_GROUPS] if row.number]
    )


@dataclass(frozen=True)
class Held:
    """Due jobs of one queue that a limiter does not let start now, in one or more of its partitions.

    `since` is when the first of them was due. `is_cooling`: a cooldown is the reason; else its places or
    tokens are used up.
    """

    limiter: str
    queue: str
    number: int
    since: datetime
    is_cooling: bool


@dataclass(frozen=True)
class CooldownSummary:
    """An operator's cooldown of a limiter, or of `partitions` of its partitions for the same reason."""

    limiter: str
    until: datetime
    since: datetime
    by: str
    reason: str | None
    partitions: int = 0


@dataclass(frozen=True)
class PausedJobs:
    """A paused task, and how many of its jobs are due in one queue, the first of them since `since`.

    `queue` is None when none of the oldest due jobs is of this task.
    """

    task: str
    paused_at: datetime
    paused_by: str
    paused_reason: str
    queue: str | None
    number: int
    since: datetime | None


def list_paused_jobs(session: Session) -> Sequence[PausedJobs]:
    """The due jobs of the first 50 paused tasks, by task and queue. Only the oldest due jobs are examined."""
    params = {"most": _MOST_LIVE + 1, "tasks": _MOST_PAUSED}
    rows = session.connection().exec_driver_sql(sql.load("sample_paused_jobs"), params)
    return [PausedJobs(*row) for row in rows]


def find_held(session: Session, now: datetime) -> tuple[Sequence[Held], bool]:
    """The due jobs that limiters hold back, and whether these are all: only the oldest jobs are examined."""
    params = {"most": _MOST_LIVE + 1, "buckets": _MOST_BUCKETS}
    connection = session.connection()
    found_rows = connection.exec_driver_sql(sql.load("sample_limited_jobs"), params).all()
    is_all = found_rows[0].examined <= _MOST_LIVE
    rows = [row for row in found_rows if row.limiter is not None]
    if not rows:
        return [], is_all
    keys = [(row.limiter, row.partition) for row in rows]
    found: dict[tuple[str, str, bool], Held] = {}
    buckets = stored_buckets.list_buckets(connection, keys)
    for row, seen in zip(rows, buckets, strict=True):
        # Jobs of an undeclared limiter are not dispatched.
        room = 0 if seen.shape is None else bucket.room(seen.shape, seen.level, now)
        if room is None or room >= row.weight:
            continue
        number = row.number - int(row.number * room / row.weight)
        until = seen.level.cooldown_until
        key = (row.limiter, row.queue, until is not None and until > now)
        before = found.get(key)
        since = row.since if before is None else min(before.since, row.since)
        found[key] = Held(
            row.limiter, row.queue, number + (before.number if before else 0), since, key[2]
        )
    return list(found.values()), is_all and sum(row.number for row in rows) == rows[0].total


def _cooling(table: type[Limiter] | type[Bucket], name: Any, *, is_partition: bool) -> Select[Any]:
    decided = table.cooldown_until, table.cooldown_at, table.cooldown_by, table.cooldown_reason
    longest = (
        select(literal(is_partition), name, *decided)
        .where(table.cooldown_until > bindparam("now"))
        .order_by(table.cooldown_until.desc())
        .limit(_MOST_COOLING)
    )
    return select(longest.subquery())


# Built once, as in overview/pace_queries.py.
_COOLING = union_all(
    _cooling(Limiter, Limiter.name, is_partition=False),
    _cooling(Bucket, Bucket.limiter, is_partition=True),
)


def list_cooldowns(session: Session, now: datetime) -> Sequence[CooldownSummary]:
    """The current cooldowns: of limiters, then of partitions, longest first; at most 50 of each kind."""
    rows = session.execute(_COOLING, {"now": now}).all()
    longest = sorted(rows, key=lambda row: row[2], reverse=True)
    found = [CooldownSummary(*row[1:]) for row in longest if not row[0]]
    partitions = Counter(CooldownSummary(*row[1:]) for row in longest if row[0])
    return [*found, *(replace(one, partitions=number) for one, number in partitions.items())]
