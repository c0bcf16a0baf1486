"""Bounds a search to the jobs of workflows and batches, of a worker, or of an incident."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    TableValuedAlias,
    Text,
    cast,
    column,
    false,
    func,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by
from sqlalchemy.orm import Session

from ...core import sql
from ...core.reading import KeptValue
from ...core.round_trips import StartedRead, start_reading
from ...workers.queries import list_jobs_of
from ..lifecycle import STATES
from ..models import Job
from .conditions import is_one_of, jobs_of_incident
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


# The ids of groups, by the column of jobs.
Groups = Sequence[tuple[str, Sequence[int]]]
# Of a worker and of an incident: ids, or an array of SQL.
Lists = Sequence[Sequence[int] | ColumnElement[Any]]
# The groups and the lists that a filter names, and whether there are more groups.
Named = tuple[Groups, Lists, bool]


@dataclass(frozen=True)
class Members:
    """What lists the jobs of the searched workflows and batches, or conditions on them.

    `is_cut` says that there are more workflows or batches.
    """

    listing: StartedRead[Listed] | None = None
    conditions: tuple[ColumnElement[bool], ...] = ()
    is_cut: bool = False


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
    groups, lists, is_cut = finding.value
    if not (groups or lists):
        return Members()
    if [] in (*(list(ids) for _, ids in groups), *(one for one in lists if isinstance(one, list))):
        return Members(conditions=(false(),))
    conditions = _conditions_of(session, wanted, groups, lists)
    has_index = wanted.args or wanted.tag or wanted.id is not None or wanted.indexed_clauses
    is_bounded = lists or wanted.step or has_index
    if not is_bounded:
        (key, ids), *_ = groups
        others = conditions[1:]
        listing = start_reading(
            session, _list_jobs, wanted, found, getattr(Job, key), ids, others, listed
        )
        return Members(listing, is_cut=is_cut)
    return Members(conditions=conditions, is_cut=is_cut)


def find_named(session: Session, wanted: JobFilter) -> Named:
    """The workflows and batches that it names, and the jobs that the worker has and the incident names."""
    groups = []
    lists: list[Sequence[int] | ColumnElement[Any]] = []
    is_cut = False
    for what, qualified in ((_WORKFLOWS, wanted.workflow), (_BATCHES, wanted.batch)):
        if qualified is not None:
            ids = _find_groups(session, what.by_name, qualified)
            is_cut |= len(ids) > MOST_GROUPS
            groups.append((what.key, ids[:MOST_GROUPS]))
    if wanted.worker is not None:
        lists.append(list_jobs_of(session, wanted.worker, MOST_JOBS))
    if wanted.incident is not None:
        lists.append(func.array(jobs_of_incident(wanted.incident).scalar_subquery()))
    return groups, lists, is_cut


def _conditions_of(
    session: Session,
    wanted: JobFilter,
    groups: Groups,
    lists: Lists,
) -> tuple[ColumnElement[bool], ...]:
    """The conditions that a row is a job of these groups, of the searched step, of the lists."""
    conditions = tuple(is_one_of(getattr(Job, key), ids) for key, ids in groups)
    conditions += tuple(is_one_of(Job.id, ids) for ids in lists)
    if wanted.step is None:
        return conditions
    params = {"workflows": list(groups[0][1]), "name": wanted.step}
    steps = session.connection().exec_driver_sql(sql.load("list_jobs_of_step"), params)
    return (*conditions[1:], is_one_of(Job.id, list(steps.scalars())))


@dataclass(frozen=True)
class _Group:
    """The name of the column of a job's group, and the statement that finds groups by name."""

    key: str
    by_name: str


_WORKFLOWS = _Group("workflow_id", "list_workflows_of_name")
_BATCHES = _Group("batch_id", "list_batches_of_name")


def find_newest_of(session: Session, qualifier: str, name: str) -> int | None:
    """The id of the newest workflow or batch of a name; None when none has it."""
    group = {"workflow": _WORKFLOWS, "batch": _BATCHES}[qualifier]
    return next(iter(_find_groups(session, group.by_name, name)), None)


def _find_groups(session: Session, by_name: str, qualified: int | str) -> Sequence[int]:
    """The ids of the workflows or batches, the newest first, one more than are searched."""
    if isinstance(qualified, int):
        return [qualified]
    params = {"name": qualified, "most": MOST_GROUPS + 1}
    rows = session.connection().exec_driver_sql(sql.load(by_name), params)
    return list(rows.scalars())


def _list_jobs(
    session: Session,
    wanted: JobFilter,
    found: Range,
    key: Any,
    ids: Sequence[int],
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


def make_values(values: Sequence[Any], kind: BigInteger | Text, name: str) -> TableValuedAlias:
    """A table of one column, `value`."""
    rows = func.unnest(cast(list(values), ARRAY(kind)))
    return rows.table_valued(column("value", kind), name=name).render_derived()
