"""Examines the conditions of a search that have no index: of given jobs, or of a number of the newest.

Other conditions choose what is examined, so that how far a search looked says nothing of a hidden text.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import MAXYEAR, MINYEAR, UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Select,
    TableValuedAlias,
    Text,
    and_,
    any_,
    case,
    cast,
    false,
    func,
    not_,
    null,
    or_,
    select,
    true,
    tuple_,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by, array
from sqlalchemy.orm import Session

from ...core.reading import KeptValue
from ...core.round_trips import start_reading
from ...queues.queries import list_queue_names
from .. import queries
from ..lifecycle import FINAL
from ..models import Job
from .conditions import Now, Terms, contains
from .filter import Clause, Condition, JobFilter
from .group_queries import make_values
from .index_scan import Range, indexed_part, lead_of, scan_index
from .terms import Pattern

# Whether an error, as the viewer sees it, contains a text.
IsShown = Callable[[str, str], bool]
# Of so many of the newest jobs each is examined, when no index has the conditions.
MOST_NEWEST = 5_000
# Twice as many as are enough are examined first, before it is known how many of them fit.
_EACH_OF_ENOUGH = 2
# So often what some values leave is given to the others. Of three values none leaves anything after that.
_TIMES_SHARED = 2
# With more tasks or queues than are listed, a pattern chooses no index.
_MOST_NAMES = 200
_EVER = (datetime(MINYEAR, 1, 2, tzinfo=UTC), datetime(MAXYEAR, 12, 30, tzinfo=UTC))

Jobs = list[tuple[int, str]]


@dataclass(frozen=True)
class Search:
    """What is searched in the snapshot of a session, and what its viewer sees. `found` bounds the ids."""

    session: Session
    wanted: JobFilter
    now: Now
    found: Range
    is_shown: IsShown


@dataclass(frozen=True)
class Fitting:
    """The conditions of a filter as columns of a select of jobs, which tell what jobs meet them.

    A text is searched in an error as it is stored and as it is shown, and only `is_shown` knows the latter.
    So of a job whose stored error has a text, `fits` is NULL, and the other columns tell what decides.
    """

    wanted: JobFilter
    now: Now
    is_shown: IsShown

    @property
    def columns(self) -> list[ColumnElement[Any]]:
        """`fits`, `text_error` and `otherwise`."""
        terms = Terms(self.wanted, self.now, is_examined=True)
        has = {text: contains(Job.error, text).is_(True) for text in self.wanted.texts}
        others = [terms.is_met_otherwise(clause) for clause in self._clauses]
        # As it is shown, an error has no more of the texts than as it is stored.
        may_be_met = [
            or_(other, *(true() if one.is_not else has[one.value] for one in _texts_of(clause)))
            for clause, other in zip(self._clauses, others, strict=True)
        ]
        rest = and_(true(), *(one.is_(True) for one in terms.list_all(with_texts=False)))
        if not has:
            return [rest.label("fits"), null().label("text_error"), null().label("otherwise")]
        decides = or_(*has.values())
        fits = case((not_(and_(rest, *may_be_met)), false()), (decides, null()), else_=true())
        flags = cast(array([*has.values(), *others]), Text)
        told = [case((decides, one)) for one in (Job.error, flags)]
        return [fits.label("fits"), told[0].label("text_error"), told[1].label("otherwise")]

    def is_met(self, error: str | None, otherwise: str | None) -> bool:
        """Whether a job fits of which `fits` is NULL, by the values of the other columns."""
        flags = [flag == "t" for flag in (otherwise or "").strip("{}").split(",")]
        texts = self.wanted.texts
        has = {
            text: flag and self.is_shown(error or "", text)
            for text, flag in zip(texts, flags, strict=False)
        }
        return all(
            other or any(has[one.value] != one.is_not for one in _texts_of(clause))
            for clause, other in zip(self._clauses, flags[len(texts) :], strict=True)
        )

    @property
    def is_about_states(self) -> bool:
        """Whether the state of a job alone decides whether it fits."""
        return all(one.name == "state" for one in self.wanted.every_condition)

    def fits_state(self, state: str) -> bool:
        """Whether jobs of a state fit then."""
        return all(
            any((one.value == state) != one.is_not for one in clause)
            for clause in self.wanted.further
        )

    @property
    def _clauses(self) -> list[Clause]:
        """Those that ask for a text."""
        plain = [(one,) for one in self.wanted.plain if one.name == "error"]
        return [
            *plain,
            *(one for one in self.wanted.further if any(each.name == "error" for each in one)),
        ]


def _texts_of(clause: Clause) -> Sequence[Condition]:
    return [one for one in clause if one.name == "error"]


@dataclass(frozen=True)
class NewestFound:
    """The jobs that fit among the newest, as id and state, the newest first.

    `is_enough`: so many of the newest were found that the others were not examined. `is_cut`: no more than a
    number were examined. `whole`: of these states all were examined, so far as that is known.
    """

    jobs: Jobs
    is_enough: bool = False
    is_cut: bool = False
    whole: Collection[str] = ()


@dataclass(frozen=True)
class Scan:
    """What is examined: makes the select of some columns of at most so many of these jobs.

    `each`: a table of values; the select is made for each of them, and `most` jobs of each are examined.
    `states`: the values, when they are states. `is_newest_first`: those with the highest ids are examined;
    `is_by_end`: those that ended last; `is_by_error`: the newest with an error. With a `gate` none is, unless
    what statements before have kept opens it.
    """

    make: Callable[..., Select[*tuple[Any, ...]]]
    most: int | ColumnElement[int]
    each: TableValuedAlias | None = None
    states: Sequence[str] = ()
    is_newest_first: bool = False
    is_by_end: bool = False
    is_by_error: bool = False
    gate: ColumnElement[bool] | None = None

    def select(self, *columns: Any) -> Select[*tuple[Any, ...]]:
        """The select of these columns, of one job more than are examined."""
        made = self.make(self.most + 1, *columns)
        return made if self.gate is None else made.where(self.gate)


@dataclass(frozen=True)
class _Kept:
    """Whether there are more than were to be examined, and how many of these may fit."""

    is_cut: KeptValue
    may_fit: KeptValue


def find_among(search: Search, ids: Select[int]) -> Jobs:
    """Id and state of those of the jobs with these ids that meet all conditions, the newest first."""
    is_one = Job.id == any_(func.array(ids.scalar_subquery()))

    def scan(_: int, *columns: Any) -> Select[*tuple[Any, ...]]:
        # Without OFFSET each use of a column would compute it again.
        return select(*columns).where(is_one).offset(0)

    return _examine(search, Scan(scan, MOST_NEWEST))[0]


def find_among_newest(search: Search, scan: Scan, enough: int) -> NewestFound:
    """The jobs of a scan that fit. Of more than can be examined, a little more than `enough` will do."""
    session = search.session
    few = replace(scan, most=_EACH_OF_ENOUGH * enough)
    if not scan.is_newest_first or few.most >= scan.most or search.found.conditions:
        jobs, cuts = _examine(search, scan)
        whole = [state for state in scan.states if not cuts.get(state)]
        return NewestFound(jobs, is_cut=any(cuts.values()), whole=whole)
    older = KeptValue(session, 0)
    kept = _Kept(KeptValue(session, True, Boolean), KeptValue(session, 0))
    beyond = scan.make(1, Job.id).offset(scan.most).subquery()
    count_older = select(older.keep(func.count())).select_from(beyond)
    counting = start_reading(session, Session.scalars, count_older)
    some = start_reading(search, _examine, few, kept)
    # The others in the same round trip, if they are needed.
    is_enough = and_(older.read() > 0, kept.may_fit.read() > enough)
    needed = replace(scan, gate=and_(kept.is_cut.read(), not_(is_enough)))
    rest = start_reading(search, _examine, needed)
    jobs, cuts = some.value
    if not any(cuts.values()):  # these were all
        return NewestFound(jobs)
    if counting.value.one() != "0" and len(jobs) > enough:
        return NewestFound(jobs, is_enough=True)
    jobs, cuts = rest.value
    if not cuts:
        # As they are shown, fewer errors have a text than as they are stored.
        jobs, cuts = _examine(search, scan)
    return NewestFound(jobs, is_cut=any(cuts.values()))


def find_in_states(search: Search, states: Sequence[str], most: int) -> tuple[Jobs, bool]:
    """Id and state of the jobs that fit among the newest `most` of each state; whether there are older."""
    scan = _scan_each(Job.state, states, search.found, most)
    jobs, cuts = _examine(search, scan)
    return jobs, any(cuts.values())


def _examine(
    search: Search, scan: Scan, kept: _Kept | None = None
) -> tuple[Jobs, Mapping[str | None, bool]]:
    """The jobs of a scan that fit, the newest first, and of each value that has jobs, whether it has more
    than are examined.

    Those too may fit of which the error, as it is shown, decides it.
    """
    fitting = Fitting(search.wanted, search.now, search.is_shown)
    some = scan.select(Job.id, Job.state, *fitting.columns)
    # Read once: Postgres would store the rows of what it reads twice, which costs as much as to find them.
    seen = some.lateral("examined").c
    is_cut = func.nullif(func.count(), 0) > scan.most
    may_fit = func.count().filter(seen.fits.is_not(False))

    def in_order(filter: ColumnElement[bool], *columns: Any) -> list[ColumnElement[Any]]:
        # Arrays instead of thousands of rows.
        newest_first = (aggregate_order_by(one, seen.id.desc()) for one in columns)
        return [func.array_agg(one).filter(filter) for one in newest_first]

    sure = in_order(seen.fits, seen.id, seen.state)
    unsure = in_order(seen.fits.is_(None), seen.id, seen.state, seen.text_error, seen.otherwise)
    keeping = []
    if kept is not None:
        keeping = [kept.is_cut.keep(func.coalesce(is_cut, false())), kept.may_fit.keep(may_fit)]
    value = null() if scan.each is None else scan.each.c.value
    told = select(value, is_cut, *sure, *unsure, *keeping).select_from(seen.id.table)
    if scan.each is not None:
        of_each = told.lateral()
        told = select(of_each).select_from(scan.each.join(of_each, true()))
    jobs: Jobs = []
    cuts = {}
    for value, cut, ids, states, *others in search.session.execute(told):
        if cut is not None:
            cuts[value] = cut
        jobs += zip(ids or (), states or (), strict=True)
        unsure_ones = zip(*(one or () for one in others[: len(unsure)]), strict=True)
        jobs += [(id, state) for id, state, *texts in unsure_ones if fitting.is_met(*texts)]
    jobs.sort(reverse=True)
    return jobs, cuts


def choose_scan(search: Search) -> Scan:
    """What is examined: the newest jobs of a task, a queue or a state when the filter names some, those that
    ended last when it asks for a time of their end, and those with an error when it asks for a text.
    """
    wanted, found = search.wanted, search.found
    lead = lead_of(wanted)
    clauses = [clause for clause in wanted.further if not any(one.is_not for one in clause)]
    if wanted.error or any(all(one.name == "error" for one in clause) for clause in clauses):
        return _scan_errors(found)
    if lead in (None, "state"):
        for name in ("task", "queue"):
            if (names := _find_names(search.session, name, clauses)) is not None:
                return _scan_each(getattr(Job, name), names, found)
        for clause in clauses:
            if len(clause) == 1 and clause[0].name == "ended":
                since, until = clause[0].value.bounds(search.now, wanted.tzinfo)
                final = [one for one in FINAL if wanted.state in (None, one)]
                return _scan_ended(final, since, until)
    states = None if lead is not None else _find_names(search.session, "state", clauses)
    if states is not None:
        return _scan_each(Job.state, states, found)

    def scan(limit: int, *columns: Any) -> Select[*tuple[Any, ...]]:
        # One condition chooses the index; the others are examined, so that the scan is bounded.
        return scan_index(select(*columns), indexed_part(wanted), found).limit(limit)

    return Scan(scan, MOST_NEWEST, is_newest_first=True)


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


def _scan_errors(found: Range) -> Scan:
    def scan(limit: int, *columns: Any) -> Select[*tuple[Any, ...]]:
        low, high = found.bounds
        bounds = (Job.id >= low, Job.id < high, *found.conditions)
        newest = select(*columns).where(Job.error.is_not(None), *bounds)
        return newest.order_by(Job.id.desc()).limit(limit)

    return Scan(scan, MOST_NEWEST, is_newest_first=True, is_by_error=True)


def _scan_each(key: Any, values: Sequence[str], found: Range, most: int | None = None) -> Scan:
    """The newest jobs of each of these tasks, queues or states, in the order of its index.

    As many of each as they share, unless `most` says how many.
    """
    value = make_values(values, Text(), "v").c.value
    low, high = (tuple_(value, bound) for bound in found.bounds)
    # A range of one value instead of an equality, as in `scan_index`.
    both = tuple_(key, Job.id)
    conditions = (both >= low, both < high, *found.conditions)
    each = _Each(value, conditions, (key.desc(), Job.id.desc()))
    states = values if key is Job.state else ()
    return Scan(each.scan, each.share(len(values)) if most is None else most, value.table, states)


def _scan_ended(states: Sequence[str], since: Now | None, until: Now | None) -> Scan:
    """The jobs of each of these states that ended last in this time, whenever they were created."""
    value = make_values(states, Text(), "v").c.value
    low = _EVER[0] if since is None else since
    high = _EVER[1] if until is None else until
    bounds = (Job.ended_at >= low, Job.ended_at < high)
    each = _Each(value, (Job.state == value, *bounds), (Job.ended_at.desc(),))
    return Scan(each.scan, each.share(len(states)), value.table, states, is_by_end=True)


@dataclass(frozen=True)
class _Each:
    """Scans of jobs, one for each value of a table: what jobs, and which of them first."""

    value: ColumnElement[Any]
    conditions: Sequence[ColumnElement[bool]]
    order: Sequence[ColumnElement[Any]]

    def scan(self, limit: int | ColumnElement[int], *columns: Any) -> Select[*tuple[Any, ...]]:
        """At most so many jobs of a value."""
        jobs = select(*columns).where(*self.conditions).order_by(*self.order)
        return jobs.limit(limit).correlate(self.value.table)

    def share(self, number: int) -> int | ColumnElement[int]:
        """How many jobs of each value are examined, so that those of all are at most `MOST_NEWEST`.

        What some of this number of values leave of an equal part, the others have.
        """
        part: int | ColumnElement[int] = max(MOST_NEWEST // max(number, 1), 1)
        # With one value there is nobody to share with.
        for _ in range(_TIMES_SHARED if number > 1 else 0):
            one_more = self.scan(part + 1, true()).lateral()  # no column: each is in the index
            counted = select(func.count().label("number")).select_from(one_more).lateral()
            needed = func.sum(func.least(counted.c.number, part))
            left = MOST_NEWEST - cast(func.coalesce(needed, 0), BigInteger)
            in_need = func.count().filter(counted.c.number > part)
            larger = select((part + left // func.greatest(in_need, 1)).label("part"))
            shared = larger.select_from(self.value.table.join(counted, true())).cte()
            part = select(shared.c.part).scalar_subquery()
        return part
