"""The list of jobs, and one job in full."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flask import Response, redirect, request, url_for
from markupsafe import Markup
from werkzeug import Response as AnyResponse

from ...jobs import queries
from ...jobs.filter import LIMITS, BadFilter, JobFilter
from ...jobs.lifecycle import ENDED_BY, FINAL, MEANINGS, STATES
from ...jobs.rows import AttemptRow, Count, JobInFull, JobPage
from ...lifeline.queries import ExecutorRow, find_executor
from ...queues.queries import list_paused_queues, list_queue_names
from .. import _cursor, _pages, _problems, _timeline, _traceback, _words
from .._host import host
from .._reads import Reading, reading

_ID = re.compile(r"[0-9]{1,19}")
_RQ_ID = re.compile(r"opsjobs-([0-9]{1,19})-[0-9]{1,19}")


@dataclass(frozen=True)
class _Asked:
    """What the query string of a list asks for."""

    wanted: JobFilter
    before: int | None
    after: int | None

    @classmethod
    def read(cls) -> _Asked:
        try:
            wanted = JobFilter.from_query(request.args.items(multi=True))
        except BadFilter as error:
            raise _problems.unreadable(f"{error}.") from error
        before, after = (_position(side, wanted) for side in ("before", "after"))
        if before is not None and after is not None:
            raise _problems.unreadable("before and after: a page begins at one of them.")
        return cls(wanted, before, after)

    @property
    def query(self) -> Mapping[str, str]:
        cursors = {side: word for side in ("before", "after") if (word := request.args.get(side))}
        return {**self.wanted.to_query(), **cursors}


def _position(side: str, wanted: JobFilter) -> int | None:
    word = request.args.get(side)
    if not word:
        return None
    try:
        return _cursor.read(host().secrets, f"jobs {side} {wanted.conditions}", word)
    except _cursor.BadCursor as error:
        what = (
            f"{side}: this mark of a page was not made for this filter. Start from its first page."
        )
        raise _problems.unreadable(what) from error


def page() -> Response:
    """The document: search box, tabs, table."""
    asked = _Asked.read()
    with reading() as read:
        made = _list(read, asked)
        names = {
            "queues": list_queue_names(read.session),
            "workers": queries.list_worker_names(read.session),
            "states": STATES,
        }
    return _pages.page(
        "jobs.html",
        "jobs",
        "Jobs",
        read.now,
        live=made,
        query=asked.query,
        wanted=asked.wanted,
        **names,
    )


def live() -> Response:
    """Tabs and table."""
    with reading() as read:
        made = _list(read, _Asked.read())
    return _pages.fragment(made)


def _list(read: Reading, asked: _Asked) -> Markup:
    wanted = asked.wanted
    counts = queries.count_jobs_by_state(read.session, wanted, read.now)
    everything = Count.sum(counts.values())
    found = queries.page_of_jobs(
        read.session, wanted, read.now, before=asked.before, after=asked.after
    )
    return _pages.part(
        "jobs/_live.html",
        read.now,
        wanted=wanted,
        counts=counts,
        everything=everything,
        total=counts[wanted.state] if wanted.state else everything,
        rows=found.rows,
        older=_cursor_of("before", wanted, found),
        newer=_cursor_of("after", wanted, found),
        limits=LIMITS,
        meanings=MEANINGS,
    )


def _cursor_of(side: str, wanted: JobFilter, found: JobPage) -> str | None:
    """The word for the page beyond this one on that side, or None when there is none."""
    if not found.rows or not (found.has_older if side == "before" else found.has_newer):
        return None
    last = found.rows[-1 if side == "before" else 0]
    return _cursor.make(host().secrets, f"jobs {side} {wanted.conditions}", last.id)


def job_page(job_id: str) -> Response:
    """The document of one job."""
    with reading() as read:
        job = _find(read, job_id)
        made = _full(read, job)
    attempt = request.args.get("attempt")
    return _pages.page(
        "job.html",
        "jobs",
        f"{job.worker} {job.id}",
        read.now,
        live=made,
        query={"attempt": attempt} if attempt else {},
        job=job,
    )


def job_live(job_id: str) -> Response:
    """What of it refreshes."""
    with reading() as read:
        made = _full(read, _find(read, job_id))
    return _pages.fragment(made)


def _find(read: Reading, job_id: str) -> JobInFull:
    number = _id(job_id)
    job = None if number is None else queries.find_job(read.session, number)
    if job is None:
        raise _problems.no_such_job(job_id)
    return job


def _full(read: Reading, job: JobInFull) -> Markup:
    attempts = queries.list_attempts(read.session, job.id)
    shown = _chosen(attempts)
    broken = next((attempt for attempt in attempts if attempt.error), None)
    declared = host().workers.get(job.worker)
    return _pages.part(
        "job/_live.html",
        read.now,
        job=job,
        attempts=attempts,
        outcome=_words.outcome,
        line=_timeline.timeline(attempts, job, read.now),
        shown=shown,
        log=shown and queries.find_log(read.session, job.id, shown.dispatch_no),
        broken=broken,
        trace=broken and queries.find_traceback(read.session, job.id, broken.dispatch_no),
        condense=_traceback.condense,
        output=queries.find_output(read.session, job.id),
        executor=_executor(read, job),
        is_paused=job.queue in list_paused_queues(read.session),
        is_final=job.state in FINAL,
        meaning=MEANINGS[job.state],
        ended_by=ENDED_BY.get(job.ended_by or ""),
        is_declared=declared is not None,
        redacted=declared.redact if declared else (),
    )


def _chosen(attempts: Sequence[AttemptRow]) -> AttemptRow | None:
    """The attempt whose log is shown: the one asked for, else the last that has one."""
    asked = request.args.get("attempt")
    if asked:
        found = next((attempt for attempt in attempts if str(attempt.dispatch_no) == asked), None)
        if found is None:
            raise _problems.unreadable(f"attempt: this job has no attempt {asked[:40]!r}.")
        return found
    with_log = (attempt for attempt in attempts if attempt.has_log)
    return next(with_log, attempts[0] if attempts else None)


def _executor(read: Reading, job: JobInFull) -> ExecutorRow | None:
    """Who has the job in hand; None when nobody has."""
    if job.state != "started" or job.executor_id is None:
        return None
    return find_executor(read.session, job.executor_id)


def _id(text: str) -> int | None:
    """The id in a URL; None for anything that no job can have."""
    return int(text) if _ID.fullmatch(text) and int(text) < 2**63 else None


def jump() -> AnyResponse:
    """To the job that a pasted id means: ours, or that of its delivery in RQ."""
    wanted = request.args.get("to", "").strip()
    ours = _RQ_ID.fullmatch(wanted)
    number = _id(ours[1] if ours else wanted)
    if number is None:
        raise _problems.unreadable(
            f"{wanted[:40]!r} is neither the id of a job nor an RQ id such as opsjobs-42-1."
        )
    return redirect(url_for("opsjobs.job", job_id=number), 303)
