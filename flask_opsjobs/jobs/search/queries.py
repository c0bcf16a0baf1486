"""Reads the jobs that a filter chooses: a page, the counts of its tabs, and how far a search looked.

For a search that no index answers in the order of the list, the statements are bounded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from itertools import islice
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    and_,
    case,
    null,
    select,
)
from sqlalchemy.orm import Session

from ...core.db import LARGEST_ID
from ...core.display import Display
from ...core.paging import cut_page
from ...core.reading import estimate_rows, execute_with
from ...core.round_trips import StartedRead, start_reading, value_of
from ...policy import DisplayPolicy
from .. import queries
from ..lifecycle import STATES
from ..models import Job
from ..rows import Count, JobPage
from .attempt_queries import find_jobs_of_attempts
from .conditions import Terms, contains, is_one_of, make_duration, make_wait
from .filter import JobFilter
from .further_queries import IsShown, Jobs, find_among_newest, keep_fitting
from .group_queries import find_members, has_other_terms
from .index_scan import PLAIN, Range, conditions_of, is_match


@dataclass(frozen=True)
class JobList:
    """A page of a list, the number of jobs in each state, and how far the search looked.

    `is_in_order` is False when more jobs match than can be read to order them: then the newest come first.
    """

    page: JobPage
    counts: dict[str, Count]
    searched: Searched
    is_in_order: bool = True


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
    Only a search for a time, and an order, wait for `now`.
    """
    if wanted.sort is not None:
        in_order = _list_in_order(session, wanted, now, before, after, is_shown)
        if in_order is not None:
            return in_order
        newest = list_jobs(session, wanted.but(sort=None), now, is_shown=is_shown)
        return replace(newest, is_in_order=False)
    now = now if wanted.depends_on_time else ANY_TIME
    if not wanted.is_search:
        counting = start_reading(session, queries.count_jobs_by_state, wanted, now)
        page = queries.page_of_jobs(session, wanted, now, before=before, after=after)
        return JobList(page, counting.value, Searched())
    everything = find_hits(session, wanted.but(state=None), now, is_shown, MOST_LISTED)
    counts = _count(everything)
    found = everything
    searched = everything.searched
    if wanted.state and searched.may_find_more_of_a_state:
        # Look for more of this state.
        found = find_hits(session, wanted, now, is_shown, MOST_LISTED)
        counts |= {wanted.state: _count(found)[wanted.state]}
    elif wanted.state:
        found = everything.in_state(wanted.state)
    page = _page(session, found.ids, wanted.limit, before, after)
    return JobList(page, counts, found.searched)


def _list_in_order(
    session: Session,
    wanted: JobFilter,
    now: datetime | StartedRead[datetime],
    before: int | None,
    after: int | None,
    is_shown: IsShown,
) -> JobList | None:
    """The page of a filter in its order; None when more jobs match than can be read to order them."""
    everything = find_hits(session, wanted.but(state=None), now, is_shown)
    found = everything.in_state(wanted.state) if wanted.state else everything
    if not everything.searched.is_all:
        found = find_hits(session, wanted, now, is_shown)
        if not found.searched.is_all:
            return None
    now = value_of(now)
    order: Any = {
        "due": (case((Job.ended_at.is_(None), Job.due_at)).asc().nulls_last(),),
        "-run": (make_duration(now).desc().nulls_last(),),
        "-wait": (make_wait(now).desc().nulls_last(),),
        "-attempts": (Job.attempt.desc(),),
    }[wanted.sort or ""]
    ordered = select(Job.id).where(is_one_of(Job.id, found.ids)).order_by(*order, Job.id.desc())
    ids = list(session.scalars(ordered))
    begin, end = cut_page(ids, wanted.limit, before=before, after=after)
    page = JobPage(queries.list_rows(session, ids[begin:end]), begin > 0, end < len(ids))
    counts = _count(everything)
    if wanted.state:
        counts |= {wanted.state: _count(found)[wanted.state]}
    return JobList(page, counts, found.searched)


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
    now: datetime | StartedRead[datetime],
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
    now = value_of(now)
    if wanted.is_by_attempts:
        return _find_by_attempts(session, wanted, now, found, is_shown, enough)
    indexed = wanted.but(further=wanted.indexed_clauses)
    if not indexed.is_search:
        newest = find_among_newest(session, wanted, now, found, is_shown, enough)
        if newest.is_enough:
            return Hits(newest.jobs[:enough], Searched(stopped_at_newest_hits=True))
        is_cut = newest.is_cut or len(newest.jobs) > MOST_HITS
        return Hits(newest.jobs[:MOST_HITS], Searched(stopped_at_newest=is_cut))
    hits = _find_by_index(session, indexed, found, is_shown, enough)
    if not wanted.further:
        return hits
    further = JobFilter(further=wanted.further, zone=wanted.zone)
    fitting = Hits(keep_fitting(session, further, now, hits.ids, is_shown), hits.searched)
    if hits.searched.stopped_at_newest_hits and len(fitting.jobs) < len(hits.jobs) / 2:
        # Too few of them fit: look at as many as ever.
        return fitting if enough == MOST_HITS else find_hits(session, wanted, now, is_shown)
    return fitting


def _find_by_index(
    session: Session, wanted: JobFilter, found: Range, is_shown: IsShown, enough: int
) -> Hits:
    if is_by_errors(wanted):
        return _find_by_errors(session, wanted, found, is_shown)
    members = find_members(session, wanted, found)
    if members.jobs is not None:
        listed = _read_listed(session, wanted, members.jobs)
        is_cut = members.is_cut or len(listed) > MOST_HITS
        return _show(wanted, listed, is_shown, Searched(stopped_at_groups=is_cut))
    everyone, found = found, replace(found, conditions=(*found.conditions, *members.conditions))
    rows = _list_newest_of_common(session, wanted, found, enough)
    if rows:
        searched = Searched(stopped_at_newest_hits=True, stopped_at_groups=members.is_cut)
        return _show(wanted, rows[:enough], is_shown, searched)
    # These GIN indexes need bitmap scans. No other index may be scanned instead.
    rows = execute_with(
        session, hits(wanted, found), enable_bitmapscan="on", enable_indexscan="off"
    ).all()
    # The text of the error did not choose these rows, so their number reveals nothing about hidden text.
    stopped = len(rows) > MOST_HITS
    if stopped:
        rows = _with_the_newest(session, wanted, found, everyone, rows)
    searched = Searched(stopped_at_hits=stopped, stopped_at_groups=members.is_cut)
    return _show(wanted, rows, is_shown, searched)


def _read_listed(
    session: Session, wanted: JobFilter, jobs: Sequence[tuple[int, str]]
) -> Sequence[Any]:
    """Those of these jobs that fit, the newest first, with their errors when the search is about errors.

    Read by id alone, as `list_jobs_in_full` does, and only when something other than a state is asked for.
    """
    if not jobs or not has_other_terms(wanted):
        return [(id, state, None) for id, state in jobs]
    ids = [id for id, _ in jobs]
    columns = (Job.id, Job.state, Job.error, Job.task, Job.queue, Job.origin)
    rows = session.execute(select(*columns).where(is_one_of(Job.id, ids)).order_by(Job.id.desc()))
    fitting = (row for row in rows if is_match(wanted, row))
    return [row[:3] for row in fitting if row.error is not None or not wanted.error]


def _show(wanted: JobFilter, rows: Sequence[Any], is_shown: IsShown, searched: Searched) -> Hits:
    text = wanted.error
    shown = [row[:2] for row in rows if text is None or is_shown(row[2], text)]
    return Hits(shown[:MOST_HITS], searched)


def _find_by_errors(session: Session, wanted: JobFilter, found: Range, is_shown: IsShown) -> Hits:
    """The hits among the newest errors. Only errors that fit as they are shown count towards the limit.

    Otherwise, whether the search stopped at its limit would reveal hidden text.
    """
    assert wanted.error is not None
    text = wanted.error
    older = start_reading(session, Session.scalars, first_unsearched_error(found))
    rows = session.execute(newest_errors(wanted, found))
    has_older = older.value.first() is not None
    fitting = ((job_id, state) for job_id, state, error in rows if is_shown(error or "", text))
    shown = list(islice(fitting, MOST_HITS + 1))
    stopped = len(shown) > MOST_HITS
    return Hits(shown[:MOST_HITS], Searched(stopped, has_older))


def _find_by_attempts(
    session: Session,
    wanted: JobFilter,
    now: datetime,
    found: Range,
    is_shown: IsShown,
    enough: int,
) -> Hits:
    """The jobs of the newest attempts that fit. All other conditions are examined of each of these jobs."""
    attempts = find_jobs_of_attempts(session, wanted, found)
    others = wanted.but(failure=None, death=None, deploy=None)
    jobs: Jobs = []
    step = enough if attempts.is_cut else MOST_HITS
    for at in range(0, len(attempts.ids), step):
        jobs += keep_fitting(session, others, now, attempts.ids[at : at + step], is_shown)
        if attempts.is_cut and len(jobs) >= enough:
            newest = sorted(jobs, reverse=True)[:enough]
            return Hits(newest, Searched(stopped_at_newest_hits=True))
    return Hits(sorted(jobs, reverse=True), Searched(stopped_at_attempts=attempts.is_cut))


def _list_newest_of_common(
    session: Session, wanted: JobFilter, found: Range, enough: int
) -> Sequence[Row[int, str, str | None]]:
    """The newest hits, when there are more than `enough` in the newest jobs of a common value; else none.

    The statistics tell what is common. An index would read all jobs of the value before it gives the first.
    """
    in_all = start_reading(session, estimate_rows, select(Job.id).where(*within(found)))
    of_value = estimate_rows(session, _hits(wanted, within(found)))
    if of_value < MANY_JOBS or of_value * COMMON < in_all.value:
        return ()
    rows = session.execute(newest_of_common(wanted, found, enough)).all()
    return rows if len(rows) > enough else ()


def _with_the_newest(
    session: Session, wanted: JobFilter, found: Range, everyone: Range, rows: Sequence[Any]
) -> Sequence[Any]:
    """The hits, and those among the newest jobs: the index usually finds the oldest hits first.

    `everyone` is the range without the conditions on workflows and batches.
    """
    beyond = session.scalars(first_unsearched_job(everyone)).first()
    near = session.execute(newest_hits(wanted, found.narrowed(None, beyond)))
    merged = {row[0]: row for row in (*rows, *near)}
    return [merged[job_id] for job_id in sorted(merged, reverse=True)]


def _count(found: Hits) -> dict[str, Count]:
    kind = "exact" if found.searched.is_all else "at_least"
    numbers = Counter(state for _, state in found.jobs)
    return {state: Count(numbers[state], kind) for state in STATES}


def _page(
    session: Session, ids: Sequence[int], limit: int, before: int | None, after: int | None
) -> JobPage:
    newer = [] if after is None else [job_id for job_id in ids if job_id > after]
    if len(newer) > limit:
        return JobPage(queries.list_rows(session, newer[-limit:]), True, True)
    # Fewer newer jobs than a page holds: show the full first page.
    older = ids if before is None else [job_id for job_id in ids if job_id < before]
    rows = queries.list_rows(session, older[:limit])
    return JobPage(rows, before is not None, len(older) > limit)


# Of a search that does not depend on the time. None of the conditions that have an index does.
ANY_TIME = datetime.min.replace(tzinfo=UTC)
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
    return bool(wanted.error and not has_index)


def first_unsearched_error(found: Range) -> Select[int]:
    """The id of the newest job with an error beyond `NEWEST_ERRORS`; no row when there are fewer."""
    with_error = select(Job.id).where(Job.error.is_not(None), *within(found))
    return with_error.order_by(Job.id.desc()).offset(NEWEST_ERRORS).limit(1)


def first_unsearched_job(found: Range) -> Select[int]:
    """The id of the newest job beyond `NEWEST_JOBS`; no row when there are fewer."""
    return select(Job.id).where(*within(found)).order_by(Job.id.desc()).offset(NEWEST_JOBS).limit(1)


def newest_hits(wanted: JobFilter, found: Range) -> Select[int, str, str | None]:
    """Like `hits`, but scans the ids of a small range, the newest first."""
    some = _hits(wanted, within(found)).order_by(Job.id.desc())
    return some.limit(MOST_HITS)


def hits(wanted: JobFilter, found: Range) -> Select[int, str, str | None]:
    """Id, state and (if searched) error of jobs that may fit, at most `MOST_HITS` + 1, the newest first.

    Uses a materialized CTE with a limit: it finds any hits in any order, which are sorted afterwards. Without
    it, the planner might scan the primary key to get the order.
    """
    some = _hits(wanted, within(found, Job.id + 0)).limit(MOST_HITS + 1)
    found_some = some.cte("hits").prefix_with("MATERIALIZED", dialect="postgresql")
    return select(found_some).order_by(found_some.c.id.desc())


def newest_of_common(wanted: JobFilter, found: Range, enough: int) -> Select[int, str, str | None]:
    """Like `hits`, but reads at most `MOST_READ` jobs, the newest first, and stops above `enough` hits."""
    fits = and_(*_conditions_of_hits(wanted), *found.conditions).is_(True)
    read = select(Job.id, Job.state, _error_of_hits(wanted), fits.label("fits"))
    read = read.where(*within(replace(found, conditions=()))).order_by(Job.id.desc())
    seen = read.limit(MOST_READ).subquery().c
    some = select(seen.id, seen.state, seen.error).where(seen.fits)
    return some.order_by(seen.id.desc()).limit(enough + 1)


def _hits(wanted: JobFilter, bounds: list[ColumnElement[bool]]) -> Select[int, str, str | None]:
    conditions = [*_conditions_of_hits(wanted), *bounds]
    return select(Job.id, Job.state, _error_of_hits(wanted)).where(*conditions)


def _conditions_of_hits(wanted: JobFilter) -> list[ColumnElement[bool]]:
    conditions = [*conditions_of(wanted), *Terms(wanted, ANY_TIME).list_indexed()]
    if wanted.error:
        # The caller checks which of these errors fit. Checked here, a frequent argument with a rare text in
        # the error would read the whole table.
        conditions.append(Job.error.is_not(None))
    return conditions


def _error_of_hits(wanted: JobFilter) -> ColumnElement[Any]:
    error: ColumnElement[Any] = Job.error.expression if wanted.error else null()
    return error.label("error")


def newest_errors(wanted: JobFilter, found: Range) -> Select[int, str, str | None]:
    """Like `hits`, but only among the newest errors: those that contain the text as it is stored."""
    assert wanted.error is not None
    columns = [Job.id, Job.error, *(getattr(Job, name) for name in PLAIN)]
    newest = select(*columns).where(Job.error.is_not(None), *within(found))
    newest = newest.order_by(Job.id.desc()).limit(NEWEST_ERRORS)
    seen = newest.cte("newest").prefix_with("MATERIALIZED", dialect="postgresql").c
    statement = select(seen.id, seen.state, seen.error)
    conditions = [*conditions_of(wanted, seen), contains(seen.error, wanted.error)]
    return statement.where(*conditions).order_by(seen.id.desc())


def within(found: Range, key: Any = Job.id) -> list[ColumnElement[bool]]:
    """The conditions that a job is in the range. With an expression as `key` no index is used for them."""
    bounds = [key >= found.low] if found.low > 0 else []
    bounds += [key < found.high] if found.high < LARGEST_ID else []
    return [*bounds, *found.conditions]
