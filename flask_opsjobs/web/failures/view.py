"""Shows the list of failures, and the page of one: sample, trend, deploys, jobs, and what they share."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from flask import Response, request, url_for
from markupsafe import Markup

from ...actions.registry import ACTIONS
from ...audit.queries import list_events_of
from ...audit.verify import find_chain_fault
from ...core.display import Display
from ...core.reading import Reading
from ...core.round_trips import start_reading
from ...failures import actions as failure_actions
from ...failures import queries
from ...failures.count import HELD_FOR, find_package
from ...failures.frames import TracebackFrame, read_frames
from ...failures.lifecycle import MEANINGS, STATES
from ...failures.queries import FailedJob, FailureRow
from ...failures.sentences import say_failure
from ...jobs.lifecycle import DEATHS
from ...lifeline.loop_runs import find_loop
from ...lifeline.queries import list_incidents_about
from ...notes.queries import list_notes
from ...overview.pace_queries import find_counted_until
from ..app import access, links, pages, problems, references
from ..app.deaths import say_death, say_facts, say_memory
from ..app.display import PageDisplay
from ..app.host import host, reading
from ..notes.view import form_of
from .shared_arguments import ArgumentComparison, compare_arguments
from .trend import FlaggedChart, begin_of_days, begin_of_quarters, draw_day, draw_month

_MOST_FRAMES = 20
_MOST_SHOWN = 10
_LONGEST_TASK = 200
# The loop that counts failed attempts into failures.
_COUNTER = "roll_up"


def page() -> Response:
    """The document of all failures."""
    query = _read_query()
    with reading() as read:
        made = _list(read, query)
    return pages.page(
        "failures/page.html", "lifeline", "Failures", read.now, live=made, query=query
    )


def live() -> Response:
    """The fragment of it that refreshes."""
    query = _read_query()
    with reading() as read:
        made = _list(read, query)
    return pages.fragment(made)


def failure_page(failure_id: str) -> Response:
    """The document of one failure."""
    query = _read_sample_query()
    with reading() as read:
        failure = _find(read, failure_id)
        made = _one(read, failure, query)
    return pages.page(
        "failure/page.html",
        "lifeline",
        f"Failure {failure.id}",
        read.now,
        live=made,
        query=query,
        failure=failure,
        ignore=ACTIONS["failure.ignore"],
        **form_of(f"failure/{failure.id}"),
    )


def failure_live(failure_id: str) -> Response:
    """The fragment of it that refreshes."""
    query = _read_sample_query()
    with reading() as read:
        made = _one(read, _find(read, failure_id), query)
    return pages.fragment(made)


# --- the list


def _read_query() -> Mapping[str, str]:
    """The tab, the task and the place in the list, as the address has them."""
    query = references.read_list_query({"state": STATES}, "task", "after")
    if "task" in query and ("\0" in query["task"] or len(query["task"]) > _LONGEST_TASK):
        raise problems.unreadable(f"task: a name has at most {_LONGEST_TASK} characters.")
    references.require_place(query, references.read_place(query.get("after", "")))
    return query


def _list(read: Reading, query: Mapping[str, str]) -> Markup:
    state, task = query.get("state", "open"), query.get("task")
    counts = start_reading(read.session, queries.count_failures_by_state)
    counter = start_reading(read.session, find_loop, read.now, _COUNTER)
    found = queries.page_of_failures(
        read.session, state, task=task, older_than=references.read_place(query.get("after", ""))
    )
    older = None if found.older is None else references.write_place(*found.older)
    named = set().union(*(row.deploys for row in found.rows))
    return pages.part(
        "failures/_live.html",
        read.now,
        rows=found.rows,
        state=state,
        states=STATES,
        meanings=MEANINGS,
        task=task,
        counts=counts,
        versions=queries.find_versions(read.session, named),
        older=older,
        is_first="after" not in query,
        counter=counter,
    )


# --- one


# By the state of a failure: the colour and the shape of the sentence about it.
_LOOKS = {
    "open": ("failed", "failed"),
    "resolved": ("healthy", "finished"),
    "ignored": ("waiting", "paused"),
}


@dataclass(frozen=True)
class Say:
    """The sentence of the page: status and shape, what is so, and what follows from it."""

    status: str
    shape: str
    fact: str
    rest: str


def _read_sample_query() -> Mapping[str, str]:
    """Of which job the sample is, as the address has it."""
    sample = request.args.get("sample")
    if not sample:
        return {}
    if not (sample.isascii() and sample.isdigit() and len(sample) < 19):
        raise problems.unreadable(f"sample: {sample[:40]!r} is no id of a job.")
    return {"sample": sample}


def _find(read: Reading, failure_id: str) -> FailureRow:
    target = failure_actions.read_target(f"failure/{failure_id}")
    failure = None
    if target is not None:
        failure = queries.find_failure(read.session, int(target.removeprefix("failure/")))
    if failure is None:
        raise problems.no_such_row("failure", failure_id)
    return failure


def _one(read: Reading, failure: FailureRow, query: Mapping[str, str]) -> Markup:
    session, target = read.session, f"failure/{failure.id}"
    job = int(query["sample"]) if query else None
    sampling = start_reading(session, queries.find_sample, failure, job)
    deploying = start_reading(session, queries.list_deploys, failure, begin_of_days(read.now))
    naming = start_reading(session, queries.find_versions, failure.deploys)
    about = start_reading(session, list_incidents_about, target)
    charts = start_reading(read, _charts, failure)
    may_audit = access.may("audit.view")
    more: dict[str, Any] = {
        "notes": start_reading(session, list_notes, target),
        "counter": start_reading(session, find_loop, read.now, _COUNTER),
        "deaths": start_reading(
            session, queries.list_deaths, failure.task, begin_of_days(read.now)
        ),
        "others": start_reading(session, queries.list_other_failures, failure),
        "events": start_reading(session, list_events_of, target) if may_audit else None,
        "chain_fault": start_reading(session, find_chain_fault) if may_audit else None,
    }
    jobs = queries.list_failed_jobs(session, failure) if access.may("jobs.view") else ()
    compared = _compare(read, failure, jobs)
    sample, deploys, versions = sampling.value, deploying.value, naming.value
    incidents = about.value
    return pages.part(
        "failure/_live.html",
        read.now,
        failure=failure,
        say=_say(failure, versions),
        is_new=bool(deploys) and failure.first_deploy == deploys[0].id,
        newest=deploys[0] if deploys else None,
        versions=versions,
        sample=sample,
        sample_display=sample and _display_of(target, sample.job_id),
        frames_of=partial(_frames_of, failure.task),
        meanings_of_deaths=DEATHS,
        say_death=say_death,
        say_facts=say_facts,
        say_memory=say_memory,
        charts=charts,
        deploys=deploys,
        jobs=jobs[:_MOST_SHOWN],
        display_of=partial(_display_of, target),
        redacted=_redacted_of(failure.task),
        compared=compared,
        most_looked_at=queries.MOST_LOOKED_AT,
        incidents=incidents,
        runbook=links.runbook_of(target, [incident.class_ for incident in incidents]),
        search=_search(failure) if access.may("jobs.view") else None,
        resolve=ACTIONS["failure.resolve"],
        ignore=ACTIONS["failure.ignore"],
        retry=ACTIONS["job.retry"],
        to_action=links.to_action,
        target=target,
        held_days=HELD_FOR.days,
        **more,
    )


def _charts(read: Reading, failure: FailureRow) -> Sequence[FlaggedChart]:
    session, month, day = read.session, begin_of_days(read.now), begin_of_quarters(read.now)
    display = Display(host().display, may_see=True)
    quarters = start_reading(session, queries.count_quarters, failure, day)
    ends = start_reading(session, queries.list_ends, failure.task, day)
    counted_until = start_reading(session, find_counted_until)
    days = start_reading(session, queries.count_days, failure, month)
    marks = [
        replace(mark, version=display.clean(mark.version))
        for mark in queries.list_marks(session, month)
    ]
    return (
        draw_day(quarters.value, ends.value, marks, counted_until.value, read.now),
        draw_month(days.value, marks, read.now),
    )


def _compare(
    read: Reading, failure: FailureRow, jobs: Sequence[FailedJob]
) -> ArgumentComparison | None:
    """What the arguments of its jobs share.

    None for who may not see them, and when the arguments of no job are known as JSON.
    """
    managed = [job for job in jobs if job.origin == "opsjobs"]
    if not managed or not access.may_see_payload():
        return None
    finished = queries.list_finished_args(read.session, failure, managed[0].id)
    display = Display(host().display, may_see=True)
    failed = [job.args for job in managed]
    return compare_arguments(failed, finished, display, _redacted_of(failure.task))


def _display_of(target: str, job_id: int) -> PageDisplay:
    """The display policy for what a job of a failure holds: payload of both."""
    may_see = access.may_see_payload(target, f"job/{job_id}")
    return PageDisplay(host().display, may_see=may_see)


def _redacted_of(task: str) -> Collection[str]:
    """The parameters of the task whose values are never stored."""
    declared = host().tasks.get(task)
    return declared.redact if declared else ()


def _frames_of(task: str, traceback: str) -> Sequence[TracebackFrame]:
    return read_frames(traceback, find_package(host(), task))[-_MOST_FRAMES:]


def _search(failure: FailureRow) -> str:
    """The search for its jobs."""
    return url_for("opsjobs.jobs", q=f"failure:{failure.id}")


def _say(failure: FailureRow, versions: Mapping[int, str]) -> Say:
    return Say(*_LOOKS[failure.state], *say_failure(failure, versions))
