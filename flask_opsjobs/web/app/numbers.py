"""Links the charts of a page to jobs, marks what happened in them, and makes their table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import url_for
from markupsafe import Markup
from sqlalchemy.orm import Session

from ...actions.registry import ACTIONS
from ...audit.queries import EventRow
from ...core.display import Display
from ...core.round_trips import start_reading
from ...core.words import counted
from ...failures.queries import DeployMark, list_marks
from ...jobs.search.filter import Condition, JobFilter
from ...jobs.search.ranges import read_moments
from ...operations.queries import page_of_operations
from ...overview.pace_queries import Pace
from . import access
from .chart import Chart
from .charts import ChartMark, FindJobs, find_stops, make_flags, make_lines
from .host import host

_MINUTE = timedelta(minutes=1)
_SOME = datetime(2000, 1, 1, tzinfo=UTC)
# What lasts until its target is resumed.
_LASTING = ("queue.pause", "queue.drain", "task.pause", "cron.pause")


def find_jobs(wanted: JobFilter, qualifier: str) -> FindJobs | None:
    """Makes the address of a search of these jobs from one full minute until before another.

    `qualifier` is the time that is searched, `created` or `ended`. None for an actor who may not see jobs.
    """
    if not access.may("jobs.view"):
        return None

    query: dict[str, Any] = search_between(wanted, qualifier, _SOME, _SOME + _MINUTE).to_query()
    begin, _, rest = url_for("opsjobs.jobs", **query).rpartition(_write(_SOME))
    return _SearchAddress(begin, rest)


@dataclass(frozen=True)
class _SearchAddress:
    """The address of a search around its time: to make one takes much longer than to write another time."""

    begin: str
    rest: str

    def __call__(self, start: datetime, end: datetime) -> str:
        return f"{self.begin}{_write_span(start, end)}{self.rest}"


def without_plain(wanted: JobFilter) -> JobFilter:
    """These jobs without those that RQ enqueued itself, which some numbers leave out."""
    return wanted.but(origin="opsjobs") if host().settings.adopt else wanted


def search_between(wanted: JobFilter, qualifier: str, start: datetime, end: datetime) -> JobFilter:
    """These jobs from one full minute until before another. In UTC, so that no clock that changes matters."""
    moments = read_moments(qualifier, _write_span(start, end))
    if qualifier == "created":
        return wanted.but(created=moments)
    return wanted.but(further=(*wanted.further, (Condition(qualifier, moments),)))


def _write_span(start: datetime, end: datetime) -> str:
    first, last = _write(start), _write(end - _MINUTE)  # the range includes its last minute
    return first if first == last else f"{first}..{last}"


def _write(moment: datetime) -> str:
    # Several times as fast as a format: a page writes hundreds.
    return f"{moment.astimezone(UTC).isoformat()[:16]}Z"


def list_shown_deploys(session: Session, since: datetime) -> Sequence[DeployMark]:
    """The deploys since then, the newest first, as the display policy lets them be seen."""
    display = Display(host().display, may_see=True)
    return [
        replace(mark, version=display.clean(mark.version)) for mark in list_marks(session, since)
    ]


def make_numbers(
    session: Session,
    pace: Pace,
    charts: Sequence[Chart],
    wanted: JobFilter,
    events: Sequence[EventRow] | None = None,
    *,
    is_short: bool = False,
) -> Mapping[str, Any]:
    """What `_numbers.html` shows: the charts with their marks, a list of these, and the rows of the table.

    `wanted` are the jobs that the charts count, `events` the newest decisions about their queue or task, or
    about all. Of these, a pause from before the window until now is no mark: nothing changes with it. When
    `is_short`, only the highest step of each twelfth has a row, else each step that has jobs.
    """
    about = next((f"{kind}/{name}" for kind, name in wanted.to_query().items()), None)
    start, window = pace.steps[0].start, pace.step * len(pace.steps)
    end = start + window
    deploying = start_reading(session, list_shown_deploys, start)
    operations = _list_operations(session, wanted) if access.may(access.OPERATIONS) else []
    deploys = deploying.value
    marks = [
        mark
        for mark in (*operations, *_list_decisions(events or (), about, end))
        if mark.at < end
        and (mark.until or mark.at) >= start
        and not (about is None and mark.at < start and mark.until == end)
    ]
    of_deploys = [
        ChartMark(mark.at, f"deploy {mark.version}", _find_deploy(mark.version)) for mark in deploys
    ]
    columns = [series for chart in charts for series in chart.series]
    if is_short:
        rows = {*find_stops(columns[0].values), *(at for each in columns for at in each.links)}
    else:
        rows = {at for each in columns for at, value in enumerate(each.values) if value}
    return {
        "pace": pace,
        "columns": columns,
        "rows": [
            (pace.steps[at].start, Markup("".join(series.cells[at] for series in columns)))
            for at in sorted(rows, reverse=True)
        ],
        "charts": charts,
        "flags": make_flags(deploys, start, window, _find_deploy),
        "lines": make_lines(marks, start, window),
        "marks": sorted((*of_deploys, *marks), key=lambda mark: mark.at, reverse=True),
    }


def _find_deploy(version: str) -> str | None:
    return url_for("opsjobs.jobs", deploy=version) if access.may("jobs.view") else None


def _list_operations(session: Session, wanted: JobFilter) -> list[ChartMark]:
    """The newest operations that were started, but for those that are about another queue or task."""
    own = wanted.to_query()
    return [
        ChartMark(
            one.started_at,
            f"operation {one.id}: {ACTIONS[one.action].title} {counted(one.targets, 'job')}, by {one.actor}",
            url_for("opsjobs.operation", operation_id=one.id),
            one.ended_at or one.handled_at,
        )
        for one in page_of_operations(session)
        if one.started_at is not None
        and all((one.query or {}).get(name, value) == value for name, value in own.items())
    ]


def _list_decisions(
    events: Sequence[EventRow], about: str | None, end: datetime
) -> list[ChartMark]:
    """The decisions that were done, `about` one queue or task or about all.

    A pause or a drain lasts until its targets are resumed, or `end`.
    """
    marks: list[ChartMark] = []
    resumed_at: dict[str, datetime] = {}
    for event in events:  # the newest first
        if event.outcome != "done":
            continue
        targets = [about] if about else event.targets
        is_lasting = event.action in _LASTING
        until = max(resumed_at.get(target, end) for target in targets) if is_lasting else None
        what = event.action if about else f"{event.action} {event.subject}"
        says = f"{what} by {event.actor}" + (f": {event.reason}" if event.reason else "")
        url = url_for("opsjobs.audit_event", sequence=event.sequence)
        marks.append(ChartMark(event.at, says, url, until))
        if is_lasting or event.action.endswith(".resume"):
            resumed_at |= dict.fromkeys(targets, event.at)
    return marks
