"""Reads runs of workflows for pages: a page of runs, those that need a person, and one run with its steps.

Returns payload as it is stored; pages apply the display policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, ScalarSelect, Text, cast, literal, select, tuple_
from sqlalchemy.orm import Session

from ..core import sql
from ..core.db import LARGEST_ID
from ..core.round_trips import start_reading
from ..jobs.models import Callback, Job, Output
from ..jobs.rows import CAP, Count, OutputRow
from .lifecycle import HOLDS_UP, MOST_LATE_SIGNALS, OPEN, STATES
from .models import EdgeRecord, SignalRecord, StepRecord, WorkflowRecord

# Begin, end and outcome of an attempt.
Attempt = tuple[datetime, datetime | None, str | None]
# A wait that is open longer, and a run that failed since, need a person.
OVERDUE = timedelta(days=1)
MOST_IN_NEED = 25
# A page of runs looks at so many released jobs and open waits of each run; the list of what needs help, at so
# many open waits of all runs.
_EXAMINED_JOBS = 1_000
EXAMINED_WAITS = 1_000
# How long a run usually takes: among so many runs of its name, if so many of them finished.
_EXAMINED_RUNS, _FEWEST_RUNS = 50, 3
MOST_STEPS = 50_000
_NEWEST_RUNS = 500
_EXAMINED_GOOD = 200
_MOST_SIGNALS = 50
_MOST_CALLBACKS = 20
_MOST_ATTEMPTS = 20


@dataclass(frozen=True)
class RunRow:
    """A run as lists show it."""

    id: int
    name: str
    state: str
    steps: int
    settled: int
    finished: int
    failed: int
    canceled: int
    created_at: datetime
    ended_at: datetime | None
    ended_by: str | None
    ended_by_step: str | None
    deadline_at: datetime | None
    cancel_requested_at: datetime | None
    cancel_requested_by: str | None
    cancel_reason: str | None
    end_no: int
    trouble: str | None

    @property
    def is_open(self) -> bool:
        """Whether it has not ended."""
        return self.state in OPEN

    def seconds(self, now: datetime) -> float:
        """How long it took, or takes so far."""
        return ((self.ended_at or now) - self.created_at).total_seconds()


@dataclass(frozen=True)
class RunPage:
    """A page of runs, the newest first."""

    rows: Sequence[RunRow]
    has_newer: bool
    has_older: bool


@dataclass(frozen=True)
class HeldUpBy:
    """A released step that has not ended, and the number of such steps of its run, `released`.

    `waiting` is the name of a step that waits for it, if there is one.
    """

    id: int
    name: str
    kind: str
    state: str
    attempt: int
    max_attempts: int
    due_at: datetime
    started_at: datetime | None
    deadline_at: datetime | None
    signals: Sequence[str] | None
    key: str
    opened_at: datetime | None
    waiting: str | None
    released: int


def page_of_runs(
    session: Session,
    *,
    state: str | None = None,
    name: str | None = None,
    limit: int = 25,
    before: int | None = None,
    after: int | None = None,
) -> RunPage:
    """The newest runs that fit; `before` an id, only older runs; `after` an id, the next newer runs.

    Of a name with a state, only the newest 10,000 runs of the name are examined.
    """
    low, high = (after or 0) + 1, LARGEST_ID if before is None else before
    is_newest_first = after is None
    column = WorkflowRecord.name if name is not None else WorkflowRecord.state
    value = name if name is not None else state
    keys: list[Any] = [WorkflowRecord.id]
    bounds: list[list[Any]] = [[low], [high]]
    if value is not None:
        # A range of one value instead of an equality, so that the planner walks the index of this column.
        keys.insert(0, column)
        for bound in bounds:
            bound.insert(0, literal(value, Text))
    order = [key.desc() if is_newest_first else key for key in keys]
    chosen = select(*_columns(WorkflowRecord, RunRow))
    within = (tuple_(*keys) >= tuple_(*bounds[0]), tuple_(*keys) < tuple_(*bounds[1]))
    chosen = chosen.where(*within).order_by(*order)
    if name is not None and state is not None:
        newest = chosen.limit(CAP).subquery()
        chosen = select(newest).where(newest.c.state == state)
    rows = [RunRow(*row) for row in session.execute(chosen.limit(limit + 1))]
    has_more = len(rows) > limit
    rows = rows[:limit]
    if is_newest_first:
        return RunPage(rows, before is not None, has_more)
    if not has_more:  # fewer newer runs than a page holds: show the full first page
        return page_of_runs(session, state=state, name=name, limit=limit)
    return RunPage(rows[::-1], True, True)


def find_run_row(session: Session, run_id: int) -> RunRow | None:
    """The run with this id as lists show it, or None."""
    chosen = select(*_columns(WorkflowRecord, RunRow)).where(WorkflowRecord.id == run_id)
    row = session.execute(chosen).one_or_none()
    return None if row is None else RunRow(*row)


def list_runs_that_need_help(session: Session, now: datetime) -> Sequence[tuple[RunRow, str]]:
    """The runs that need an operator, and why, the gravest first, at most 25.

    `trouble`: it cannot be advanced. `ambiguous`: a signal is for several waits. `overdue`: a wait has been
    open for more than a day. `failed`: it failed within a day.
    """
    params = {"most_runs": MOST_IN_NEED, "examined": EXAMINED_WAITS, "since": now - OVERDUE}
    rows = session.connection().exec_driver_sql(sql.load("read_runs_that_need_help"), params)
    return [(RunRow(*row[:-1]), row[-1]) for row in rows]


def find_what_holds_up(session: Session, runs: Iterable[RunRow]) -> Mapping[int, HeldUpBy]:
    """By run, the released step that most likely holds it up; none for a run without such a step.

    At most 1,000 released jobs and 1,000 open waits of a run are examined.
    """
    ids = [run.id for run in runs if run.is_open]
    return find_frontiers(session, ids) if ids else {}


def find_frontiers(session: Session, ids: Sequence[int]) -> Mapping[int, HeldUpBy]:
    """Do what `find_what_holds_up` does, for runs of which only the ids are known."""
    params = {"ids": list(ids), "states": list(HOLDS_UP), "examined": _EXAMINED_JOBS}
    rows = session.connection().exec_driver_sql(sql.load("list_frontiers"), params)
    return {row[0]: HeldUpBy(*row[1:]) for row in rows}


def find_usual_seconds(session: Session, names: Iterable[str]) -> Mapping[str, float]:
    """By name, how long a run usually takes: the median of its last runs that finished."""
    params = {
        "names": sorted(set(names)),
        "examined": _EXAMINED_RUNS,
        "fewest": _FEWEST_RUNS,
    }
    rows = session.connection().exec_driver_sql(sql.load("list_usual_seconds"), params)
    return {name: float(seconds) for name, seconds in rows}


def find_last_good(session: Session, run: RunRow) -> RunRow | None:
    """The newest other run of this name that finished, among its newest 200 runs."""
    keys = (WorkflowRecord.name, WorkflowRecord.id)
    bounds = [(literal(run.name, Text), literal(id, BigInteger)) for id in (0, LARGEST_ID)]
    newest = (
        select(*_columns(WorkflowRecord, RunRow))
        # A range of one value, as in `page_of_runs`.
        .where(tuple_(*keys) >= tuple_(*bounds[0]), tuple_(*keys) <= tuple_(*bounds[1]))
        .order_by(*(key.desc() for key in keys))
        .limit(_EXAMINED_GOOD)
        .subquery()
    )
    good = select(newest).where(newest.c.state == "finished", newest.c.id != run.id)
    row = session.execute(good.order_by(newest.c.id.desc()).limit(1)).one_or_none()
    return None if row is None else RunRow(*row)


def list_recent_workflows(session: Session) -> set[str]:
    """The names of the newest 500 runs."""
    newest = select(WorkflowRecord.name).order_by(WorkflowRecord.id.desc()).limit(_NEWEST_RUNS)
    return set(session.scalars(newest))


def count_runs_by_state(session: Session) -> Mapping[str, Count]:
    """How many runs each state has, counted up to 10,000."""
    params = {"states": list(STATES), "most": CAP + 1}
    rows = session.connection().exec_driver_sql(sql.load("count_runs"), params)
    return {state: Count.capped(number) for state, number in rows}


# --- one run


@dataclass(frozen=True)
class RunInFull:
    """A run as its page shows it. `context` is a JSON text, `callback` the task that its end calls."""

    row: RunRow
    context: str
    callback: str | None
    run_again_from: int | None


@dataclass(frozen=True)
class StepRow:
    """A step with the state of its job. `state` is None when the job was deleted."""

    id: int
    name: str
    kind: str
    map_of: int | None
    pending: int
    settled: str | None
    released_at: datetime | None
    opened_at: datetime | None
    may_fail: bool
    signals: Sequence[str] | None
    key: str
    job_state: str | None
    task: str | None
    attempt: int
    max_attempts: int
    due_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    deadline_at: datetime | None
    ended_by: str | None

    @property
    def state(self) -> str:
        """The state of its job; of a deleted job the state in which it settled, else `deferred`."""
        return self.job_state or self.settled or "deferred"

    @property
    def is_removed(self) -> bool:
        """Whether its job was deleted."""
        return self.job_state is None

    @property
    def is_open_wait(self) -> bool:
        """Whether a signal would end it now."""
        return self.kind == "wait" and self.opened_at is not None and self.job_state == "deferred"

    @property
    def holds_up(self) -> bool:
        """Whether it is released and has not ended."""
        return self.is_open_wait or (self.state in HOLDS_UP and self.state != "deferred")

    def seconds(self, now: datetime) -> float | None:
        """How long it took from its release, or takes so far; None before its release."""
        if self.released_at is None:
            return None
        return ((self.ended_at or now) - self.released_at).total_seconds()


@dataclass(frozen=True)
class StepInFull:
    """What the panel of a step shows besides its row. `output` is None when nothing was kept."""

    takes: Mapping[str, Any]
    settled_by: int | None
    error: str | None
    ended_by: str | None
    ended_reason: str | None
    output: OutputRow | None


@dataclass(frozen=True)
class SignalRow:
    """A signal. `payload` is a JSON text."""

    id: int
    name: str
    key: str
    run: int | None
    dedupe: str | None
    at: datetime
    by: str
    outcome: str
    taken_by: int | None
    duplicates: int
    last_duplicate_at: datetime | None
    payload: str | None

    def is_for(self, wait: StepRow, run_id: int) -> bool:
        """Whether this open wait of a run could take it."""
        return (
            self.name in (wait.signals or ())
            and self.key == wait.key
            and self.run in (None, run_id)
        )


@dataclass(frozen=True)
class SignalLine:
    """A signal in a list, with the run and the name of the wait that took it."""

    signal: SignalRow
    taken_in: int | None
    taken_as: str | None


@dataclass(frozen=True)
class SignalPage:
    """A page of signals, the newest first."""

    lines: Sequence[SignalLine]
    has_newer: bool
    has_older: bool


@dataclass(frozen=True)
class CallbackRow:
    """A job that reports an end of a run. `state` is None when the job was deleted."""

    end_no: int
    job_id: int
    state: str | None
    error: str | None
    created_at: datetime | None


def find_run(session: Session, run_id: int | ScalarSelect[int]) -> RunInFull | None:
    """The run with this id, or with the id that a statement finds; else None."""
    extra = (
        cast(WorkflowRecord.context, Text),
        WorkflowRecord.on_end["task"].astext,
        WorkflowRecord.run_again_from,
    )
    chosen = select(*_columns(WorkflowRecord, RunRow), *extra).where(WorkflowRecord.id == run_id)
    row = session.execute(chosen).one_or_none()
    return None if row is None else RunInFull(RunRow(*row[:-3]), *row[-3:])


def list_steps(session: Session, run_id: int) -> Sequence[StepRow]:
    """The steps of a run in an order of its graph, those that maps added last; at most 50,000."""
    chosen = (
        select(*_STEP)
        .outerjoin(Job, Job.id == StepRecord.job_id)
        .where(StepRecord.workflow_id == run_id)
        .order_by(StepRecord.job_id)
        .limit(MOST_STEPS)
    )
    return [StepRow(*row) for row in session.execute(chosen)]


def list_telling_steps(session: Session, run_id: int, limit: int) -> Sequence[StepRow]:
    """The steps of a run that tell most about it, at most so many: those that failed, then those that run.

    Of a state the newest ones are listed. A step whose job was deleted is not among them.
    """
    listing = [start_reading(session, _list_in, run_id, state, limit) for state in _TELLING]
    return [step for each in listing for step in each.value][:limit]


def _list_in(session: Session, run_id: int, state: str, limit: int) -> Sequence[StepRow]:
    key = (Job.workflow_id, Job.state, Job.id)
    # Bounds and order name the whole key, so that Postgres uses this index.
    bounds = [(run_id, state, id) for id in (0, LARGEST_ID)]
    chosen = (
        select(*_STEP)
        .join(Job, Job.id == StepRecord.job_id)
        .where(tuple_(*key) >= tuple_(*bounds[0]), tuple_(*key) <= tuple_(*bounds[1]))
        .where(Job.workflow_id.between(run_id, run_id))
        .order_by(*(column.desc() for column in key))
        .limit(limit)
    )
    return [StepRow(*row) for row in session.execute(chosen)]


def run_of(job_id: int) -> ScalarSelect[int]:
    """What finds the id of the run of the step that is this job."""
    return select(StepRecord.workflow_id).where(StepRecord.job_id == job_id).scalar_subquery()


def find_step_row(session: Session, job_id: int) -> StepRow | None:
    """The step that is this job; None when there is no such step."""
    chosen = (
        select(*_STEP)
        .outerjoin(Job, Job.id == StepRecord.job_id)
        .where(StepRecord.job_id == job_id)
    )
    row = session.execute(chosen).one_or_none()
    return None if row is None else StepRow(*row)


def find_step_that_ended(session: Session, run_id: int) -> StepRow | None:
    """The step because of which a run ended; None when there is none."""
    name = select(WorkflowRecord.ended_by_step).where(WorkflowRecord.id == run_id)
    chosen = (
        select(*_STEP)
        .outerjoin(Job, Job.id == StepRecord.job_id)
        .where(StepRecord.workflow_id == run_id, StepRecord.name == name.scalar_subquery())
    )
    row = session.execute(chosen).one_or_none()
    return None if row is None else StepRow(*row)


def list_neighbours(
    session: Session, job_id: int, limit: int
) -> tuple[Sequence[StepRow], Sequence[StepRow]]:
    """The first steps that this one waits for, and the first that wait for it, by id."""
    before = select(EdgeRecord.from_id).where(EdgeRecord.to_id == job_id)
    after = select(EdgeRecord.to_id).where(EdgeRecord.from_id == job_id)
    before = before.order_by(EdgeRecord.to_id, EdgeRecord.from_id).limit(limit)
    after = after.order_by(EdgeRecord.from_id, EdgeRecord.to_id).limit(limit)
    listing = start_reading(session, _list_by_id, before)
    following = _list_by_id(session, after)
    return listing.value, following


def _list_by_id(session: Session, wanted: Any) -> Sequence[StepRow]:
    chosen = (
        select(*_STEP)
        .outerjoin(Job, Job.id == StepRecord.job_id)
        .where(StepRecord.job_id.in_(wanted))
        .order_by(StepRecord.job_id)
    )
    return [StepRow(*row) for row in session.execute(chosen)]


def list_edges(session: Session, run_id: int) -> Sequence[tuple[int, int, str]]:
    """The edges of a run: from, to, and what a failure does."""
    chosen = select(EdgeRecord.from_id, EdgeRecord.to_id, EdgeRecord.on_failure)
    mine = chosen.join(StepRecord, StepRecord.job_id == EdgeRecord.to_id)
    rows = session.execute(mine.where(StepRecord.workflow_id == run_id))
    return [(row[0], row[1], row[2]) for row in rows]


def find_step(session: Session, job_id: int) -> StepInFull | None:
    """More about a step; None when there is no such step."""
    columns = (StepRecord.takes, StepRecord.settled_by, Job.error, Job.ended_by, Job.ended_reason)
    kept = (Output.job_id, cast(Output.value, Text), Output.size_bytes, Output.omitted)
    chosen = (
        select(*columns, *kept)
        .outerjoin(Job, Job.id == StepRecord.job_id)
        .outerjoin(Output, Output.job_id == StepRecord.job_id)
        .where(StepRecord.job_id == job_id)
    )
    row = session.execute(chosen).one_or_none()
    if row is None:
        return None
    takes, settled_by, error, ended_by, ended_reason, stored, *value = row
    output = None if stored is None else OutputRow(*value)
    return StepInFull(takes or {}, settled_by, error, ended_by, ended_reason, output)


def list_attempts_of_steps(
    session: Session, job_ids: Sequence[int]
) -> Mapping[int, Sequence[Attempt]]:
    """By job, begin, end and outcome of its last 20 attempts, the first of them first."""
    params = {"ids": list(job_ids), "most": _MOST_ATTEMPTS}
    rows = session.connection().exec_driver_sql(sql.load("list_attempts_of_steps"), params)
    found: dict[int, list[Attempt]] = {}
    for job_id, *attempt in rows:
        found.setdefault(job_id, []).insert(0, (attempt[0], attempt[1], attempt[2]))
    return found


def list_callbacks(session: Session, run_id: int) -> Sequence[CallbackRow]:
    """The jobs that report the last 20 ends of a run, the last end first."""
    chosen = (
        select(Callback.end_no, Callback.job_id, Job.state, Job.error, Job.created_at)
        .outerjoin(Job, Job.id == Callback.job_id)
        .where(Callback.of == "workflow", Callback.of_id == run_id)
        .order_by(Callback.of, Callback.of_id, Callback.end_no.desc())
        .limit(_MOST_CALLBACKS)
    )
    return [CallbackRow(*row) for row in session.execute(chosen)]


def list_signals_for(session: Session, waits: Sequence[StepRow]) -> Sequence[SignalRow]:
    """The signals that ended these waits, and those that came for the open ones and that no wait took.

    At most 50 of each; those that are late among the newest late ones.
    """
    if not waits:
        return []
    taken = select(*_SIGNAL).where(SignalRecord.taken_by.in_([wait.id for wait in waits]))
    reads = [start_reading(session, Session.execute, taken.limit(_MOST_SIGNALS))]
    wanted = {
        (name, wait.key) for wait in waits if wait.is_open_wait for name in wait.signals or ()
    }
    if wanted:
        # Both outcomes of the partial index are named, so that the planner uses it.
        several = SignalRecord.outcome.in_(("early", "ambiguous"))
        keys = tuple_(SignalRecord.name, SignalRecord.key).in_(sorted(wanted))
        left = select(*_SIGNAL).where(keys, several).order_by(SignalRecord.id)
        reads.append(start_reading(session, Session.execute, left.limit(_MOST_SIGNALS)))
        newest = (
            select(SignalRecord.id, SignalRecord.name, SignalRecord.key)
            .where(SignalRecord.outcome.between("late", "late"))
            .order_by(SignalRecord.outcome.desc(), SignalRecord.id.desc())
            .limit(MOST_LATE_SIGNALS)
            .subquery()
        )
        of_waits = tuple_(newest.c.name, newest.c.key).in_(sorted(wanted))
        late = select(*_SIGNAL).where(SignalRecord.id.in_(select(newest.c.id).where(of_waits)))
        late = late.order_by(SignalRecord.id).limit(_MOST_SIGNALS)
        reads.append(start_reading(session, Session.execute, late))
    return [SignalRow(*row) for read in reads for row in read.value]


def page_of_signals(
    session: Session,
    *,
    outcome: str | None = None,
    limit: int = 25,
    before: int | None = None,
    after: int | None = None,
) -> SignalPage:
    """The newest signals with this outcome; `before` an id, only older; `after` an id, the next newer."""
    low, high = (after or 0) + 1, LARGEST_ID if before is None else before
    keys: list[Any] = [SignalRecord.id]
    bounds: list[list[Any]] = [[low], [high]]
    if outcome is not None:
        # A range of one value, as in `page_of_runs`.
        keys.insert(0, SignalRecord.outcome)
        for bound in bounds:
            bound.insert(0, literal(outcome, Text))
    chosen = (
        select(*_SIGNAL, StepRecord.workflow_id, StepRecord.name)
        .outerjoin(StepRecord, StepRecord.job_id == SignalRecord.taken_by)
        .where(tuple_(*keys) >= tuple_(*bounds[0]), tuple_(*keys) < tuple_(*bounds[1]))
        .order_by(*(key.desc() if after is None else key for key in keys))
        .limit(limit + 1)
    )
    lines = [SignalLine(SignalRow(*row[:-2]), *row[-2:]) for row in session.execute(chosen)]
    has_more = len(lines) > limit
    lines = lines[:limit]
    if after is None:
        return SignalPage(lines, before is not None, has_more)
    if not has_more:  # fewer newer signals than a page holds: show the full first page
        return page_of_signals(session, outcome=outcome, limit=limit)
    return SignalPage(lines[::-1], True, True)


def count_signals_by_outcome(session: Session) -> Mapping[str, Count]:
    """How many signals each outcome has, counted up to 10,000."""
    rows = session.connection().exec_driver_sql(sql.load("count_signals"), {"most": CAP + 1})
    return {outcome: Count.capped(number) for outcome, number in rows}


def find_run_of_callback(session: Session, job_id: int) -> tuple[int, int] | None:
    """The id of the run whose end a job reports, and the number of that end; None when it reports none."""
    chosen = select(Callback.of_id, Callback.end_no)
    mine = chosen.where(Callback.job_id == job_id, Callback.of == "workflow").limit(1)
    row = session.execute(mine).one_or_none()
    return None if row is None else (row[0], row[1])


# The states of jobs in which a step tells most about its run first.
_TELLING = (
    *("failed", "retryable", "started", "queued", "available", "scheduled", "canceled"),
    *("finished", "deferred"),
)
_STEP: tuple[Any, ...] = (
    StepRecord.job_id,
    StepRecord.name,
    StepRecord.kind,
    StepRecord.map_of,
    StepRecord.pending,
    StepRecord.settled,
    StepRecord.released_at,
    StepRecord.opened_at,
    StepRecord.may_fail,
    StepRecord.signals,
    StepRecord.key,
    Job.state,
    Job.task,
    Job.attempt,
    Job.max_attempts,
    Job.due_at,
    Job.started_at,
    Job.ended_at,
    Job.deadline_at,
    Job.ended_by,
)
_SIGNAL: tuple[Any, ...] = (
    *(getattr(SignalRecord, name) for name in list(SignalRow.__annotations__)[:-1]),
    cast(SignalRecord.payload, Text),
)


def _columns(table: Any, row: type) -> list[Any]:
    return [getattr(table, name) for name in row.__annotations__]


# --- the step that a job is


@dataclass(frozen=True)
class StepOfJob:
    """The step of a workflow that a job is."""

    workflow_id: int
    workflow: str
    workflow_state: str
    name: str
    kind: str

    @property
    def target(self) -> str:
        """The workflow as the target of an action."""
        return f"workflow/{self.workflow_id}"


def find_step_of(session: Session, job_id: int) -> StepOfJob | None:
    """The step that this job is; None when it belongs to no workflow."""
    wanted = (
        select(
            WorkflowRecord.id,
            WorkflowRecord.name,
            WorkflowRecord.state,
            StepRecord.name,
            StepRecord.kind,
        )
        .join_from(StepRecord, WorkflowRecord)
        .where(StepRecord.job_id == job_id)
    )
    row = session.execute(wanted).one_or_none()
    return None if row is None else StepOfJob(*row)
