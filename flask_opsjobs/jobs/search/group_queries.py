"""Bounds a search to the jobs of workflows and batches, of a worker, or of an incident."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    TableValuedAlias,
    Text,
    cast,
    column,
    false,
    func,
    literal,
    select,
    true,
    tuple_,
)
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by
from sqlalchemy.orm import Session

from ...core.db import LARGEST_ID
from ...core.reading import KeptValue
from ...core.round_trips import StartedRead, start_reading
from ...workers.queries import list_jobs_of
from ..lifecycle import STATES
from ..models import Job
from .conditions import BATCHES, STEPS, WORKFLOWS, is_one_of, jobs_of_incident
from .filter import JobFilter
from .index_scan import Range

# Of a name the newest workflows or batches are searched; of each, the newest jobs of each state.
MOST_GROUPS = 100
MOST_JOBS = 5_000
# In all of them together.
_MOST_IDS = 20_000


@dataclass(frozen=True)
class Listed:
    """Jobs as id and state, the newest first. `is_cut` says that there are more."""

    jobs: Sequence[tuple[int, str]]
    is_cut: bool


# Some ids, or an array of SQL.
IdList = Sequence[int] | ColumnElement[Any]

# The column of a job's group, and the table of the groups, by qualifier.
_GROUPS = {"workflow": (Job.workflow_id, WORKFLOWS), "batch": (Job.batch_id, BATCHES)}


@dataclass(frozen=True)
class Groups:
    """The workflows or the batches that a filter names, and the column of jobs that holds their ids.

    `kept` are their ids for statements in the same round trip. `finding` finds those of a name, one more than
    are searched.
    """

    key: Any
    kept: IdList
    finding: StartedRead[Sequence[int]] | None = None

    @property
    def is_one(self) -> ColumnElement[bool]:
        """The condition that a job is in one of them. Waits for their ids.

        Postgres would read what is kept again for each row of a filter.
        """
        ids = self.kept if self.finding is None else self.finding.value[:MOST_GROUPS]
        return is_one_of(self.key, ids)

    @property
    def is_one_of_kept(self) -> ColumnElement[bool]:
        """The same for rows that another index finds. Does not wait: the subquery is read once."""
        if self.finding is None:
            return self.is_one
        ids = select(func.unnest(self.kept)).scalar_subquery()
        return is_one_of(self.key, func.array(ids))


@dataclass(frozen=True)
class Named:
    """What a filter names: workflows and batches, and lists of the jobs of a worker and of an incident."""

    groups: Sequence[Groups]
    lists: Sequence[IdList]


@dataclass(frozen=True)
class Members:
    """What lists the jobs of the searched workflows and batches, or conditions on them."""

    listing: StartedRead[Listed] | None = None
    conditions: tuple[ColumnElement[bool], ...] = ()
    groups: Sequence[Groups] = ()

    @property
    def is_cut(self) -> bool:
        """Whether there are more workflows or batches. No, when a name has none: then no job matches."""
        numbers = [len(one.finding.value) for one in self.groups if one.finding is not None]
        return all(numbers) and any(number > MOST_GROUPS for number in numbers)


def find_members(
    session: Session,
    wanted: JobFilter,
    found: Range,
    finding: StartedRead[Named],
    listed: KeptValue,
) -> Members:
    """The jobs of what the filter names: `workflow:` and `step:`, `batch:`, `worker:`, `incident:`.

    All jobs when it has none of them.

    A search that has no other condition with an index gets them listed: the newest of each state, in the
    order of an index, however many jobs a batch has. `listed` keeps their ids. `finding` is that of what it
    names.
    """
    named = finding.value
    groups, lists = named.groups, named.lists
    if not (groups or lists):
        return Members()
    if any(isinstance(ids, Sequence) and not ids for ids in lists):
        return Members(conditions=(false(),))
    in_lists = tuple(is_one_of(Job.id, ids) for ids in lists)
    if wanted.step is not None:
        others = tuple(one.is_one_of_kept for one in groups[1:])
        is_step = _is_job_of_step(session, groups[0].kept, wanted.step)
        return Members(conditions=(is_step, *others, *in_lists), groups=groups)
    if lists or wanted.is_by_values or wanted.id is not None:
        return Members(conditions=(*(one.is_one for one in groups), *in_lists), groups=groups)
    first, *rest = groups
    others = tuple(one.is_one_of_kept for one in rest)
    listing = start_reading(
        session, _list_jobs, wanted, found, first.key, first.kept, others, listed
    )
    return Members(listing, groups=groups)


def find_named(session: Session, wanted: JobFilter) -> Named:
    """The workflows and batches that it names, and the jobs that the worker has and the incident names.

    The ids of those named by a name are kept in Postgres, so only the same snapshot can use them.
    """
    groups = []
    for qualifier, (key, _) in _GROUPS.items():
        qualified = getattr(wanted, qualifier)
        if isinstance(qualified, int):
            groups.append(Groups(key, [qualified]))
        elif qualified is not None:
            kept = KeptValue(session, "{}", ARRAY(BigInteger))
            finding = start_reading(session, _keep_groups, qualifier, qualified, kept)
            groups.append(Groups(key, kept.read(), finding))
    lists: list[IdList] = []
    if wanted.worker is not None:
        lists.append(list_jobs_of(session, wanted.worker, MOST_JOBS))
    if wanted.incident is not None:
        lists.append(func.array(jobs_of_incident(wanted.incident).scalar_subquery()))
    return Named(groups, lists)


def _keep_groups(session: Session, qualifier: str, name: str, kept: KeptValue) -> Sequence[int]:
    """The ids of the newest groups of a name, one more than are searched. Keeps those that are."""
    newest = func.array(_select_newest(qualifier, name).scalar_subquery(), type_=ARRAY(BigInteger))
    found = select(newest.label("ids")).cte().c.ids
    ids: Sequence[int] = session.execute(select(found, kept.keep(found[1:MOST_GROUPS]))).one()[0]
    return ids


def find_newest_of(session: Session, qualifier: str, name: str) -> int | None:
    """The id of the newest workflow or batch of a name; None when none has it."""
    return session.scalars(_select_newest(qualifier, name).limit(1)).first()


def _select_newest(qualifier: str, name: str) -> Select[int]:
    """The ids of the workflows or batches of a name, the newest first, one more than are searched."""
    group = _GROUPS[qualifier][1].c
    both = tuple_(group.name, group.id)
    low, high = (tuple_(literal(name, Text), literal(id, BigInteger)) for id in (0, LARGEST_ID))
    # A range of one name instead of an equality, so that the planner walks the index of names.
    found = select(group.id).where(both >= low, both <= high)
    return found.order_by(group.name.desc(), group.id.desc()).limit(MOST_GROUPS + 1)


def _is_job_of_step(session: Session, workflows: IdList, name: str) -> ColumnElement[bool]:
    """The condition that a job is of the steps of this name in these workflows. Keeps their ids."""
    jobs = KeptValue(session, "{}", ARRAY(BigInteger))
    steps = _select_jobs_of_step(workflows, name).scalar_subquery()
    start_reading(session, Session.execute, select(jobs.keep(func.array(steps))))
    return is_one_of(Job.id, jobs.read())


def _select_jobs_of_step(workflows: IdList, name: str) -> Select[int]:
    """The jobs of the steps of this name in these workflows, at most one of each."""
    workflow = make_values(workflows, BigInteger(), "wanted")
    is_one = (STEPS.c.workflow_id == workflow.c.value, STEPS.c.name == name)
    step = select(STEPS.c.job_id).where(*is_one).limit(1).lateral()
    return select(step.c.job_id).select_from(workflow.join(step, true()))


def _list_jobs(
    session: Session,
    wanted: JobFilter,
    found: Range,
    key: Any,
    ids: IdList,
    others: Sequence[ColumnElement[bool]],
    listed: KeptValue,
) -> Listed:
    """The newest jobs of each state of these groups. `listed` keeps their ids.

    A search for nothing else shows `MOST_JOBS` of them, so no more are read.
    """
    most = _MOST_IDS if has_other_terms(wanted) else MOST_JOBS
    states = [wanted.state] if wanted.state else STATES
    group = make_values(ids, BigInteger(), "g")
    state = make_values(states, Text(), "s")
    # Both bounds, also open ones: they are part of the index that is meant.
    low, high = found.bounds
    bounds = (Job.id >= low, Job.id < high, *found.conditions, *others)
    newest = (
        select(key.label("group"), Job.state, Job.id)
        .where(key == group.c.value, Job.state == state.c.value, *bounds)
        .order_by(key.desc(), Job.state.desc(), Job.id.desc())
        .limit(MOST_JOBS + 1)
        .lateral()
    )
    each = select(newest).select_from(group).join(state, true()).join(newest, true())
    some = each.limit(_MOST_IDS + 1).subquery()
    first = select(some).order_by(some.c.id.desc()).limit(most + 1).subquery()
    # Arrays instead of thousands of rows, which the garbage collector would visit one by one.
    in_order = (aggregate_order_by(one, first.c.id.desc()) for one in first.c)
    arrays = list(map(func.array_agg, in_order))
    keeping = listed.keep(func.coalesce(arrays[2], cast([], ARRAY(BigInteger))))
    *found_arrays, _ = session.execute(select(*arrays, keeping)).one()
    found_groups, found_states, found_ids = (each or [] for each in found_arrays)
    has_more = len(found_ids) > most
    if not has_more and len(found_ids) > MOST_JOBS:
        numbers = Counter(zip(found_groups, found_states, strict=True))
        has_more = max(numbers.values()) > MOST_JOBS
    return Listed(list(zip(found_ids, found_states, strict=True))[:most], has_more)


def has_other_terms(wanted: JobFilter) -> bool:
    """Whether it asks for more of a job than its group and its state."""
    return bool(wanted.error or wanted.task or wanted.queue or wanted.origin)


def make_values(
    values: Sequence[Any] | ColumnElement[Any], kind: BigInteger | Text, name: str
) -> TableValuedAlias:
    """A table of one column, `value`. `values` may be an array of SQL."""
    made = values if isinstance(values, ColumnElement) else cast(list(values), ARRAY(kind))
    rows = func.unnest(made)
    return rows.table_valued(column("value", kind), name=name).render_derived()
