"""Finds the jobs of a search within its limits: by an index, by the newest attempts, or among the newest.

No index has them in the order of the list. So each statement is bounded, and a search says where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from itertools import islice
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    Select,
    and_,
    func,
    null,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from ...core.display import Display
from ...core.reading import KeptValue, estimate_rows, execute_with
from ...core.round_trips import StartedRead, start_reading
from ...policy import DisplayPolicy
from .. import queries
from ..lifecycle import STATES
from ..models import Job
from . import attempt_queries
from .attempt_queries import NewestAttempts
from .conditions import Now, Terms, contains, is_one_of
from .filter import JobFilter
from .further_queries import (
    Fitting,
    IsShown,
    NewestFound,
    Search,
    choose_scan,
    find_among,
    find_among_newest,
)
from .group_queries import (
    MOST_JOBS,
    Listed,
    Members,
    Named,
    find_members,
    find_named,
    has_other_terms,
)
from .index_scan import PLAIN, Range, conditions_of, is_match, within

# None of the conditions that have an index depends on the time.
_ANY_TIME = datetime.min.replace(tzinfo=UTC)
# The number of hits that are examined: enough for any list, and fast to sort. As many of a group are listed.
MOST_HITS = MOST_JOBS
# Of more than can be found, so many are enough for a list, where the newest are found first.
MOST_LISTED = 1_000
# When there are more hits, an arbitrary part is found. Then all hits among this many newest jobs are added.
NEWEST_JOBS = 20_000
# A value is common when more jobs have it, and one in so many of all. Then the newest jobs are read, and no
# index of it. Postgres assumes that one job in 200 has a tag of which its statistics tell nothing, and up to
# one in 50 such an argument.
MANY_JOBS, MANY_OF_TAG, MANY_OF_ARGUMENT = 20_000, 150, 40
# When nothing but a common value is searched, so many jobs are read at most.
MOST_READ = 150_000
# Of more values it is not asked how many jobs have each: all are searched by their indexes.
MOST_ESTIMATED = 10
# A text in an error is searched in this many of the newest jobs that have an error.
NEWEST_ERRORS = 20_000


@dataclass(frozen=True)
class Searched:
    """Whether a search examined all jobs, or stopped at one of its limits.

    The newest hits are those of a common value. Groups are workflows and batches. When no index has the
    conditions, each of the newest jobs is examined, of the newest with an error, or of those that ended last.
    """

    stopped_at_hits: bool = False
    stopped_at_errors: bool = False
    stopped_at_groups: bool = False
    stopped_at_attempts: bool = False
    stopped_at_newest: bool = False
    stopped_at_newest_errors: bool = False
    stopped_at_last_ended: bool = False
    stopped_at_newest_hits: bool = False

    @property
    def may_find_more_of_a_state(self) -> bool:
        """Whether a search for one state alone may find more jobs of it."""
        hits = self.stopped_at_hits or self.stopped_at_newest_hits
        examined = self.stopped_at_newest or self.stopped_at_last_ended
        return hits or self.stopped_at_groups or examined

    @property
    def is_all(self) -> bool:
        """Whether all jobs were examined."""
        return not any(vars(self).values())

    @property
    def kind(self) -> str:
        """The kind of a `Count` of its hits."""
        return "exact" if self.is_all else "at_least"


@dataclass(frozen=True)
class Hits:
    """Ids and states of the jobs that a search found, the newest first, and how far it looked.

    `whole`: states of which it examined all jobs, wherever it stopped among the others. `find_in_state` finds
    the hits of a state among what was read, when that was more than is kept.
    """

    jobs: Sequence[tuple[int, str]]
    searched: Searched
    whole: Collection[str] = ()
    find_in_state: Callable[[str], Hits] | None = None

    @property
    def ids(self) -> Sequence[int]:
        """The ids, the newest first."""
        return [job_id for job_id, _ in self.jobs]

    def in_state(self, state: str) -> Hits:
        """The hits in this state."""
        if self.find_in_state is not None:
            return self.find_in_state(state)
        return Hits([job for job in self.jobs if job[1] == state], self.searched_of(state))

    def searched_of(self, state: str) -> Searched:
        """How far it looked among the jobs of this state."""
        return Searched() if state in self.whole else self.searched


@dataclass(frozen=True)
class SharedReads:
    """What searches of the same conditions in several states read once, and first.

    `naming` reads what the conditions name. `choosing` finds which of their tags and arguments few jobs have.
    With `is_examined`, these are examined too, and found by no index.
    """

    naming: StartedRead[Named]
    choosing: StartedRead[Sequence[JobFilter]]
    is_examined: bool = False

    @property
    def rare(self) -> Sequence[JobFilter]:
        """The tags and arguments that an index finds. Waits for them."""
        return () if self.is_examined else self.choosing.value


def start_shared(session: Session, wanted: JobFilter) -> SharedReads:
    """Start to read it."""
    naming = start_reading(session, find_named, wanted)
    values = () if wanted.is_by_attempts else _values_of(wanted)
    return SharedReads(naming, start_reading(session, _list_rare, values))


def shows(policy: DisplayPolicy) -> IsShown:
    """A test whether an error still has a text after the display policy has cleaned it.

    Without it a hidden secret could be guessed letter by letter from the number of hits.
    """
    display = Display(policy, may_see=True)

    @cache  # many jobs have the same error
    def clean(error: str) -> str:
        return display.clean(error).lower()

    return lambda error, text: text.lower() in clean(error)


def find_hits(
    session: Session,
    wanted: JobFilter,
    now: Now,
    is_shown: IsShown,
    enough: int | None = None,
    shared: SharedReads | None = None,
) -> Hits:
    """The jobs that a search finds within its limits.

    An index finds candidates for the conditions that have one; the further conditions are then examined of
    each. Without such a condition the candidates are the newest jobs. Of more than can be found, the newest
    `enough` will do where they are found first, by default `MOST_HITS`. `shared` is read once for
    searches of the same conditions in several states.
    """
    # Beside another index, the text of an error is examined of all that this finds.
    enough = MOST_HITS if enough is None or wanted.error else min(enough, MOST_HITS)
    found = queries.range_of(session, wanted, now)
    search = Search(session, wanted, now, found, is_shown)
    if wanted.is_by_attempts:
        return _find_by_attempts(search, enough)
    shared = shared or start_shared(session, wanted)
    choosing = start_reading(search, choose_scan)
    indexed = _choose_indexed(wanted, shared)
    if not indexed.is_search or (is_by_errors(indexed) and indexed != wanted):
        newest = find_among_newest(search, choosing.value, enough)
        if newest.is_enough:
            return Hits(newest.jobs[:enough], Searched(stopped_at_newest_hits=True))
        scan = choosing.value
        searched = Searched(
            stopped_at_newest=newest.is_cut and not (scan.is_by_end or scan.is_by_error),
            stopped_at_newest_errors=newest.is_cut and scan.is_by_error,
            stopped_at_last_ended=newest.is_cut and scan.is_by_end,
        )
        return Hits(_leave_most(newest), searched, newest.whole)
    fitting = Fitting(_rest_of(wanted, indexed), now, is_shown)
    return _find_by_index(replace(search, wanted=indexed), fitting, enough, shared)


def _choose_indexed(wanted: JobFilter, shared: SharedReads) -> JobFilter:
    """The conditions by which indexes find jobs. The others are examined of each.

    Of several tags, arguments and clauses of these, and beside other conditions, these are the ones that few
    jobs have: an index would read all jobs of the others.
    """
    if _is_one_value(wanted):
        return wanted
    return wanted.but(
        tag=next((one.tag for one in shared.rare if one.tag), None),
        args=tuple(argument for one in shared.rare for argument in one.args),
        further=tuple(clause for one in shared.rare for clause in one.further),
    )


def _rest_of(wanted: JobFilter, indexed: JobFilter) -> JobFilter:
    """The conditions that are examined of each job that an index finds."""
    return JobFilter(
        tag=None if indexed.tag else wanted.tag,
        args=tuple(one for one in wanted.args if one not in indexed.args),
        further=tuple(one for one in wanted.further if one not in indexed.further),
        zone=wanted.zone,
    )


def _values_of(wanted: JobFilter) -> Sequence[JobFilter]:
    """Each of its tags, arguments and clauses of these: an index finds the jobs of each, in any order."""
    tags = [JobFilter(tag=wanted.tag)] if wanted.tag else []
    args = [JobFilter(args=(one,)) for one in wanted.args]
    return [*tags, *args, *(JobFilter(further=(one,)) for one in wanted.indexed_clauses)]


def _is_one_value(wanted: JobFilter) -> bool:
    """Whether it asks for one tag or argument, or one clause of these, and for nothing else."""
    others = wanted.error or wanted.created or wanted.names_jobs or conditions_of(wanted)
    is_one = len(_values_of(wanted)) == 1
    return is_one and not others and wanted.further == wanted.indexed_clauses


def _list_rare(session: Session, values: Sequence[JobFilter]) -> Sequence[JobFilter]:
    """Those of these values that are not common, by the statistics of Postgres.

    When few values are joined by `OR`, each is estimated alone: Postgres would add up what it assumes of
    values that it does not know.
    """
    if not 0 < len(values) <= MOST_ESTIMATED:
        return values
    alternatives = [
        [JobFilter(further=((one,),)) for clause in value.further for one in clause] or [value]
        for value in values
    ]
    if sum(map(len, alternatives)) > MOST_ESTIMATED:
        alternatives = [[value] for value in values]
    in_all = start_reading(session, estimate_rows, select(Job.id))
    estimating = [
        [start_reading(session, _is_rare, one, in_all) for one in joined] for joined in alternatives
    ]
    return [
        value
        for value, joined in zip(values, estimating, strict=True)
        if all(each.value for each in joined)
    ]


def _is_rare(session: Session, value: JobFilter, in_all: StartedRead[int]) -> bool:
    """Whether few of all jobs have it, by Postgres' statistics."""
    conditions = Terms(value, _ANY_TIME, is_estimated=True).list_indexed()
    number = estimate_rows(session, select(Job.id).where(*conditions))
    # Of several that are estimated as one, the assumptions for unknown ones add up.
    is_tag = [one.name for one in value.every_condition] == ["tag"]
    return number <= max(MANY_JOBS, in_all.value / (MANY_OF_TAG if is_tag else MANY_OF_ARGUMENT))


def _leave_most(newest: NewestFound) -> Sequence[tuple[int, str]]:
    """At most `MOST_HITS`, the newest first. What is left out is the oldest of states that are not whole."""
    too_many = len(newest.jobs) - MOST_HITS
    if too_many <= 0:
        return newest.jobs
    oldest_first = (job for job in reversed(newest.jobs) if job[1] not in newest.whole)
    left_out = set(islice(oldest_first, too_many))
    return [job for job in newest.jobs if job not in left_out]


def _find_by_index(
    search: Search,
    fitting: Fitting,
    enough: int,
    shared: SharedReads,
) -> Hits:
    """The jobs that an index finds and that fit."""
    wanted = search.wanted
    if is_by_errors(wanted):
        return _find_by_errors(search)
    listed = KeptValue(search.session, "{}", ARRAY(BigInteger))
    members = find_members(search.session, wanted, search.found, shared.naming, listed)
    if members.listing is None:
        return _find_by_values(search, members, fitting, enough, shared)
    if not has_other_terms(wanted) and fitting.is_about_states:
        # Nothing else is read of them, and they are at most `MOST_HITS`.
        jobs = members.listing.value.jobs
        fits = {state for state in STATES if fitting.fits_state(state)}
        kept = jobs if len(fits) == len(STATES) else [job for job in jobs if job[1] in fits]
        is_cut = members.is_cut or members.listing.value.is_cut
        return Hits(kept, Searched(stopped_at_groups=is_cut))
    rows = _read_listed(search, members.listing, listed, fitting)
    is_cut = members.is_cut or members.listing.value.is_cut or len(rows) > MOST_HITS
    rows = _show(search, rows)
    return _keep_fitting(rows, fitting, Searched(stopped_at_groups=is_cut))


def _find_by_values(
    search: Search, members: Members, fitting: Fitting, enough: int, shared: SharedReads
) -> Hits:
    """The jobs that the indexes of arguments, tags and ids find. Of a common value, the newest jobs are read.

    Each statement finds nothing unless what the one before has kept says that it is needed. So all are sent
    in one round trip.
    """
    session, wanted, everyone = search.session, search.wanted, search.found
    found = replace(everyone, conditions=(*everyone.conditions, *members.conditions))
    number_of_newest, number = KeptValue(session, 0), KeptValue(session, 0)
    reading_newest = None
    is_alone = _is_one_value(wanted) and not fitting.wanted.is_search
    if is_alone and not shared.rare:
        newest = _select_newest_of_common(wanted, enough, number_of_newest)
        reading_newest = start_reading(session, Session.execute, newest)
    by_index = _select_hits(wanted, found, fitting, number_of_newest.read() <= enough, number)
    # These GIN indexes need bitmap scans, and no other index may be scanned instead.
    scans = {"enable_bitmapscan": "on", "enable_indexscan": "off"}
    reading_hits = start_reading(session, execute_with, by_index, **scans)
    # The index usually finds the oldest hits first.
    is_cut = number.read() > MOST_HITS
    added = session.execute(_select_newest_hits(wanted, found, everyone, fitting, is_cut)).all()
    if reading_newest is not None and len(rows := reading_newest.value.all()) > enough:
        jobs = [(row[0], row[1]) for row in rows[:enough]]
        return Hits(jobs, Searched(stopped_at_newest_hits=True))
    rows = reading_hits.value.all()
    # The text of the error did not choose these rows, so their number reveals nothing about hidden text.
    searched = Searched(len(rows) > MOST_HITS, stopped_at_groups=members.is_cut)
    by_id = {row[0]: row for row in (*rows, *added)}
    rows = [by_id[job_id] for job_id in sorted(by_id, reverse=True)]
    return _keep_fitting(_show(search, rows), fitting, searched)


def _read_listed(
    search: Search, listing: StartedRead[Listed], listed: KeptValue, fitting: Fitting
) -> Sequence[Any]:
    """Those of these jobs that fit, the newest first, with their errors when the search is about errors.

    Read by id alone, as `list_jobs_in_full` does.
    """
    wanted = search.wanted
    columns = (Job.id, Job.state, Job.error, *fitting.columns, Job.task, Job.queue, Job.origin)
    is_listed = is_one_of(Job.id, listed.read())
    rows = search.session.execute(select(*columns).where(is_listed).order_by(Job.id.desc()))
    matching = (row for row in rows.all() if is_match(wanted, row))
    ids = {id for id, _ in listing.value.jobs}
    fitting_rows = (row for row in matching if row.error is not None or not wanted.error)
    return [row for row in fitting_rows if row.id in ids]


def _show(search: Search, rows: Sequence[Any]) -> Sequence[Any]:
    """Those of these rows whose error, as it is shown, has the text that is searched.

    At most the first `MOST_HITS` + 1: to clean an error takes longer than to read it.
    """
    text = search.wanted.error
    shown = (row for row in rows if text is None or search.is_shown(row.error or "", text))
    return list(islice(shown, MOST_HITS + 1))


def _keep_fitting(rows: Sequence[Any], fitting: Fitting, searched: Searched) -> Hits:
    """Those of the first `MOST_HITS` of these rows that fit.

    A row is an id, a state, an error and the columns of `Fitting`. They are read by their places: by their
    names it takes several times as long, and there are thousands of rows.
    """
    jobs = [
        (row[0], row[1])
        for row in rows[:MOST_HITS]
        if row[3] or (row[3] is None and fitting.is_met(row[4], row[5]))
    ]
    return Hits(jobs, searched)


def _find_by_errors(search: Search) -> Hits:
    """The hits among the newest errors. Only those that have the text as they are shown count as hits.

    Otherwise, whether the search stopped at its limit would reveal hidden text.
    """
    session, wanted, found = search.session, search.wanted, search.found
    older = start_reading(session, Session.scalars, _select_unsearched_error(found))
    newest = session.execute(_select_newest_errors(wanted, found)).all()
    has_older = older.value.first() is not None

    def keep(some: Sequence[Any]) -> Hits:
        rows = _show(search, some)
        jobs = [(row.id, row.state) for row in rows[:MOST_HITS]]
        return Hits(jobs, Searched(len(rows) > MOST_HITS, has_older))

    def find_in_state(state: str) -> Hits:
        return keep([row for row in newest if row.state == state])

    return replace(keep(newest), find_in_state=find_in_state)


def _find_by_attempts(search: Search, enough: int) -> Hits:
    """The jobs of the newest attempts that fit. All other conditions are examined of each of these jobs."""
    attempts = NewestAttempts(search.wanted, search.found)
    others = replace(search, wanted=search.wanted.but(failure=None, death=None, deploy=None))
    unsearched = start_reading(search.session, Session.scalars, attempts.select_unsearched())
    jobs = find_among(others, attempts.select_jobs(enough))
    if unsearched.value.first() is None:
        return Hits(jobs, Searched())
    if len(jobs) < enough < attempt_queries.MOST_ATTEMPTS:
        rest = attempts.select_jobs(MOST_HITS, offset=enough)
        jobs = sorted((*jobs, *find_among(others, rest)), reverse=True)
    if len(jobs) >= enough:
        return Hits(jobs[:enough], Searched(stopped_at_newest_hits=True))
    return Hits(jobs, Searched(stopped_at_attempts=True))


def is_by_errors(wanted: JobFilter) -> bool:
    """Whether the search examines only the newest errors, since it has no other condition with an index."""
    has_index = wanted.is_by_values or wanted.names_jobs or wanted.is_by_attempts
    return bool(wanted.error and not has_index)


def _select_unsearched_error(found: Range) -> Select[int]:
    """The id of the newest job with an error beyond `NEWEST_ERRORS`; no row when there are fewer."""
    with_error = select(Job.id).where(Job.error.is_not(None), *within(found))
    return with_error.order_by(Job.id.desc()).offset(NEWEST_ERRORS).limit(1)


def _select_newest_hits(
    wanted: JobFilter,
    found: Range,
    everyone: Range,
    fitting: Fitting,
    gate: ColumnElement[bool],
) -> Select[*tuple[Any, ...]]:
    """Like `_select_hits`, but scans the ids of the newest jobs. Without `gate` no row.

    `everyone` is the range without the conditions on workflows and batches.
    """
    newest = select(Job.id).where(*within(everyone)).order_by(Job.id.desc())
    beyond = func.coalesce(newest.offset(NEWEST_JOBS).limit(1).scalar_subquery(), 0)
    some = _select_matching(wanted, fitting, [*within(found), Job.id > beyond, gate])
    return some.order_by(Job.id.desc()).limit(MOST_HITS)


def _select_hits(
    wanted: JobFilter, found: Range, fitting: Fitting, gate: ColumnElement[bool], number: KeptValue
) -> Select[*tuple[Any, ...]]:
    """Id, state, error (if searched) and what fits of jobs, at most `MOST_HITS` + 1, the newest first.

    Uses a materialized CTE with a limit: it finds any hits in any order, which are sorted afterwards. Without
    it, the planner might scan the primary key to get the order. Keeps their number. Without `gate` no row.
    """
    some = _select_matching(wanted, fitting, [*within(found, Job.id + 0), gate])
    first = some.limit(MOST_HITS + 1).cte("hits")
    first = first.prefix_with("MATERIALIZED", dialect="postgresql")
    return select(first, _keep_number(first, number)).order_by(first.c.id.desc())


def _select_newest_of_common(
    wanted: JobFilter, enough: int, number: KeptValue
) -> Select[*tuple[Any, ...]]:
    """Id and state of jobs with a value: reads at most `MOST_READ`, the newest first, until `enough` + 1 have
    it. Keeps their number.
    """
    has_value = and_(*_match(wanted)).is_(True).label("has_value")
    read = select(Job.id, Job.state, has_value).order_by(Job.id.desc())
    seen = read.limit(MOST_READ).subquery().c
    some = select(seen.id, seen.state).where(seen.has_value)
    first = some.order_by(seen.id.desc()).limit(enough + 1).cte("common")
    return select(first, _keep_number(first, number)).order_by(first.c.id.desc())


def _keep_number(found: CTE, number: KeptValue) -> ColumnElement[Any]:
    """What keeps how many these are. A subquery, so that it is done once."""
    counted = select(func.count()).select_from(found).scalar_subquery()
    return select(number.keep(counted)).scalar_subquery()


def _select_matching(
    wanted: JobFilter, fitting: Fitting, bounds: list[ColumnElement[bool]]
) -> Select[*tuple[Any, ...]]:
    conditions = [*_match(wanted), *bounds]
    columns = (Job.id, Job.state, _error(wanted), *fitting.columns)
    return select(*columns).where(*conditions)


def _match(wanted: JobFilter) -> list[ColumnElement[bool]]:
    # As expressions, so that no index of a state or a task is read beside that of the value: it has few jobs.
    plain = ((getattr(Job, name), getattr(wanted, name)) for name in PLAIN)
    conditions = [column.concat("") == value for column, value in plain if value is not None]
    conditions += Terms(wanted, _ANY_TIME).list_indexed()
    if wanted.error:
        # The caller checks which of these errors fit. Checked here, a frequent argument with a rare text in
        # the error would read the whole table.
        conditions.append(Job.error.is_not(None))
    return conditions


def _error(wanted: JobFilter) -> ColumnElement[Any]:
    error: ColumnElement[Any] = Job.error.expression if wanted.error else null()
    return error.label("error")


def _select_newest_errors(wanted: JobFilter, found: Range) -> Select[*tuple[Any, ...]]:
    """Id, state and error of the jobs among the newest errors that contain the text as it is stored."""
    assert wanted.error is not None
    columns = [Job.id, Job.error, *(getattr(Job, name) for name in PLAIN)]
    newest = select(*columns).where(Job.error.is_not(None), *within(found))
    newest = newest.order_by(Job.id.desc()).limit(NEWEST_ERRORS)
    seen = newest.cte("newest").prefix_with("MATERIALIZED", dialect="postgresql").c
    conditions = [*conditions_of(wanted, seen), contains(seen.error, wanted.error)]
    some = select(seen.id, seen.state, seen.error).where(*conditions)
    return some.order_by(seen.id.desc())
