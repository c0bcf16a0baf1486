"""Shows the page of one job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Response, request, url_for
from markupsafe import Markup

from ...actions.domain import Action, Request, name_in
from ...actions.planning import make_plan
from ...actions.registry import ACTIONS
from ...audit.history import tell_decision
from ...audit.queries import list_events_of
from ...audit.verify import find_chain_fault
from ...core.display import NO_PAYLOAD
from ...core.history import newest_first
from ...core.reading import Reading
from ...cron.lifecycle import RESULTS
from ...cron.queries import find_slot_of
from ...engine.adopted.places import name_place
from ...engine.explain_with_redis import explain
from ...engine.redis.broker import rq_id as make_rq_id
from ...explain.reason_kinds import Explanation, Reason
from ...jobs import queries
from ...jobs.actions import actions_of_job
from ...jobs.adopted.chain_queries import find_dependents, find_parents
from ...jobs.adopted.queries import AdoptedRow, find_adopted
from ...jobs.history import list_history, outcome_of, source_of
from ...jobs.lifecycle import DEATHS, ENDED_BY, FINAL, MEANINGS
from ...jobs.rows import AttemptRow, JobInFull
from ...jobs.search import terms
from ...lifeline.queries import list_incidents_about
from ...limits.actions import make_target, split_target
from ...operations.queries import list_receipts_of_job
from ...tasks.outlier_queries import find_long
from ...workers.queries import WorkerRow, find_worker
from ...workflows.queries import find_run_of_callback, find_step_of
from ..app import access, links, pages, problems
from ..app.deaths import say_death, say_facts
from ..app.host import host, reading
from ..cron.slots import shape_of
from ..notes.view import look_at_notes
from ..workflows.run import STEP_ACTIONS
from .attempts_svg import draw_timeline
from .traceback import condense

_RESCHEDULE = ACTIONS["job.reschedule"]


def page(job_id: str) -> Response:
    """The document of one job."""
    with reading() as read:
        job = find(read, job_id)
        made = _full(read, job)
        notes = look_at_notes(read, f"job/{job.id}")
        step = find_step_of(read.session, job.id) if job.workflow_id else None
    attempt = request.args.get("attempt")
    return pages.page(
        "job/page.html",
        "jobs",
        f"{job.task} {job.id}",
        read.now,
        live=made,
        query={"attempt": attempt} if attempt else {},
        job=job,
        step=step,
        step_actions=STEP_ACTIONS,
        **notes,
    )


def live(job_id: str) -> Response:
    """The fragment that refreshes."""
    with reading() as read:
        made = _full(read, find(read, job_id))
    return pages.fragment(made)


def raw(job_id: str) -> Response:
    """The document with the job's rows as they are stored."""
    number = terms.read_own(job_id)
    with reading() as read:
        job = None if number is None else queries.find_stored(read.session, number)
        if job is None:
            raise problems.no_such_row("job", job_id)
        attempts = queries.list_stored_attempts(read.session, job["id"])
    declared = host().tasks.get(job["task"])
    redacted = declared.redact if declared else ()
    if not access.may_see_partition(job["limiter"], job["partition"]):
        job = {**job, **dict.fromkeys(("lane", "partition"), NO_PAYLOAD)}
    title = f"Raw row of {job['task']} {job['id']}"
    rows: dict[str, Any] = {"job": job, "attempts": attempts, "redacted": redacted}
    return pages.document("job/raw.html", "jobs", title, read.now, **rows)


def find(read: Reading, job_id: str) -> JobInFull:
    """The job with this id. Raises the 404 `Problem` when there is none."""
    number = terms.read_own(job_id)
    job = None if number is None else queries.find_job(read.session, number)
    if job is None:
        raise problems.no_such_row("job", job_id)
    return job


def _full(read: Reading, job: JobInFull) -> Markup:
    attempts = queries.list_attempts(read.session, job.id)
    events = list_events_of(read.session, f"job/{job.id}") if _may_audit() else ()
    enqueued_by = next((one.actor for one in events if one.action == "task.enqueue"), None)
    shown = _chosen(attempts)
    broken = next((attempt for attempt in attempts if attempt.error), None)
    declared = host().tasks.get(job.task)
    names_partition = access.may_see_partition(job.limiter, job.partition)
    rq = find_adopted(read.session, job.id) if job.origin == "rq" else None
    why = explain(host(), read.session, job.id, read.now, names_partition=names_partition)
    return pages.part(
        "job/_live.html",
        read.now,
        job=job,
        rq=rq,
        rq_url=_find_rq_url(job, rq),
        attempts=attempts,
        outcome=outcome_of,
        meanings_of_deaths=DEATHS,
        say_death=say_death,
        say_facts=say_facts,
        source=source_of,
        line=draw_timeline(attempts, job, read.now),
        shown=shown,
        log=shown and queries.find_log(read.session, job.id, shown.dispatch_no),
        broken=broken,
        trace=broken and queries.find_traceback(read.session, job.id, broken.dispatch_no),
        condense=condense,
        output=queries.find_output(read.session, job.id),
        worker=_worker(read, job),
        is_long=bool(find_long(read.session, [job], read.now)),
        history=newest_first(
            [*list_history(job, attempts, rq, enqueued_by), *map(tell_decision, events)]
        ),
        relations=queries.find_relations(read.session, job),
        parents=find_parents(read.session, job.id) if job.origin == "rq" else (),
        dependents=find_dependents(read.session, job.id) if job.origin == "rq" else (),
        slot=find_slot_of(read.session, job.id),
        step=find_step_of(read.session, job.id) if job.workflow_id else None,
        step_actions=STEP_ACTIONS,
        reported=find_run_of_callback(read.session, job.id),
        incidents=list_incidents_about(read.session, f"job/{job.id}")
        if access.may("lifeline.view")
        else (),
        receipts=list_receipts_of_job(read.session, job.id)
        if access.may(access.OPERATIONS)
        else (),
        results=RESULTS,
        shape_of=shape_of,
        events=events,
        chain_fault=find_chain_fault(read.session) if _may_audit() else None,
        actions=_actions(read, job),
        reschedule=_RESCHEDULE,
        edit=ACTIONS["job.edit"],
        can_be_made_due=(
            job.state in _RESCHEDULE.sources
            and _find_refusal(read, job, _RESCHEDULE, {"due_at": "now"}) is None
        ),
        why=why,
        reasons=_show_reasons(why, job, names_partition=names_partition),
        names_partition=names_partition,
        held_by=[_PAUSES[each.code] for each in why.reasons if each.code in _PAUSES] if why else (),
        is_final=job.state in FINAL,
        meaning=MEANINGS[job.state],
        ended_by=ENDED_BY.get(job.ended_by or ""),
        is_declared=declared is not None,
        redacted=declared.redact if declared else (),
    )


# How the page's first sentence says that somebody holds its job back.
_PAUSES = {
    "queue_paused": "queue is paused",
    "queue_draining": "queue is draining",
    "task_paused": "task is paused",
}


def _find_rq_url(job: JobInFull, rq: AdoptedRow | None) -> str | None:
    """The address of what RQ has of the job now; None when it has nothing, or for who may not see it."""
    is_there = job.state == "queued" if rq is None else rq.structure is not None
    if not is_there or not access.may("bridge.view"):
        return None
    if rq is not None:
        return links.to_rq(rq.rq_place, rq.rq_id)
    return links.to_rq(name_place(host(), job.queue), make_rq_id(job.id, job.dispatch_no))


def _actions(read: Reading, job: JobInFull) -> dict[Action[Any], str | None]:
    """The actions of the job's state, each with the sentence that would refuse it now, or None.

    Those that ask for a value have forms of their own.
    """
    is_step = job.workflow_id is not None
    legal = actions_of_job(job.origin, job.state, is_step=is_step)
    actions = [action for action in legal if not action.params]
    found = {action: _find_refusal(read, job, action) for action in actions}
    return {action: why for action, why in found.items() if not (action.is_repair and why)}


def _find_refusal(
    read: Reading, job: JobInFull, action: Action[Any], params: Mapping[str, Any] = {}
) -> str | None:
    """The sentence that would refuse the action now, whoever asks; None when it could be done.

    The function that plans actions decides, without a lock.
    """
    connection: Any = read.session.connection().connection.driver_connection
    target, actor = (f"job/{job.id}",), access.actor() or ""
    request = Request(host(), action, target, params, actor, "page", is_trusted=True, now=read.now)
    skipped = make_plan(connection, request).skipped
    return f"{skipped[0].says[0].upper()}{skipped[0].says[1:]}." if skipped else None


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
    """The worker that runs the job or has taken it; None when none has."""
    holder = job.worker_id if job.state == "started" else job.reserved_by
    return None if holder is None else find_worker(read.session, holder)


# The page that shows more about a reason: its endpoint, the link's text, the permission of the page.
_PLACES: Mapping[str, tuple[str, str, str]] = {
    "queue_paused": ("queue", "Its queue", "queues.view"),
    "queue_draining": ("queue", "Its queue", "queues.view"),
    "task_paused": ("task", "Its task", "tasks.view"),
    "no_live_worker": ("queue", "Its queue", "queues.view"),
    "prefetch_full": ("queue", "Its prefetch", "queues.view"),
    **dict.fromkeys(
        ("limit_cooldown", "limit_tokens", "limit_concurrency", "limit_weight", "limit_behind"),
        ("limiter", "Its limiter", "limiters.view"),
    ),
    "no_child": ("workers", "Workers", "workers.view"),
    "handed_back": ("workers", "Workers", "workers.view"),
    "worker_silent": ("workers", "Workers", "workers.view"),
    "reserved": ("workers", "Workers", "workers.view"),
    "workers_busy": ("workers", "Workers", "workers.view"),
    **dict.fromkeys(
        (
            "run_canceling",
            "step_removed",
            "step_behind",
            "step_not_advanced",
            "wait_open",
            "map_expanding",
        ),
        ("workflow", "Its workflow", "workflows.view"),
    ),
    "loop_silent": ("overview", "Loops", "overview.view"),
    "loop_failing": ("overview", "Loops", "overview.view"),
}


@dataclass(frozen=True)
class ReasonView:
    """A reason with its button (an action and its URL) and its link (text and URL), if it has them."""

    reason: Reason
    action: Action[Any] | None
    action_url: str | None
    link: tuple[str, str] | None


def _show_reasons(
    why: Explanation | None, job: JobInFull, *, names_partition: bool
) -> list[ReasonView]:
    """The reasons as the page shows them.

    `queue.set_prefetch` gets no button, because it needs a number: the queue's page has its form. Without
    `names_partition` no button names a partition.
    """
    shown = []
    for reason in why.reasons if why else ():
        action = None if reason.action in (None, "queue.set_prefetch") else ACTIONS[reason.action]
        if action is not None and action.domain == "limiter" and not names_partition:
            action = None if split_target(reason.target or "")[1] else action
        url = None if action is None else _action_url(action, reason, job)
        shown.append(ReasonView(reason, action, url, _more_about(reason, job)))
    return shown


def _action_url(action: Action[Any], reason: Reason, job: JobInFull) -> str:
    if action.domain == "limiter":
        limiter, partition = split_target(reason.target or "")
        return url_for(f"opsjobs.limiter_{action.short_name}", limiter=limiter, partition=partition)
    if action.domain in ("queue", "task"):
        name = job.queue if action.domain == "queue" else job.task
        return url_for(f"opsjobs.{action.domain}_{action.short_name}", name=name)
    if action.domain == "workflow":
        return url_for(f"opsjobs.workflow_{action.short_name}", workflow_id=job.workflow_id)
    job_id = int(name_in(reason.target or f"job/{job.id}"))
    return url_for(f"opsjobs.job_{action.short_name}", job_id=job_id)


def _more_about(reason: Reason, job: JobInFull) -> tuple[str, str] | None:
    if reason.code not in _PLACES:
        return None
    endpoint, words, permission = _PLACES[reason.code]
    if endpoint == "limiter":
        return _limiter_page(words, permission, job)
    subjects = {
        "queue": f"queue/{job.queue}",
        "task": f"task/{job.task}",
        "workflow": f"workflow/{job.workflow_id}",
    }
    subject = subjects.get(endpoint)
    if not access.may(permission, subject):
        return None
    if endpoint == "queue":
        return words, url_for("opsjobs.queue", name=job.queue)
    if endpoint == "task":
        return words, url_for("opsjobs.task", name=job.task)
    if endpoint == "workflow":
        return words, url_for("opsjobs.workflow", workflow_id=job.workflow_id)
    return words, url_for(f"opsjobs.{endpoint}", _anchor="loops" if words == "Loops" else None)


def _limiter_page(words: str, permission: str, job: JobInFull) -> tuple[str, str] | None:
    limiter, partition = job.limiter, job.partition or None
    if limiter is None or not access.may(permission, make_target(limiter, partition)):
        return None
    return words, url_for("opsjobs.limiter", limiter=limiter, partition=partition)
