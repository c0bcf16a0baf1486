"""Reads the jobs that a filter chooses: a page, the counts of its tabs, and how far a search looked.

For a search that no index answers in the order of the list, the statements are bounded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any, NamedTuple

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    FromClause,
    Select,
    and_,
    case,
    func,
    literal,
    literal_column,
    null,
    select,
    true,
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
from ..rows import Count, JobPage
from . import attempt_queries
from .attempt_queries import NewestAttempts
from .conditions import Now, Terms, contains, is_one_of, make_duration, make_wait, search_at
from .filter import JobFilter
from .further_queries import Fitting, IsShown, find_among, find_among_newest
from .group_queries import Listed, find_members, has_other_terms
from .index_scan import PLAIN, Range, conditions_of, is_match, within


@dataclass(frozen=True)
class JobList:
    """A page of a list, the number of jobs in each state, and how far the search looked.

    `paging` reads the page, and `ids` are its jobs, unless they are known only with it. `is_in_order` is
    False when more jobs match than can be read to order them: then the newest come first.
    """

    paging: StartedRead[JobPage]
    ids: Sequence[int] | ColumnElement[Any] | None
    counts: dict[str, Count]
    searched: Searched
    is_in_order: bool = True

    @property
    def page(self) -> JobPage:
        """Its page. Waits for it."""
        return self.paging.value

    @property
    def tasks(self) -> Any:
        """The tasks of the jobs of its page, or what finds them in the round trip of the page."""
        if self.ids is None:
            return {row.task for row in self.page.rows}
        return select(Job.task).where(is_one_of(Job.id, self.ids))

    def count(self, state: str | None) -> int:
        """How many jobs it has at least, in this state or in any."""
        return sum(count.number for name, count in self.counts.items() if state in (None, name))


@dataclass(frozen=True)
class Hits:
    """Ids and states of the jobs that a search found, the newest first, and how far it looked."""

    jobs: Sequence[tuple[int, str]]
    searched: Searched

    @property
    def ids(self) -> Sequence[int]:
        """The ids, the newest first."""
        return [job_id for job_id, _ in self.jobs]

    def in_state(self, state: str) -> Hits:
        """The hits in this state."""
        return Hits([job for job in self.jobs if job[1] == state], self.searched)


def list_jobs(
    session: Session,
    wanted: JobFilter,
    now: datetime | StartedRead[datetime],
    *,
    before: int | None = None,
    after: int | None = None,
    is_shown: IsShown,
) -> JobList:
    """The page of any filter, as `page_of_jobs` returns it, and the counts of its tabs.

    `is_shown` tells whether an error contains a text as the viewer sees it: hidden text is not searchable.
    Does not wait for `now`.
    """
    listing = partial(_list_jobs, session, before, after, is_shown)
    return search_at(wanted, now, listing)


def _list_jobs(
    session: Session,
    before: int | None,
    after: int | None,
    is_shown: IsShown,
    wanted: JobFilter,
    now: Now,
) -> JobList:
    if wanted.sort is not None:
        # Without a search, the tabs tell how many jobs match before each is examined.
        list_newest = partial(_list_jobs, session, None, None, is_shown, wanted.but(sort=None), now)
        newest = None if wanted.is_search else list_newest()
        if newest is None or newest.count(wanted.state) <= MOST_HITS:
            in_order = _list_in_order(session, wanted, now, before, after, is_shown)
            if in_order is not None:
                return in_order
        newest = newest or list_newest()
        return replace(newest, is_in_order=False)
    if not wanted.is_search:
        paging = start_reading(
            session, queries.page_of_jobs, wanted, now, before=before, after=after
        )
        counts = queries.count_jobs_by_state(session, wanted, now)
        return JobList(paging, None, counts, Searched())
    everything, found = _find_hits_and_all(session, wanted, now, is_shown, MOST_LISTED)
    counts = _count_all(everything, found, wanted.state)
    ids, has_newer, has_older = _cut(found.ids, wanted.limit, before, after)
    paging = start_reading(session, _read_page, ids, has_newer, has_older)
    return JobList(paging, ids, counts, found.searched)


def _list_in_order(
    session: Session,
    wanted: JobFilter,
    now: Now,
    before: int | None,
    after: int | None,
    is_shown: IsShown,
) -> JobList | None:
    """The page of a filter in its order; None when more jobs match than can be read to order them."""
    everything, found = _find_hits_and_all(session, wanted, now, is_shown)
    if not found.searched.is_all:
        return None
    order: Any = {
        "due": (case((Job.ended_at.is_(None), Job.due_at)).asc().nulls_last(),),
        "-run": (make_duration(now).desc().nulls_last(),),
        "-wait": (make_wait(now).desc().nulls_last(),),
        "-attempts": (Job.attempt.desc(),),
    }[wanted.sort or ""]
    in_order = func.row_number().over(order_by=(*order, Job.id.desc()))
    page = KeptValue(session, "{}", ARRAY(BigInteger))
    cutting = start_reading(
        session, _cut_in_order, in_order, found.ids, wanted.limit, before, after, page
    )
    paging = start_reading(session, _read_in_order, page, cutting, len(found.ids))
    return JobList(paging, page.read(), _count_all(everything, found, wanted.state), found.searched)


def _find_hits_and_all(
    session: Session, wanted: JobFilter, now: Now, is_shown: IsShown, enough: int | None = None
) -> tuple[Hits, Hits]:
    """The hits in any state, whose numbers the tabs show, and those in the state that is wanted."""
    everything = find_hits(session, wanted.but(state=None), now, is_shown, enough)
    if wanted.state is None:
        return everything, everything
    if not everything.searched.may_find_more_of_a_state:
        return everything, everything.in_state(wanted.state)
    return everything, find_hits(session, wanted, now, is_shown, enough)


def _cut_in_order(
    session: Session,
    in_order: ColumnElement[int],
    ids: Sequence[int],
    limit: int,
    before: int | None,
    after: int | None,
    page: KeptValue,
) -> tuple[int, Sequence[int]]:
    """Cut a page out of an order, as `_cut` does, and keep its ids. Returns where it begins, and they."""
    ordered = select(Job.id, in_order.label("place")).where(is_one_of(Job.id, ids)).cte("ordered")
    place = select(ordered.c.place)
    begin: Any = literal(0)
    if before in ids:
        begin = place.where(ordered.c.id == before).scalar_subquery()
    elif after in ids:
        begin = func.greatest(place.where(ordered.c.id == after).scalar_subquery() - 1 - limit, 0)
    some = select(ordered.c.id).where(ordered.c.place > begin, ordered.c.place <= begin + limit)
    cut = func.array(some.order_by(ordered.c.place).scalar_subquery(), type_=ARRAY(BigInteger))
    row = session.execute(select(begin, cut, page.keep(cut))).one()
    return row[0], row[1]


def _read_in_order(
    session: Session,
    page: KeptValue,
    cutting: StartedRead[tuple[int, Sequence[int]]],
    number: int,
) -> JobPage:
    rows = {row.id: row for row in queries.list_rows(session, page.read())}
    begin, in_order = cutting.value
    return JobPage([rows[id] for id in in_order], begin > 0, begin + len(in_order) < number)


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
) -> Hits:
    """The jobs that a search finds within its limits.

    An index finds candidates for the conditions that have one; the further conditions are then examined of
    each. Without such a condition the candidates are the newest jobs. Of more than can be found, the newest
    `enough` will do where they are found first, by default `MOST_HITS`.
    """
    # Beside another index, the text of an error is examined of all that this finds.
    enough = MOST_HITS if enough is None or wanted.error else min(enough, MOST_HITS)
    found = queries.range_of(session, wanted, now)
    if wanted.is_by_attempts:
        return _find_by_attempts(session, wanted, now, found, is_shown, enough)
    indexed = wanted.but(further=wanted.indexed_clauses)
    if not indexed.is_search:
        newest = find_among_newest(session, wanted, now, found, is_shown, enough)
        if newest.is_enough:
            return Hits(newest.jobs[:enough], Searched(stopped_at_newest_hits=True))
        is_cut = newest.is_cut or len(newest.jobs) > MOST_HITS
        return Hits(newest.jobs[:MOST_HITS], Searched(stopped_at_newest=is_cut))
    fitting = Fitting(JobFilter(further=wanted.further, zone=wanted.zone), now, is_shown)
    hits, number = _find_by_index(session, indexed, found, fitting, enough)
    if hits.searched.stopped_at_newest_hits and len(hits.jobs) < number / 2:
        # Too few of them fit: look at as many as ever.
        return hits if enough == MOST_HITS else find_hits(session, wanted, now, is_shown)
    return hits


class _Row(NamedTuple):
    """The row of a job of which nothing but its state is asked for."""

    id: int
    state: str
    fits: bool
    error: None = None
    text_error: None = None
    otherwise: None = None


def _find_by_index(
    session: Session, wanted: JobFilter, found: Range, fitting: Fitting, enough: int
) -> tuple[Hits, int]:
    """The jobs that an index finds and that fit, and how many it finds."""
    if is_by_errors(wanted):
        return _find_by_errors(session, wanted, found, fitting)
    listed = KeptValue(session, "{}", ARRAY(BigInteger))
    members = find_members(session, wanted, found, listed)
    if members.listing is not None:
        rows = _read_listed(session, wanted, members.listing, listed, fitting)
        is_cut = members.is_cut or members.listing.value.is_cut or len(rows) > MOST_HITS
        shown = _show(wanted, rows, fitting)
        return _keep_fitting(shown, fitting, Searched(stopped_at_groups=is_cut))
    everyone, found = found, replace(found, conditions=(*found.conditions, *members.conditions))
    common = None
    number_of_common, number_of_hits = KeptValue(session, 0), KeptValue(session, 0)
    if _is_common(session, wanted, found):
        some = newest_of_common(wanted, found, fitting, enough, number_of_common)
        common = start_reading(session, Session.execute, some)
    # In the same round trip, if those are too few. These GIN indexes need bitmap scans, and no other index
    # may be scanned instead.
    some = hits(wanted, found, fitting, number_of_common.read() <= enough, number_of_hits)
    finding = start_reading(
        session, execute_with, some, enable_bitmapscan="on", enable_indexscan="off"
    )
    has_more = number_of_hits.read() > MOST_HITS
    newest = session.execute(newest_hits(wanted, found, everyone, fitting, has_more)).all()
    if common is not None and len(rows := common.value.all()) > enough:
        searched = Searched(stopped_at_newest_hits=True, stopped_at_groups=members.is_cut)
        return _keep_fitting(_show(wanted, rows[:enough], fitting), fitting, searched)
    rows = finding.value.all()
    # The text of the error did not choose these rows, so their number reveals nothing about hidden text.
    stopped = len(rows) > MOST_HITS
    if stopped:
        # The index usually finds the oldest hits first.
        merged = {row.id: row for row in (*rows, *newest)}
        rows = [merged[job_id] for job_id in sorted(merged, reverse=True)]
    searched = Searched(stopped_at_hits=stopped, stopped_at_groups=members.is_cut)
    return _keep_fitting(_show(wanted, rows, fitting), fitting, searched)


def _read_listed(
    session: Session,
    wanted: JobFilter,
    listing: StartedRead[Listed],
    listed: KeptValue,
    fitting: Fitting,
) -> Sequence[Any]:
    """Those of these jobs that fit, the newest first, with their errors when the search is about errors.

    Read by id alone, as `list_jobs_in_full` does, and only when something other than a state is asked for.
    """
    if not has_other_terms(wanted) and fitting.is_about_states:
        return [_Row(id, state, fitting.fits_state(state)) for id, state in listing.value.jobs]
    columns = (Job.id, Job.state, Job.error, *fitting.columns, Job.task, Job.queue, Job.origin)
    is_listed = is_one_of(Job.id, listed.read())
    rows = session.execute(select(*columns).where(is_listed).order_by(Job.id.desc()))
    matching = (row for row in rows.all() if is_match(wanted, row))
    ids = {id for id, _ in listing.value.jobs}
    fitting_rows = (row for row in matching if row.error is not None or not wanted.error)
    return [row for row in fitting_rows if row.id in ids]


def _show(wanted: JobFilter, rows: Iterable[Any], fitting: Fitting) -> list[Any]:
    """Those of these rows whose error, as it is shown, has the text that is searched."""
    text = wanted.error
    return [row for row in rows if text is None or fitting.is_shown(row.error or "", text)]


def _keep_fitting(rows: Sequence[Any], fitting: Fitting, searched: Searched) -> tuple[Hits, int]:
    rows = rows[:MOST_HITS]
    fits = (fitting.is_met(row.fits, row.text_error, row.otherwise) for row in rows)
    jobs = [(row.id, row.state) for row, one in zip(rows, fits, strict=True) if one]
    return Hits(jobs, searched), len(rows)


def _find_by_errors(
    session: Session, wanted: JobFilter, found: Range, fitting: Fitting
) -> tuple[Hits, int]:
    """The hits among the newest errors. Only errors that fit as they are shown count towards the limit.

    Otherwise, whether the search stopped at its limit would reveal hidden text.
    """
    older = start_reading(session, Session.scalars, first_unsearched_error(found))
    rows = session.execute(newest_errors(wanted, found, fitting)).all()
    has_older = older.value.first() is not None
    shown = _show(wanted, rows, fitting)
    return _keep_fitting(shown, fitting, Searched(len(shown) > MOST_HITS, has_older))


def _find_by_attempts(
    session: Session,
    wanted: JobFilter,
    now: Now,
    found: Range,
    is_shown: IsShown,
    enough: int,
) -> Hits:
    """The jobs of the newest attempts that fit. All other conditions are examined of each of these jobs."""
    attempts = NewestAttempts(wanted, found)
    others = wanted.but(failure=None, death=None, deploy=None)
    unsearched = start_reading(session, Session.scalars, attempts.select_unsearched())
    jobs = find_among(session, others, now, attempts.select_jobs(enough), is_shown)
    if unsearched.value.first() is None:
        return Hits(jobs, Searched())
    if len(jobs) < enough < attempt_queries.MOST_ATTEMPTS:
        rest = attempts.select_jobs(MOST_HITS, offset=enough)
        jobs = sorted((*jobs, *find_among(session, others, now, rest, is_shown)), reverse=True)
    if len(jobs) >= enough:
        return Hits(jobs[:enough], Searched(stopped_at_newest_hits=True))
    return Hits(jobs, Searched(stopped_at_attempts=True))


def _is_common(session: Session, wanted: JobFilter, found: Range) -> bool:
    """Whether the newest jobs are read, instead of an index that would first read all jobs of a value.

    The statistics tell what is common.
    """
    if not (wanted.tag or wanted.args or wanted.indexed_clauses):
        return False
    in_all = start_reading(session, estimate_rows, select(Job.id).where(*within(found)))
    of_value = select(Job.id).where(*_conditions_of_hits(wanted), *within(found))
    number = estimate_rows(session, of_value)
    return number >= MANY_JOBS and number * COMMON >= in_all.value


def _count(found: Hits) -> dict[str, Count]:
    kind = "exact" if found.searched.is_all else "at_least"
    numbers = Counter(state for _, state in found.jobs)
    return {state: Count(numbers[state], kind) for state in STATES}


def _count_all(everything: Hits, found: Hits, state: str | None) -> dict[str, Count]:
    counts = _count(everything)
    return counts if state is None else counts | {state: _count(found)[state]}


def _cut(
    ids: Sequence[int], limit: int, before: int | None, after: int | None
) -> tuple[Sequence[int], bool, bool]:
    """The ids of a page, and whether there are newer and older ones."""
    newer = [] if after is None else [job_id for job_id in ids if job_id > after]
    if len(newer) > limit:
        return newer[-limit:], True, True
    # Fewer newer jobs than a page holds: show the full first page.
    older = ids if before is None else [job_id for job_id in ids if job_id < before]
    return older[:limit], before is not None, len(older) > limit


def _read_page(session: Session, ids: Sequence[int], has_newer: bool, has_older: bool) -> JobPage:
    return JobPage(queries.list_rows(session, ids), has_newer, has_older)


# None of the conditions that have an index depends on the time.
_ANY_TIME = datetime.min.replace(tzinfo=UTC)
# The number of hits that are examined: enough for any list, and fast to sort.
MOST_HITS = 5_000
# Of more than can be found, so many are enough for a list, where the newest are found first.
MOST_LISTED = 1_000
# When there are more hits, an arbitrary part is found. Then all hits among this many newest jobs are added.
NEWEST_JOBS = 20_000
# A value is common when it has so many jobs, and one in `COMMON` of all. Then so many of the newest are read.
MANY_JOBS, COMMON, MOST_READ = 100_000, 20, 150_000
# A text in an error is searched in this many of the newest jobs that have an error.
NEWEST_ERRORS = 20_000


@dataclass(frozen=True)
class Searched:
    """Whether a search examined all jobs, or stopped at one of its limits.

    The newest hits are those of a common value. Groups are workflows and batches. The newest are those jobs
    of which each is examined, since no index has the conditions.
    """

    stopped_at_hits: bool = False
    stopped_at_errors: bool = False
    stopped_at_groups: bool = False
    stopped_at_attempts: bool = False
    stopped_at_newest: bool = False
    stopped_at_newest_hits: bool = False

    @property
    def may_find_more_of_a_state(self) -> bool:
        """Whether a search for one state alone may find more jobs of it."""
        hits = self.stopped_at_hits or self.stopped_at_newest_hits
        return hits or self.stopped_at_groups or self.stopped_at_newest

    @property
    def is_all(self) -> bool:
        """Whether all jobs were examined."""
        return not any(vars(self).values())


def is_by_errors(wanted: JobFilter) -> bool:
    """Whether the search examines only the newest errors, since it has no other condition with an index."""
    has_index = wanted.args or wanted.tag or wanted.names_jobs or wanted.indexed_clauses
    return bool(wanted.error and not (has_index or wanted.is_by_attempts))


def first_unsearched_error(found: Range) -> Select[int]:
    """The id of the newest job with an error beyond `NEWEST_ERRORS`; no row when there are fewer."""
    with_error = select(Job.id).where(Job.error.is_not(None), *within(found))
    return with_error.order_by(Job.id.desc()).offset(NEWEST_ERRORS).limit(1)


def newest_hits(
    wanted: JobFilter,
    found: Range,
    everyone: Range,
    fitting: Fitting,
    gate: ColumnElement[bool],
) -> Select[*tuple[Any, ...]]:
    """Like `hits`, but scans the ids of the newest jobs.

    `everyone` is the range without the conditions on workflows and batches.
    """
    newest = select(Job.id).where(*within(everyone)).order_by(Job.id.desc())
    beyond = func.coalesce(newest.offset(NEWEST_JOBS).limit(1).scalar_subquery(), 0)
    some = _hits(wanted, fitting, [*within(found), Job.id > beyond, gate])
    return some.order_by(Job.id.desc()).limit(MOST_HITS)


def hits(
    wanted: JobFilter, found: Range, fitting: Fitting, gate: ColumnElement[bool], number: KeptValue
) -> Select[*tuple[Any, ...]]:
    """Id, state, error (if searched) and what fits of jobs, at most `MOST_HITS` + 1, the newest first.

    Uses a materialized CTE with a limit: it finds any hits in any order, which are sorted afterwards. Without
    it, the planner might scan the primary key to get the order. Keeps their number. Without `gate` no row.
    """
    some = _hits(wanted, fitting, [*within(found, Job.id + 0), gate]).limit(MOST_HITS + 1)
    found_some = some.cte("hits").prefix_with("MATERIALIZED", dialect="postgresql")
    listed = select(found_some, _keep_number(found_some, number))
    return listed.order_by(found_some.c.id.desc())


def newest_of_common(
    wanted: JobFilter, found: Range, fitting: Fitting, enough: int, number: KeptValue
) -> Select[*tuple[Any, ...]]:
    """Like `hits`, but reads at most `MOST_READ` jobs, the newest first, and stops above `enough` hits."""
    fits = and_(*_conditions_of_hits(wanted), *found.conditions).is_(True)
    read = select(Job.id, Job.state, _error_of_hits(wanted), fits.label("has_value"))
    read = read.where(*within(replace(found, conditions=()))).order_by(Job.id.desc())
    seen = read.limit(MOST_READ).subquery().c
    some = select(seen.id, seen.state, seen.error).where(seen.has_value)
    first = some.order_by(seen.id.desc()).limit(enough + 1).cte("common")
    return _with_fitting(first, fitting).add_columns(_keep_number(first, number))


def _keep_number(found: CTE, number: KeptValue) -> ColumnElement[Any]:
    """What keeps how many these are. A subquery, so that it is done once."""
    counted = select(func.count()).select_from(found).scalar_subquery()
    return select(number.keep(counted)).scalar_subquery()


def _with_fitting(found: FromClause, fitting: Fitting) -> Select[*tuple[Any, ...]]:
    """These jobs with what fits. Each is looked up by its id, when there are further conditions."""
    if not fitting.wanted.further:
        return select(found, *fitting.columns).order_by(found.c.id.desc())
    # OFFSET keeps the planner from reading all jobs first.
    own = select(*fitting.columns).where(Job.id == found.c.id).offset(literal_column("0")).lateral()
    listed = select(*found.c, *own.c).select_from(found.join(own, true()))
    return listed.order_by(found.c.id.desc())


def _hits(
    wanted: JobFilter, fitting: Fitting, bounds: list[ColumnElement[bool]]
) -> Select[*tuple[Any, ...]]:
    conditions = [*_conditions_of_hits(wanted), *bounds]
    columns = (Job.id, Job.state, _error_of_hits(wanted), *fitting.columns)
    return select(*columns).where(*conditions)


def _conditions_of_hits(wanted: JobFilter) -> list[ColumnElement[bool]]:
    conditions = [*conditions_of(wanted), *Terms(wanted, _ANY_TIME).list_indexed()]
    if wanted.error:
        # The caller checks which of these errors fit. Checked here, a frequent argument with a rare text in
        # the error would read the whole table.
        conditions.append(Job.error.is_not(None))
    return conditions


def _error_of_hits(wanted: JobFilter) -> ColumnElement[Any]:
    error: ColumnElement[Any] = Job.error.expression if wanted.error else null()
    return error.label("error")


def newest_errors(wanted: JobFilter, found: Range, fitting: Fitting) -> Select[*tuple[Any, ...]]:
    """Like `hits`, but only among the newest errors: those that contain the text as it is stored."""
    assert wanted.error is not None
    columns = [Job.id, Job.error, *(getattr(Job, name) for name in PLAIN)]
    newest = select(*columns).where(Job.error.is_not(None), *within(found))
    newest = newest.order_by(Job.id.desc()).limit(NEWEST_ERRORS)
    seen = newest.cte("newest").prefix_with("MATERIALIZED", dialect="postgresql").c
    conditions = [*conditions_of(wanted, seen), contains(seen.error, wanted.error)]
    some = select(seen.id, seen.state, seen.error).where(*conditions)
    return _with_fitting(some.subquery("found"), fitting)
