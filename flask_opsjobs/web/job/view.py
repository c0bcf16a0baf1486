"""Shows the page of one job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flask import Response, request
from markupsafe import Markup

from ...actions.domain import Action, Request
from ...actions.planning import make_plan
from ...actions.registry import actions_of
from ...audit.queries import list_events_of
from ...audit.verify import find_chain_fault
from ...core.display import NO_PAYLOAD
from ...core.reading import Reading
from ...cron.lifecycle import RESULTS
from ...cron.queries import find_slot_of
from ...engine.explain_with_redis import explain
from ...jobs import queries
from ...jobs import queries as job_queries
from ...jobs.lifecycle import ENDED_BY, FINAL, MEANINGS
from ...jobs.rows import AttemptRow, JobInFull
from ...jobs.search import terms
from ...queues.queries import list_paused_queues
from ...workers.queries import WorkerRow, find_worker
from ..app import access, labels, pages, problems
from ..app.host import host
from ..app.reading import reading
from ..cron.slots import shape_of
from . import timeline, traceback
from . import why as _why
from .history import list_history


def page(job_id: str) -> Response:
    """The document of one job."""
    with reading() as read:
        job = _find(read, job_id)
        made = _full(read, job)
    attempt = request.args.get("attempt")
    return pages.page(
        "job/page.html",
        "jobs",
        f"{job.task} {job.id}",
        read.now,
        live=made,
        query={"attempt": attempt} if attempt else {},
        job=job,
    )


def live(job_id: str) -> Response:
    """The fragment that refreshes."""
    with reading() as read:
        made = _full(read, _find(read, job_id))
    return pages.fragment(made)


def raw(job_id: str) -> Response:
    """The document with the job's rows as they are stored."""
    number = terms.read_own(job_id)
    with reading() as read:
        job = None if number is None else job_queries.find_stored(read.session, number)
        if job is None:
            raise problems.no_such_job(job_id)
        attempts = job_queries.list_stored_attempts(read.session, job["id"])
    declared = host().tasks.get(job["task"])
    redacted = declared.redact if declared else ()
    if not access.may_see_partition(job["limiter"], job["partition"]):
        job = {**job, **dict.fromkeys(("lane", "partition"), NO_PAYLOAD)}
    title = f"Raw row of {job['task']} {job['id']}"
    rows: dict[str, Any] = {"job": job, "attempts": attempts, "redacted": redacted}
    return pages.document("job/raw.html", "jobs", title, read.now, **rows)


def _find(read: Reading, job_id: str) -> JobInFull:
    number = terms.read_own(job_id)
    job = None if number is None else queries.find_job(read.session, number)
    if job is None:
        raise problems.no_such_job(job_id)
    return job


def _full(read: Reading, job: JobInFull) -> Markup:
    attempts = queries.list_attempts(read.session, job.id)
    events = list_events_of(read.session, f"job/{job.id}") if _may_audit() else ()
    shown = _chosen(attempts)
    broken = next((attempt for attempt in attempts if attempt.error), None)
    declared = host().tasks.get(job.task)
    names_partition = access.may_see_partition(job.limiter, job.partition)
    why = explain(host(), read.session, job.id, read.now, names_partition=names_partition)
    return pages.part(
        "job/_live.html",
        read.now,
        job=job,
        attempts=attempts,
        outcome=labels.outcome,
        line=timeline.timeline(attempts, job, read.now),
        shown=shown,
        log=shown and queries.find_log(read.session, job.id, shown.dispatch_no),
        broken=broken,
        trace=broken and queries.find_traceback(read.session, job.id, broken.dispatch_no),
        condense=traceback.condense,
        output=queries.find_output(read.session, job.id),
        worker=_worker(read, job),
        history=list_history(job, attempts, events),
        relations=job_queries.find_relations(read.session, job),
        slot=find_slot_of(read.session, job.id),
        results=RESULTS,
        shape_of=shape_of,
        events=events,
        chain_fault=find_chain_fault(read.session) if _may_audit() else None,
        actions=_actions(read, job),
        why=why,
        reasons=_why.show(why, job, names_partition=names_partition),
        names_partition=names_partition,
        is_paused=job.queue in list_paused_queues(read.session),
        is_final=job.state in FINAL,
        meaning=MEANINGS[job.state],
        ended_by=ENDED_BY.get(job.ended_by or ""),
        is_declared=declared is not None,
        redacted=declared.redact if declared else (),
    )


def _actions(read: Reading, job: JobInFull) -> dict[Action[Any], str | None]:
    """The actions of the job's state, each with the sentence that would refuse it now, or None.

    The function that plans actions decides that, without a lock.
    """
    connection: Any = read.session.connection().connection.driver_connection
    target, actor = (f"job/{job.id}",), access.actor() or ""
    found: dict[Action[Any], str | None] = {}
    for action in actions_of("job", job.state):
        request = Request(host(), action, target, {}, actor, "page", is_trusted=True, now=read.now)
        skipped = make_plan(connection, request).skipped
        refusal = skipped[0].says if skipped else None
        found[action] = refusal and f"{refusal[0].upper()}{refusal[1:]}."
    return found


def _may_audit() -> bool:
    return access.may("audit.view", access.subject())


def _chosen(attempts: Sequence[AttemptRow]) -> AttemptRow | None:
    """The attempt whose log is shown: the requested one, else the last one with a log."""
    asked = request.args.get("attempt")
    if asked:
        found = next((attempt for attempt in attempts if str(attempt.dispatch_no) == asked), None)
        if found is None:
            raise problems.unreadable(f"attempt: this job has no attempt {asked[:40]!r}.")
        return found
    with_log = (attempt for attempt in attempts if attempt.has_log)
    return next(with_log, attempts[0] if attempts else None)


def _worker(read: Reading, job: JobInFull) -> WorkerRow | None:
    """The worker that runs the job; None when none does."""
    if job.state != "started" or job.worker_id is None:
        return None
    return find_worker(read.session, job.worker_id)
