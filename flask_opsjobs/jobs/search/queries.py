"""Reads the page of a list of jobs, also of a search and in an order, and the numbers of its tabs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from operator import itemgetter
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, case, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from ...core.reading import KeptValue
from ...core.round_trips import StartedRead, start_reading
from .. import queries
from ..lifecycle import STATES
from ..models import Job
from ..rows import Count, JobPage
from . import hit_queries
from .conditions import Now, is_one_of, make_duration, make_wait, search_at
from .filter import JobFilter
from .further_queries import IsShown
from .hit_queries import Hits, Searched, find_hits, start_shared


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


def say_why_unordered() -> str:
    """Why the jobs of a search are not ordered."""
    return (
        f"More than {hit_queries.MOST_HITS:,} jobs match, or not all were searched, and no index has them in "
        "this order. Narrow the search, for example by a state, a task or a time."
    )


def _list_jobs(
    session: Session,
    before: int | None,
    after: int | None,
    is_shown: IsShown,
    wanted: JobFilter,
    now: Now,
) -> JobList:
    if wanted.sort is not None:
        return _list_in_order(session, before, after, is_shown, wanted, now)
    if not wanted.is_search:
        paging = start_reading(
            session, queries.page_of_jobs, wanted, now, before=before, after=after
        )
        counts = queries.count_jobs_by_state(session, wanted, now)
        return JobList(paging, None, counts, Searched())
    found, counts = _find_and_count(session, wanted, now, is_shown)
    return _list_newest(session, before, after, wanted, found, counts)


def _list_newest(
    session: Session,
    before: int | None,
    after: int | None,
    wanted: JobFilter,
    found: Hits,
    counts: dict[str, Count],
) -> JobList:
    """The page of what a search found, the newest first."""
    ids, has_newer, has_older = _cut(found.ids, wanted.limit, before, after)
    paging = start_reading(session, _read_page, ids, has_newer, has_older)
    return JobList(paging, ids, counts, found.searched)


def _list_in_order(
    session: Session,
    before: int | None,
    after: int | None,
    is_shown: IsShown,
    wanted: JobFilter,
    now: Now,
) -> JobList:
    """The page of a filter in its order; the newest when more jobs match than can be read to order them."""
    if wanted.is_search:
        found, counts = _find_and_count(session, wanted, now, is_shown)
        if not found.searched.is_all:
            newest = _list_newest(session, before, after, wanted, found, counts)
            return replace(newest, is_in_order=False)
    else:
        in_newest_order = wanted.but(sort=None)
        newest = _list_jobs(session, before, after, is_shown, in_newest_order, now)
        if newest.count(wanted.state) > hit_queries.MOST_HITS:
            return replace(newest, is_in_order=False)
        # The tabs have counted them, so only jobs of the state are read.
        found, counts = find_hits(session, wanted, now, is_shown), newest.counts
        if not found.searched.is_all:
            return replace(newest, is_in_order=False)
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
    return JobList(paging, page.read(), counts, found.searched)


def _find_and_count(
    session: Session, wanted: JobFilter, now: Now, is_shown: IsShown
) -> tuple[Hits, dict[str, Count]]:
    """The hits in the state that is wanted, and the numbers of hits in each state, which the tabs show.

    Of more than can be found, so many as are enough for a list.
    """
    enough = hit_queries.MOST_LISTED
    found, everything = find_in_state(session, wanted, now, is_shown, enough)
    counts = _count(everything)
    if wanted.state is not None:
        counts[wanted.state] = Count(len(found.jobs), found.searched.kind)
    return found, counts


def find_in_state(
    session: Session, wanted: JobFilter, now: Now, is_shown: IsShown, enough: int | None = None
) -> tuple[Hits, Hits]:
    """The hits in the state that is wanted, and those in any state. `enough` is that of `find_hits`."""
    shared = start_shared(session, wanted)

    def find(some: JobFilter) -> StartedRead[Hits]:
        return start_reading(session, find_hits, some, now, is_shown, enough, shared)

    finding = find(wanted.but(state=None))
    if wanted.state is None:
        return finding.value, finding.value
    if hit_queries.is_by_errors(wanted) and not wanted.further:
        everything = finding.value  # of the same errors, whatever the state
        return everything.in_state(wanted.state), everything
    of_state = find(wanted)  # in the same round trip
    everything = finding.value
    found = everything.in_state(wanted.state)
    # When as many as are ever found are all in the state, a search in it would find no more.
    is_full = len(found.jobs) == len(everything.jobs) in (enough, hit_queries.MOST_HITS)
    if not is_full and found.searched.may_find_more_of_a_state:
        found = _join(found, of_state.value)
    return found, everything


def _join(found: Hits, of_state: Hits) -> Hits:
    """What a search found in a state, and what the same search in all states found there.

    Each may have looked where the other did not.
    """
    if of_state.searched.is_all or of_state.searched.stopped_at_newest_hits:
        return of_state
    return replace(of_state, jobs=sorted({*found.jobs, *of_state.jobs}, reverse=True))


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


def _count(found: Hits) -> dict[str, Count]:
    numbers = Counter(map(itemgetter(1), found.jobs))
    return {state: Count(numbers[state], found.searched_of(state).kind) for state in STATES}


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
