"""Tells of a task: how its jobs ended in the last day, how attempts died, and which failures are open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from ...core.history import Event
from ...core.round_trips import start_reading
from ...core.words import agree, counted, moment
from ...failures.queries import (
    QUARTER,
    DeathRow,
    Ends,
    FailureRow,
    floor,
    list_deaths,
    list_ends,
    page_of_failures,
)
from ...jobs.history import say_end
from ...jobs.lifecycle import DEATHS, UNSUCCESSFUL
from ...jobs.queries import find_oldest_of_task, page_of_jobs
from ...jobs.rows import JobRow
from ...jobs.search.filter import JobFilter
from ...tasks.queries import find_pauses
from ..bundle import (
    Column,
    EvidenceTable,
    Inquiry,
    Kind,
    LeftOut,
    Related,
    TableRow,
    Told,
    WatchedSpan,
)

_LONGEST = 200
_KEPT = timedelta(days=30)
_MOST_FAILURES = 20
EndsByQuarter = Mapping[datetime, Ends]


def _read_key(key: str) -> str | None:
    return key if 0 < len(key) <= _LONGEST and key.isprintable() else None


def _tell(inquiry: Inquiry) -> Told | None:
    task, session = inquiry.key, inquiry.session
    finding_failures = start_reading(session, page_of_failures, "open", task=task)
    pausing = start_reading(inquiry, _say_pause)
    oldest = find_oldest_of_task(session, task)
    declared = inquiry.host.tasks.get(task)
    if oldest is None and declared is None:
        return None
    since = max(oldest or inquiry.now, inquiry.day_ago)
    ending = start_reading(session, list_ends, task, floor(since, QUARTER))
    dying = start_reading(session, list_deaths, task, inquiry.now - _KEPT)
    ended = _list_unsuccessful(inquiry, since)
    ends, failures = ending.value, finding_failures.value.rows
    return Told(
        title=f"Task {task}",
        state="declared" if declared else "not declared",
        diagnosis=pausing.value + _diagnose(ends, failures, is_declared=declared is not None),
        since=since,
        until=inquiry.now,
        events=list(_list_events(ended)),
        watches=[
            WatchedSpan("roll_up", "How many of its jobs ended is not counted.", since, inquiry.now)
        ],
        evidence=[_by_hour(ends), _make_deaths(dying.value)],
        related=list(
            _list_related(inquiry, failures, declared.declared.queue if declared else None)
        ),
        left_out=_list_left_out(ended, failures),
    )


def _list_unsuccessful(inquiry: Inquiry, since: datetime) -> Sequence[JobRow]:
    """Its newest jobs that failed or were canceled since then: of each as many as a page has."""
    wanted = [JobFilter().but(state=state, task=inquiry.key) for state in UNSUCCESSFUL]
    pages = [start_reading(inquiry.session, page_of_jobs, one, inquiry.now) for one in wanted]
    found = [job for page in pages for job in page.value.rows]
    return [job for job in found if job.ended_at is not None and job.ended_at >= since]


def _say_pause(inquiry: Inquiry) -> str:
    """Who paused it, when and why, as a first sentence; empty when it is open."""
    pause = find_pauses(inquiry.session, [inquiry.key]).get(inquiry.key)
    if pause is None:
        return ""
    return f"{pause.paused_by} paused it at {moment(pause.paused_at)}: “{pause.paused_reason}” "


def _diagnose(ends: EndsByQuarter, failures: Sequence[FailureRow], *, is_declared: bool) -> str:
    failed = sum(each.failed for each in ends.values())
    every = failed + sum(each.finished for each in ends.values())
    says = f"Of {counted(every, 'job')} that ended in the last day {failed:,} failed"
    if not every:
        says = "No job of it was counted in the last day"
    if failures:
        are = agree(len(failures), "is", "are")
        says += f", and {counted(len(failures), 'failure')} of it {are} open"
    return f"{says}." if is_declared else f"The code does not declare it. {says}."


def _list_events(jobs: Sequence[JobRow]) -> Iterator[Event]:
    for job in jobs:
        assert job.ended_at is not None
        text = f"Job {job.id}: {say_end(job.state, job.ended_by)}"
        yield Event(
            job.ended_at, job.state, text, "worker", payload=job.error, subject=f"job/{job.id}"
        )


def _by_hour(ends: EndsByQuarter) -> EvidenceTable:
    hours: dict[datetime, list[int]] = {}
    for quarter, each in ends.items():
        hour = hours.setdefault(quarter.replace(minute=0), [0, 0])
        hour[0] += each.finished
        hour[1] += each.failed
    columns = (Column("hour", "moment"), Column("finished", "number"), Column("failed", "number"))
    rows = [TableRow((hour, *hours[hour])) for hour in sorted(hours, reverse=True)]
    return EvidenceTable("Jobs that ended, by hour", columns, rows)


def _make_deaths(deaths: Sequence[DeathRow]) -> EvidenceTable:
    columns = (
        Column("cause of death"),
        Column("attempts", "number"),
        Column("most memory", "bytes"),
        Column("limit", "bytes"),
        Column("last day", "moment"),
    )
    rows = [
        TableRow(
            (
                DEATHS.get(row.death, row.death),
                row.number,
                None if row.peak_kb is None else row.peak_kb * 1024,
                None if row.limit_kb is None else row.limit_kb * 1024,
                row.last_day,
            )
        )
        for row in deaths
    ]
    return EvidenceTable("How attempts died in 30 days", columns, rows)


def _list_related(
    inquiry: Inquiry, failures: Sequence[FailureRow], queue: str | None
) -> Iterator[Related]:
    if queue is not None:
        yield Related("Queue", queue, f"queue/{queue}")
    if inquiry.may("lifeline.view"):
        for failure in failures[:_MOST_FAILURES]:
            says = f"{failure.title}: {counted(failure.number, 'attempt')}"
            yield Related("Failure", str(failure.id), f"failure/{failure.id}", says)


def _list_left_out(jobs: Sequence[JobRow], failures: Sequence[FailureRow]) -> Sequence[LeftOut]:
    found = []
    most = JobFilter().limit
    for state in UNSUCCESSFUL:
        times = [job.ended_at for job in jobs if job.state == state and job.ended_at is not None]
        if len(times) == most:
            found.append(LeftOut(f"{state} jobs", before=min(times)))
    if len(failures) > _MOST_FAILURES:
        found.append(LeftOut("failures"))
    return found


def _was_there(inquiry: Inquiry) -> bool:
    """Whether its jobs were counted, or it has a failure that is still stored."""
    states = ("open", "resolved", "ignored")
    pages = [
        start_reading(inquiry.session, page_of_failures, state, task=inquiry.key)
        for state in states
    ]
    is_counted = bool(list_ends(inquiry.session, inquiry.key, inquiry.now - _KEPT))
    return is_counted or any(page.value.rows for page in pages)


KIND = Kind("task", "jobs.view", _read_key, _tell, _was_there)
