"""Shows the list of jobs, and redirects a pasted id or name to its page."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from itertools import islice
from typing import Any

from flask import Response, redirect, request, url_for
from markupsafe import Markup
from sqlalchemy.orm import Session
from werkzeug import Response as AnyResponse

from ...actions.registry import actions_of
from ...core.reading import Reading
from ...core.round_trips import start_reading
from ...forensics.names import find_subjects
from ...forensics.registry import KINDS
from ...jobs import queries
from ...jobs.lifecycle import DEATHS, MEANINGS, STATES
from ...jobs.rows import Count
from ...jobs.search import attempt_queries, further_queries, group_queries, hit_queries, terms
from ...jobs.search.filter import LIMITS, ORIGINS, QUALIFIERS, SORTS, JobFilter, write_condition
from ...jobs.search.hit_queries import is_by_errors
from ...jobs.search.queries import list_jobs, say_why_unordered
from ...jobs.search.waiting_queries import may_wait
from ...operations.targets import MOST_JOBS
from ...queues.queries import list_queue_names
from ...tasks.outlier_queries import find_limits, keep_long
from ..app import access, links, pages, problems
from ..app.host import heavy, host, reading
from ..app.problems import Problem
from ..app.saved_views import list_own_views
from . import list_request, suggestions
from .list_request import ListRequest
from .order import JobListOrder
from .selection import list_bulk_actions

# Of so many words alone in the search box it is looked up whether they are names.
_MOST_WORDS = 4
# Searches and what they find, for those who read no documentation; the first ones need `payload.view`. None
# depends on a time zone, since a link does not know which one the page shows.
_EXAMPLES = (
    ('timeout OR "timed out"', "errors with one of these words"),
    ("refused -queue:mail", "errors with this word, but not of that queue"),
)
_PLAIN_EXAMPLES = (
    ("state:failed created:<1d", "failed, and enqueued in the last day"),
    ("state:failed OR state:canceled ended:-2h..now", "ended so in the last two hours"),
    ("task:send_* attempts:>=3", "tasks whose name begins so, with three attempts or more"),
    ("state:started duration:>5m", "run for more than five minutes"),
    ("wait:>1m ended:<1d", "had to wait for more than a minute"),
    ("memory:>500MB", "used more memory at their peak"),
)
# The qualifiers that name a workflow or a batch, and the permission to see them.
_GROUPS = {"workflow": "workflows.view", "batch": "batches.view"}
# Those that ask for a value have a form on the page of one job, and a repair is offered where the fault is.
_JOB_ACTIONS = [
    action for action in actions_of("job") if not action.params and not action.is_repair
]


def page() -> AnyResponse:
    """The document: search box, tabs, table."""
    fault = None
    with reading() as read:
        naming = start_reading(read, _find_name)
        try:
            asked = list_request.read_list_request()
            # A search of nothing but errors takes longest: it is begun when no word is a name.
            if is_by_errors(asked.wanted) and (named := naming.value):
                return named
            with heavy(_is_heavy(asked)):
                surrounding = start_reading(read, _around, asked.wanted)
                listing = start_reading(read, _list, asked)
                if named := naming.value:
                    return named
                made, around = listing.value, surrounding.value
        except Problem as raised:
            if named := naming.value:
                return named
            if raised.status != HTTPStatus.UNPROCESSABLE_ENTITY:
                raise
            fault, around = raised, _around(read, list_request.readable_fields())
    if fault is not None:
        return _refuse(fault, read.now, around)
    return pages.page(
        "jobs/page.html",
        "jobs",
        "Jobs",
        read.now,
        live=made,
        query=asked.query,
        fault=None,
        is_whole=asked.is_whole,
        may_wait=may_wait(asked.wanted),
        **around,
    )


def _refuse(fault: Problem, now: datetime, around: Mapping[str, Any]) -> Response:
    """The document without a list: the box keeps the text, and the error is shown below it."""
    return pages.document(
        "jobs/page.html", "jobs", "Jobs", now, status=fault.status, fault=fault, **around
    )


def _around(read: Reading, wanted: JobFilter) -> dict[str, Any]:
    """The template variables around the list: the search box, its fields, and the actor's saved views."""
    queues = start_reading(read.session, list_queue_names)
    tasks = start_reading(read.session, queries.list_task_names)
    views = list_own_views(read, "jobs", wanted.to_query())
    return {
        "wanted": wanted,
        **views,
        "queues": queues.value,
        "tasks": tasks.value,
        "states": STATES,
        "origins": ORIGINS,
        "deaths": tuple(DEATHS),
        "examples": (
            (*_EXAMPLES, *_PLAIN_EXAMPLES) if access.may_see_payload() else _PLAIN_EXAMPLES
        ),
        "qualifiers": list(filter(suggestions.may_ask, (*QUALIFIERS, "args.NAME"))),
        "typed": request.args.get("q", ""),
    }


def live() -> Response:
    """The fragment that refreshes: tabs and table."""
    asked = list_request.read_list_request()
    with heavy(_is_heavy(asked)), reading() as read:
        made = _list(read, asked)
    return pages.fragment(made)


def _is_heavy(asked: ListRequest) -> bool:
    return asked.wanted.is_search or asked.wanted.sort is not None


def suggest() -> Response:
    """The suggestions for the search box."""
    with reading() as read:
        found = suggestions.suggest(read.session, request.args.get("q", ""))
    return pages.fragment(pages.part("jobs/_suggestions.html", read.now, suggestions=found))


def _list(read: Reading, asked: ListRequest) -> Markup:
    wanted = asked.wanted
    found = list_jobs(
        read.session,
        wanted,
        read.began,
        before=asked.before,
        after=asked.after,
        is_shown=list_request.is_shown(),
    )
    limits = find_limits(read.session, found.tasks, read.now)
    rows = found.page.rows
    everything = Count.sum(found.counts.values())
    total = found.counts[wanted.state] if wanted.state else everything
    # Above that, no index has the jobs of any filter in another order.
    may_sort = total.kind == "exact" and total.number <= hit_queries.MOST_HITS
    return pages.part(
        "jobs/_live.html",
        read.now,
        wanted=wanted,
        counts=found.counts,
        everything=everything,
        total=total,
        sorts=SORTS,
        is_in_order=found.is_in_order,
        order=JobListOrder(wanted, found.is_in_order, may_sort=may_sort),
        why_unordered=say_why_unordered(),
        rows=rows,
        job_urls=links.to_jobs(row.id for row in rows),
        task_urls={
            task: url_for("opsjobs.jobs", **wanted.but(task=task).to_query())  # type: ignore[arg-type]
            for task in {row.task for row in rows}
        },
        long=keep_long(rows, limits, read.now),
        searched=found.searched,
        most=hit_queries,
        group_queries=group_queries,
        attempt_queries=attempt_queries,
        further_queries=further_queries,
        older=asked.cursor("before", found.page),
        newer=asked.cursor("after", found.page),
        limits=LIMITS,
        meanings=MEANINGS,
        actions=_JOB_ACTIONS,
        is_whole=asked.is_whole,
        bulk_actions=list(list_bulk_actions(wanted, found.counts)) if asked.is_whole else (),
        most_jobs=MOST_JOBS,
    )


def _find_name(read: Reading) -> AnyResponse | None:
    """Redirect from a word alone that is an id or a name to the job or the search that it means.

    None when no word is one: then words are searched in errors.
    """
    words = list(islice(list_request.list_words(), _MOST_WORDS))
    found = [start_reading(read.session, _find_term, word) for word, _ in words]
    for (word, rest), finding in zip(words, found, strict=True):
        term = finding.value
        if term is None:
            if not access.may_see_payload():
                raise problems.unknown_word(word)
            continue
        name, value = term
        if name == "id" and not rest:
            return redirect(url_for("opsjobs.job", job_id=value), 303)
        query: dict[str, Any] = dict(list_request.read_fields().to_query())
        query["q"] = f"{rest} {write_condition(name, value)}".strip()
        query |= {name: kept for name in ("zone", "selected") if (kept := request.args.get(name))}
        return redirect(url_for("opsjobs.jobs", **query), 303)
    return None


def jump() -> AnyResponse:
    """Redirect from a pasted word to its page.

    A job by its id or RQ id, a run by `workflow/7`, a batch by `batch/7`, or a task, queue, workflow or batch
    by its name. Of a task that is not declared here, only its jobs are known. Forensics know the rest: a
    worker, a cron entry, a limiter, `incident/7`. A search such as `tag:eu state:failed` leads to its jobs.
    """
    wanted = request.args.get("to", "").strip()
    for name in _GROUPS:
        number = terms.read_own(wanted.removeprefix(f"{name}/"))
        if wanted.startswith(f"{name}/") and number is not None:
            values: dict[str, Any] = {f"{name}_id": number}
            return redirect(url_for(f"opsjobs.{name}", **values), 303)
    with reading() as read:
        term = _find_term(read.session, wanted)
        if term is None and (subject := _find_subject(read.session, wanted)):
            return redirect(links.to_forensics(subject), 303)
        if term is None:
            return _jump_to_search(wanted)
        name, value = term
        newest = group_queries.find_newest_of(read.session, name, value) if name == "batch" else 0
    match name:
        case "id":
            url = url_for("opsjobs.job", job_id=value)
        case "workflow":
            url = url_for("opsjobs.workflows", name=value)
        case "batch":
            url = url_for("opsjobs.batch", batch_id=newest or 0)
        case "task" if value in host().tasks and access.may("tasks.view"):
            url = url_for("opsjobs.task", name=value)
        case _:
            url = url_for("opsjobs.jobs", q=write_condition(name, value))
    return redirect(url, 303)


def _jump_to_search(text: str) -> AnyResponse:
    """Redirect to the jobs of a search. Raises `Problem` for a text without a condition that it knows.

    A wrong value is left to the page of jobs, which marks its place.
    """
    try:
        names = {term.name for clause in terms.split_clauses(text) for term in clause} - {"zone"}
    except terms.BadFilter:
        names = set()
    if any(name in QUALIFIERS or terms.is_argument(name) for name in names):
        return redirect(url_for("opsjobs.jobs", q=text), 303)
    raise problems.unknown_place(text, may_see_payload=access.may_see_payload())


def _find_subject(session: Session, word: str) -> str | None:
    """What forensics know by this word, for who may see it; None when it is nothing."""
    found = find_subjects(host(), session, word) if access.may("forensics.view") else ()
    return next(
        (one for one in found if access.may(KINDS[one.partition("/")[0]].permission, one)), None
    )


def _find_term(session: Session, word: str) -> tuple[str, str] | None:
    """The qualifier and the value that a word means; None when nothing has that name."""
    number = terms.read_job_id(word)
    if number is not None:
        return "id", str(number)
    if not word or "\0" in word:
        return None
    if word in host().tasks:
        return "task", word
    groups = [group for group, permission in _GROUPS.items() if access.may(permission)]
    found = {
        each: start_reading(session, queries.find_qualifier, word, [each])
        for each in ("task", "queue")
    } | {
        each: start_reading(session, group_queries.find_newest_of, each, word)
        for each in (groups if len(word) <= terms.LONGEST else ())
    }
    name = next((each for each, one in found.items() if one.value is not None), None)
    return None if name is None else (name, word)
