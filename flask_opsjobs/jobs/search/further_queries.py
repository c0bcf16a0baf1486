"""Examines the conditions of a search that have no index: of given jobs, or of a number of the newest.

Other conditions choose what is examined, so that how far a search looked says nothing of a hidden text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import MAXYEAR, MINYEAR, UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, Text, func, literal, or_, select, tuple_
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Session

from ...core.round_trips import start_reading
from ...queues.queries import list_queue_names
from .. import queries
from ..lifecycle import FINAL
from ..models import Job
from .conditions import Terms, contains, is_one_of
from .filter import Clause, JobFilter
from .group_queries import make_values
from .index_scan import Range, indexed_part, lead_of, scan_index
from .terms import Pattern

# Whether an error, as the viewer sees it, contains a text.
IsShown = Callable[[str, str], bool]
# Of so many of the newest jobs each is examined, when no index has the conditions.
MOST_NEWEST = 10_000
_FEWEST = 200
# Twice as many as are enough are examined first, before it is known how many of them fit.
_EACH_OF_ENOUGH = 2
# With more tasks or queues than are listed, a pattern chooses no index.
_MOST_NAMES = 200
_EVER = (datetime(MINYEAR, 1, 2, tzinfo=UTC), datetime(MAXYEAR, 12, 30, tzinfo=UTC))

_ONE_KEY = literal(0)

Jobs = list[tuple[int, str]]


@dataclass(frozen=True)
class NewestFound:
    """The jobs that fit among the newest, as id and state, the newest first.

    `is_enough`: so many of the newest were found that the others were not examined. `is_cut`: no more than a
    number of the newest were examined.
    """

    jobs: Jobs
    is_enough: bool = False
    is_cut: bool = False


@dataclass(frozen=True)
class _Scan:
    """What is examined: makes the select of some columns of these jobs, one more than `most` for each `key`.

    `is_newest_first`: those with the highest ids are examined, whatever their key is.
    """

    make: Callable[..., Select[*tuple[Any, ...]]]
    most: int
    key: ColumnElement[Any] = _ONE_KEY
    is_newest_first: bool = False

    def select(self, *columns: Any) -> Select[*tuple[Any, ...]]:
        """The select of these columns."""
        return self.make(self.most + 1, *columns)


def keep_fitting(
    session: Session, wanted: JobFilter, now: datetime, ids: Sequence[int], is_shown: IsShown
) -> Jobs:
    """Id and state of those of these jobs that meet all conditions of the filter, the newest first."""

    def scan(_: int, *columns: Any) -> Select[*tuple[Any, ...]]:
        return select(*columns).where(is_one_of(Job.id, ids))

    return _examine(session, wanted, now, _Scan(scan, len(ids)), is_shown)[0] if ids else []


def find_among_newest(
    session: Session,
    wanted: JobFilter,
    now: datetime,
    found: Range,
    is_shown: IsShown,
    enough: int,
) -> NewestFound:
    """The jobs that fit among the newest. Of more than can be examined, a little more than `enough` will do.

    The newest of a task, a queue or a state when the filter names some, those that ended last when it asks
    for a time of their end, and those with an error when it asks for a text.
    """
    scan = _choose_scan(session, wanted, now, found)
    few = replace(scan, most=_EACH_OF_ENOUGH * enough)
    if scan.is_newest_first and few.most < scan.most and not found.conditions:
        beyond = scan.make(1, Job.id).offset(scan.most)
        older = start_reading(session, Session.scalars, beyond)
        jobs, number = _examine(session, wanted, now, few, is_shown)
        if number <= few.most:  # these were all
            return NewestFound(jobs)
        if older.value.first() is not None and len(jobs) > enough:
            return NewestFound(jobs, is_enough=True)
    jobs, number = _examine(session, wanted, now, scan, is_shown)
    return NewestFound(jobs, is_cut=number > scan.most)


def find_in_states(
    session: Session,
    wanted: JobFilter,
    now: datetime,
    found: Range,
    states: Sequence[str],
    most: int,
    is_shown: IsShown,
) -> tuple[Jobs, bool]:
    """Id and state of the jobs that fit among the newest `most` of each state; whether there are older."""
    scan = _scan_each(Job.state, states, found, most)
    jobs, number = _examine(session, wanted, now, scan, is_shown)
    return jobs, number > most


def _examine(
    session: Session, wanted: JobFilter, now: datetime, scan: _Scan, is_shown: IsShown
) -> tuple[Jobs, int]:
    """The jobs of a scan that fit, the newest first, and how many it has of the key of which it has most."""
    texts = _find_texts(session, wanted, scan, is_shown)
    fits = Terms(wanted, now, texts, is_examined=True).all_met()
    some = scan.select(Job.id, Job.state, fits.label("fits"), scan.key.label("key")).cte("examined")
    seen = some.prefix_with("MATERIALIZED", dialect="postgresql").c
    of_key = select(func.count()).select_from(seen.id.table).group_by(seen.key)
    number = of_key.order_by(func.count().desc()).limit(1).scalar_subquery()
    # Two arrays instead of thousands of rows.
    newest_first = (aggregate_order_by(one, seen.id.desc()) for one in (seen.id, seen.state))
    arrays = [func.array_agg(one).filter(seen.fits) for one in newest_first]
    answer: Any = select(*arrays, number)
    ids, states, most = session.execute(answer).one()
    return list(zip(ids or (), states or (), strict=True)), most or 0


def _find_texts(
    session: Session, wanted: JobFilter, scan: _Scan, is_shown: IsShown
) -> dict[str, list[int]]:
    """The jobs of the scan whose error has a searched text, as it is stored and as it is shown, by text."""
    found: dict[str, list[int]] = {text: [] for text in wanted.texts}
    if not found:
        return found
    some = (
        scan.select(Job.id, Job.error)
        .cte("errors")
        .prefix_with("MATERIALIZED", dialect="postgresql")
        .c
    )
    has = [contains(some.error, text) for text in found]
    rows = session.execute(select(some.id, some.error, *has).where(or_(*has)))
    for row in rows:
        for text, has_text in zip(found, row[2:], strict=True):
            if has_text and is_shown(row[1], text):
                found[text].append(row[0])
    return found


def _choose_scan(session: Session, wanted: JobFilter, now: datetime, found: Range) -> _Scan:
    lead = lead_of(wanted)
    clauses = [clause for clause in wanted.further if not any(one.is_not for one in clause)]
    if any(all(one.name == "error" for one in clause) for clause in clauses):
        return _scan_errors(found)
    if lead in (None, "state"):
        for name in ("task", "queue"):
            if (names := _find_names(session, name, clauses)) is not None:
                return _scan_each(getattr(Job, name), names, found)
        for clause in clauses:
            if len(clause) == 1 and clause[0].name == "ended":
                since, until = clause[0].value.bounds(now, wanted.tzinfo)
                final = [one for one in FINAL if wanted.state in (None, one)]
                return _scan_ended(final, since, until, found)
    states = None if lead is not None else _find_names(session, "state", clauses)
    if states is not None:
        return _scan_each(Job.state, states, found)

    def scan(limit: int, *columns: Any) -> Select[*tuple[Any, ...]]:
        # One condition chooses the index; the others are examined, so that the scan is bounded.
        return scan_index(select(*columns), indexed_part(wanted), found).limit(limit)

    return _Scan(scan, MOST_NEWEST, is_newest_first=True)


def _find_names(session: Session, name: str, clauses: Sequence[Clause]) -> Sequence[str] | None:
    """The values of the first clause that asks for nothing but some of `name`; None when there is none.

    The names that a pattern stands for are read, when there are few tasks or queues.
    """
    for clause in clauses:
        if any(one.name != name for one in clause):
            continue
        names = {one.value for one in clause if not isinstance(one.value, Pattern)}
        if patterns := [one.value for one in clause if isinstance(one.value, Pattern)]:
            list_names = queries.list_task_names if name == "task" else list_queue_names
            known = list_names(session)
            if len(known) >= _MOST_NAMES:
                continue
            names |= {one for one in known if any(pattern.fits(one) for pattern in patterns)}
        return sorted(names)
    return None


def _scan_errors(found: Range) -> _Scan:
    def scan(limit: int, *columns: Any) -> Select[*tuple[Any, ...]]:
        bounds = (Job.id >= found.low, Job.id < found.high, *found.conditions)
        newest = select(*columns).where(Job.error.is_not(None), *bounds)
        return newest.order_by(Job.id.desc()).limit(limit)

    return _Scan(scan, MOST_NEWEST, is_newest_first=True)


def _scan_each(key: Any, values: Sequence[str], found: Range, most: int | None = None) -> _Scan:
    """The newest jobs of each of these tasks, queues or states, in the order of its index.

    So many of each as all may share, unless `most` says how many.
    """
    value = make_values(values, Text(), "v").c.value
    low, high = (tuple_(value, literal(bound, BigInteger)) for bound in (found.low, found.high))
    # A range of one value instead of an equality, as in `scan_index`.
    both = tuple_(key, Job.id)
    conditions = (both >= low, both < high, *found.conditions)
    most = most or _share(len(values))
    return _scan_values(value, most, key, conditions, (key.desc(), Job.id.desc()))


def _scan_ended(
    states: Sequence[str], since: datetime | None, until: datetime | None, found: Range
) -> _Scan:
    """The jobs of each of these states that ended last in this time."""
    value = make_values(states, Text(), "v").c.value
    bounds = (Job.ended_at >= (since or _EVER[0]), Job.ended_at < (until or _EVER[1]))
    conditions = (Job.state == value, *bounds, *found.conditions)
    most = _share(len(states))
    return _scan_values(value, most, Job.state, conditions, (Job.ended_at.desc(),))


def _share(number: int) -> int:
    """How many jobs are examined of each of so many values."""
    return max(MOST_NEWEST // max(number, 1), _FEWEST)


def _scan_values(
    value: Any, most: int, key: Any, conditions: Sequence[Any], order: Sequence[Any]
) -> _Scan:
    """At most so many jobs for each value, those first that `order` says."""

    def scan(limit: int, *columns: Any) -> Select[*tuple[Any, ...]]:
        first = select(*columns).where(*conditions).order_by(*order).limit(limit).lateral()
        return select(first).select_from(value.table.join(first, literal(True)))

    return _Scan(scan, most, key)
