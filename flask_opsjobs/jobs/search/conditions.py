"""Writes the conditions of a search as expressions of SQL, in which each value is a bound parameter.

They ask the tables of other domains by name, since those domains are above this one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    LargeBinary,
    Select,
    Text,
    and_,
    case,
    cast,
    column,
    exists,
    false,
    func,
    literal,
    literal_column,
    or_,
    select,
    table,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.types import NullType

from ...core.round_trips import StartedRead
from ...workers.models import Worker
from ..lifecycle import FINAL
from ..models import Job
from .filter import TIMES, Clause, Condition, JobFilter
from .ranges import Amounts, Moments
from .terms import Argument, Pattern, escape_like

_ATTEMPTS = table(
    "attempts",
    column("job_id", BigInteger),
    column("failure_key", LargeBinary),
    column("death"),
    column("deploy_id", BigInteger),
    column("max_rss_kb", BigInteger),
    schema="opsjobs",
)
WORKFLOWS = table("workflows", column("id", BigInteger), column("name"), schema="opsjobs")
BATCHES = table("batches", column("id", BigInteger), column("name"), schema="opsjobs")
STEPS = table(
    "steps",
    column("workflow_id", BigInteger),
    column("job_id", BigInteger),
    column("name"),
    schema="opsjobs",
)
FAILURES = table("failures", column("id", BigInteger), column("key", LargeBinary), schema="opsjobs")
DEPLOYS = table("deploys", column("id", BigInteger), column("version"), schema="opsjobs")
_INCIDENTS = table("incidents", column("id", BigInteger), column("facts", JSONB), schema="opsjobs")
_OF_ATTEMPTS = ("failure", "death", "deploy")
_SEEK_AN_ATTEMPT = (*_OF_ATTEMPTS, "memory")
# The time of a search: a moment, or the clock of Postgres, which no statement waits for.
Now = datetime | ColumnElement[Any]
Found = TypeVar("Found")
# Whose end was that of a run: other jobs ended while they waited.
_RAN = ("returned", "exhausted")


@dataclass(frozen=True)
class Terms:
    """What the conditions of one search are compared with: the time, and the jobs of each text in errors.

    `is_examined`: of each of some given jobs it is examined whether it fits. Then what belongs to it, such as
    its attempts, is looked up by its id. Otherwise the planner may read all attempts of a failure first.
    `is_estimated`: Postgres only estimates how many jobs match. Then nothing is added for an index.
    """

    wanted: JobFilter
    now: Now
    jobs_of_texts: Mapping[str, Sequence[int]] = field(default_factory=dict)
    is_examined: bool = False
    is_estimated: bool = False

    def all_met(self) -> ColumnElement[bool]:
        """Whether a job meets all conditions of the filter. No index is walked for it."""
        return and_(true(), *(condition.is_(True) for condition in self.list_all()))

    def list_indexed(self) -> list[ColumnElement[bool]]:
        """The conditions that have an index which finds jobs in any order: arguments, tags and ids."""
        plain = [self.find(one) for one in self.wanted.plain if one.has_index]
        return [*plain, *map(self._is_met, self.wanted.indexed_clauses)]

    def list_all(self, *, with_texts: bool = True) -> list[ColumnElement[bool]]:
        """All conditions of the filter, from which a planner may choose an index.

        Without those that ask for a text in an error, if `with_texts` is False.
        """
        plain = (one for one in self.wanted.plain if one.name not in _OF_ATTEMPTS)
        met = [self.find(one) for one in plain if with_texts or one.name != "error"]
        # One attempt must meet all of them.
        of_attempt = [one for one in self.wanted.plain if one.name in _OF_ATTEMPTS]
        met += [self._has_attempt(of_attempt, and_)] if of_attempt else []
        for clause in self.wanted.further:
            if with_texts or all(one.name != "error" for one in clause):
                met.append(self._is_met(clause))
        return met

    def is_met_otherwise(self, clause: Clause) -> ColumnElement[bool]:
        """Whether a job meets a condition of the clause that asks for no text in an error."""
        return self._is_met([one for one in clause if one.name != "error"]).is_(True)

    def _is_met(self, clause: Sequence[Condition]) -> ColumnElement[bool]:
        seek = _SEEK_AN_ATTEMPT if self.is_examined else ()
        # So the attempts of a job are looked up once for all of these.
        of_attempt = [one for one in clause if one.name in seek and not one.is_not]
        met = [self._is_true(one) for one in clause if one not in of_attempt]
        met += [self._has_attempt(of_attempt, or_)] if of_attempt else []
        return or_(false(), *met)

    def _is_true(self, one: Condition) -> ColumnElement[bool]:
        met = self.find(one)
        return met.is_not(True) if one.is_not else met

    def find(self, one: Condition) -> ColumnElement[bool]:
        """The condition without its negation."""
        name, value = one.name, one.value
        if isinstance(value, Argument):
            shapes = (cast(literal(shape, Text), JSONB) for shape in value.shapes)
            return or_(*(Job.args.contains(shape) for shape in shapes))
        if name in TIMES:
            return self._is_in(getattr(Job, f"{name}_at"), name, value)
        match name:
            case "error":
                return is_one_of(Job.id, self.jobs_of_texts[value])
            case "state" | "queue" | "task" | "origin":
                return _is_named(getattr(Job, name).expression, value)
            case "tag":
                return _has_tag(value, for_index=not self.is_estimated)
            case "id":
                return is_one_of(Job.id, [value] if isinstance(value, int) else value)
            case "duration" | "wait" | "attempts" | "priority":
                return self._is_between(name, value)
            case "failure" | "death" | "deploy" | "memory":
                return self._has_attempt([one], and_)
        return self._is_of(name, value)

    def _is_in(self, moment: Any, name: str, wanted: Moments) -> ColumnElement[bool]:
        since, until = wanted.bounds(self.now, self.wanted.tzinfo)
        if name == "due" and wanted.is_ago and until is None:
            until = self.now
        met = [moment.is_not(None)]
        if since is not None:
            # Of a span from now: less than so long ago. A day begins with its first moment.
            is_open = wanted.is_ago
            met.append(moment > since if is_open else moment >= since)
        if until is not None:
            met.append(moment <= until if wanted.is_ago else moment < until)
        return and_(*met)

    def _is_between(self, name: str, wanted: Amounts) -> ColumnElement[bool]:
        if name in ("attempts", "priority"):
            counted = {"attempts": Job.attempt, "priority": Job.priority}[name]
            return and_(*_within(counted, wanted, int))
        measured = make_duration(self.now) if name == "duration" else make_wait(self.now)
        return and_(*_within(measured, wanted, lambda seconds: timedelta(seconds=seconds)))

    def _has_attempt(
        self, wanted: Sequence[Condition], join: Callable[..., ColumnElement[bool]]
    ) -> ColumnElement[bool]:
        """Whether one attempt of the job meets these conditions, or one of them, as `join` says."""
        return self._has(
            _ATTEMPTS,
            _ATTEMPTS.c.job_id,
            Job.id,
            lambda attempt: [join(*(_is_attempt(attempt, one) for one in wanted))],
        )

    def _has(
        self,
        table: FromClause,
        key: Any,
        of_job: Any,
        make: Callable[[Any], Sequence[ColumnElement[bool]]],
    ) -> ColumnElement[bool]:
        """Whether a row of another table has this value of the job, and meets what `make` makes."""
        same = key == of_job
        if not self.is_examined:
            return exists(select(1).select_from(table).where(same, *make(table.c)).correlate(Job))
        # OFFSET keeps the planner from another index and from reading the rows of all jobs first.
        own = select(*table.c).where(same).offset(literal_column("0")).correlate(Job).subquery()
        return exists(select(1).select_from(own).where(*make(own.c)))

    def _is_of(self, name: str, value: Any) -> ColumnElement[bool]:
        """Whether a job is of a workflow, a batch, a step, a worker or an incident."""

        def is_named(columns: Any) -> list[ColumnElement[bool]]:
            return [_is_named(columns.name, value)]

        match name:
            case "workflow" | "batch" if isinstance(value, int):
                return {"workflow": Job.workflow_id, "batch": Job.batch_id}[name] == value
            case "workflow":
                return self._has(WORKFLOWS, WORKFLOWS.c.id, Job.workflow_id, is_named)
            case "batch":
                return self._has(BATCHES, BATCHES.c.id, Job.batch_id, is_named)
            case "step":
                return self._has(STEPS, STEPS.c.job_id, Job.id, is_named)
            case "worker":
                named = select(Worker.id).where(_is_named(Worker.name, value))
                runs = and_(Job.state == "started", _is_worker(Job.worker_id, named, value))
                has_taken = and_(Job.state == "queued", _is_worker(Job.reserved_by, named, value))
                return and_(or_(runs, has_taken), Job.origin == "opsjobs")
        return Job.id.in_(jobs_of_incident(value))


def jobs_of_incident(id: int) -> Select[int]:
    """What finds the jobs that an incident names, as its last episode found them: at most 100."""
    jobs = func.jsonb_array_elements_text(_INCIDENTS.c.facts["jobs"]).cast(BigInteger)
    return select(jobs).where(_INCIDENTS.c.id == id)


def search_at(
    wanted: JobFilter,
    now: datetime | StartedRead[datetime],
    search: Callable[[JobFilter, Now], Found],
) -> Found:
    """What `search` finds at a time, which it need not wait for: it compares with the clock of Postgres.

    Days such as `today` have their dates by the clock of this process. When they have others by that of
    Postgres, it searches again.
    """
    if isinstance(now, datetime):
        return search(wanted.dated(now), now)
    guessed = wanted.dated(datetime.now(UTC))
    found = search(guessed, func.now())
    # It differs only with such a day.
    right = guessed if guessed == wanted else wanted.dated(now.value)
    return found if right == guessed else search(right, func.now())


def make_duration(now: Now) -> ColumnElement[Any]:
    """How long the last run of a job took, or takes until now; NULL without one."""
    end = case(
        (Job.state == "started", _moment(now)),
        (Job.ended_by.in_(_RAN), Job.ended_at),
    )
    return end - Job.started_at


def make_wait(now: Now) -> ColumnElement[Any]:
    """How long a job waited after it was due: until it began, until it ended, or until now.

    NULL while it is not due yet, or waits for another job.
    """
    has_begun = or_(Job.state == "started", Job.ended_by.in_(_RAN))
    end = case(
        (has_begun, func.greatest(Job.started_at, Job.due_at)),
        (Job.state.in_(FINAL), Job.ended_at),
        (Job.state != "deferred", _moment(now)),
    )
    return case((end >= Job.due_at, end - Job.due_at))


def _moment(now: Now) -> ColumnElement[Any]:
    return literal(now, Job.ended_at.type) if isinstance(now, datetime) else now


def _within(value: Any, wanted: Amounts, make: Any) -> list[ColumnElement[bool]]:
    met: list[ColumnElement[bool]] = []
    if wanted.low is not None:
        low = make(wanted.low)
        met.append(value > low if wanted.is_above else value >= low)
    if wanted.high is not None:
        high = make(wanted.high)
        met.append(value < high if wanted.is_below else value <= high)
    return met


def _is_named(name: Any, value: str | Pattern) -> ColumnElement[bool]:
    met: ColumnElement[bool] = (
        name.like(value.like) if isinstance(value, Pattern) else name == value
    )
    return met


def _has_tag(value: str | Pattern, *, for_index: bool) -> ColumnElement[bool]:
    # The index is partial, without jobs that have no tags: the planner uses it only with this condition.
    # For an estimate it would be wrong: Postgres takes the two for independent.
    some = Job.tags != cast([], ARRAY(Text)) if for_index else true()
    if not isinstance(value, Pattern):
        # This condition comes first: it takes less time, and many of the jobs that are read have no tags.
        return and_(some, Job.tags.bool_op("@>")(cast([value], ARRAY(Text))))
    tag = func.unnest(Job.tags).table_valued("tag").render_derived()
    return and_(some, exists(select(1).select_from(tag).where(tag.c.tag.like(value.like))))


def _is_worker(key: Any, named: Any, value: str | Pattern) -> ColumnElement[bool]:
    """Whether a key is that of one of the workers of a name. Of one worker, as an index can find it."""
    met: ColumnElement[bool] = (
        key.in_(named) if isinstance(value, Pattern) else key == named.scalar_subquery()
    )
    return met


def _is_attempt(attempt: Any, wanted: Condition) -> ColumnElement[bool]:
    """The condition on an attempt that has this failure, death, deploy or use of memory."""
    value = wanted.value
    match wanted.name:
        case "failure":
            key = select(FAILURES.c.key).where(FAILURES.c.id == value).scalar_subquery()
            return and_(attempt.failure_key == key, attempt.failure_key.is_not(None))
        case "death":
            return and_(attempt.death == value)
        case "deploy":
            versions = select(DEPLOYS.c.id).where(_is_named(DEPLOYS.c.version, value))
            return and_(attempt.deploy_id.in_(versions))
    return and_(*_within(attempt.max_rss_kb * 1024, value, int))


def is_one_of(key: Any, ids: Sequence[int] | ColumnElement[Any]) -> ColumnElement[bool]:
    """Like `IN`, with one parameter however many ids there are. `ids` may be an array of SQL."""
    if isinstance(ids, ColumnElement):
        made = ids
    else:
        # psycopg takes 8 ms to write a list of 5,000 numbers, so they are written here. The parameter has no
        # type: so Postgres reads it as an array once, and not again as a text for each row of a filter.
        made = cast(literal(f"{{{','.join(map(str, ids))}}}", NullType()), ARRAY(BigInteger))
    condition: ColumnElement[bool] = key == func.any(made)
    return condition


def contains(column: Any, text: str) -> ColumnElement[bool]:
    """The condition that a column holds the text, in any case."""
    # The backslash escapes by default. Named, SQLAlchemy before 2.1 doubles it outside of a session.
    return column.ilike(f"%{escape_like(text)}%")  # type: ignore[no-any-return]
