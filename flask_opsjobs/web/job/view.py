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
from ...core.round_trips import StartedRead, start_reading
from ...cron.lifecycle import RESULTS
from ...cron.queries import find_slot_of
from ...engine.adopted.places import name_place
from ...engine.explain_with_redis import explain_job
from ...engine.redis.broker import rq_id as make_rq_id
from ...explain.evidence import JobEvidence
from ...explain.queries import find_job_evidence
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
from ...notes.queries import list_notes
from ...operations.queries import list_receipts_of_job
from ...tasks.outlier_queries import find_long
from ...workers.queries import WorkerRow, find_worker
from ...workflows.queries import find_run_of_callback, find_step_of
from ..app import access, links, pages, problems
from ..app.deaths import say_death, say_facts
from ..app.host import host, reading
from ..cron.slots import shape_of
from ..notes.view import form_of
from ..workflows.run import STEP_ACTIONS
from .attempts_svg import draw_timeline
from .traceback import condense

_RESCHEDULE = ACTIONS["job.reschedule"]


def page(job_id: str) -> Response:
    """The document of one job."""
    with reading() as read:
        job, evidence = _find_with_evidence(read, job_id)
        step = start_reading(read.session, find_step_of, job.id) if job.workflow_id else None
        made = _full(read, job, evidence)
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
        **form_of(f"job/{job.id}"),
    )


def live(job_id: str) -> Response:
    """The fragment that refreshes."""
    with reading() as read:
        made = _full(read, *_find_with_evidence(read, job_id))
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


def _find_with_evidence(
    read: Reading, job_id: str
) -> tuple[JobInFull, StartedRead[JobEvidence | None]]:
    evidence = start_reading(read.session, find_job_evidence, terms.read_own(job_id) or 0)
    return find(read, job_id), evidence


def _full(read: Reading, job: JobInFull, evidence: StartedRead[JobEvidence | None]) -> Markup:
    names_partition = access.may_see_partition(job.limiter, job.partition)
    explaining = start_reading(read, _explain, evidence.value, names_partition=names_partition)
    listed = start_reading(read.session, queries.list_attempts, job.id)
    may_audit, is_adopted = _may_audit(), job.origin == "rq"
    decisions = start_reading(read.session, list_events_of, f"job/{job.id}") if may_audit else None
    adopted = start_reading(read.session, find_adopted, job.id) if is_adopted else None
    refusals = start_reading(read, _actions, job)
    can_be_made_due = start_reading(read, _can_be_made_due, job)
    more: dict[str, Any] = {
        "notes": start_reading(read.session, list_notes, f"job/{job.id}"),
        "output": start_reading(read.session, queries.find_output, job.id),
        "worker": start_reading(read, _worker, job),
        "relations": start_reading(read.session, queries.find_relations, job),
        "slot": start_reading(read.session, find_slot_of, job.id),
        "reported": start_reading(read.session, find_run_of_callback, job.id),
        "parents": start_reading(read.session, find_parents, job.id) if is_adopted else (),
        "dependents": start_reading(read.session, find_dependents, job.id) if is_adopted else (),
        "step": start_reading(read.session, find_step_of, job.id) if job.workflow_id else None,
        "incidents": start_reading(read.session, list_incidents_about, f"job/{job.id}")
        if access.may("lifeline.view")
        else (),
        "receipts": start_reading(read.session, list_receipts_of_job, job.id)
        if access.may(access.OPERATIONS)
        else (),
        "chain_fault": start_reading(read.session, find_chain_fault) if may_audit else None,
    }
    long = start_reading(read.session, find_long, [job], read.now)
    attempts = listed.value
    shown = _chosen(attempts)
    broken = next((attempt for attempt in attempts if attempt.error), None)
    log = shown and start_reading(read.session, queries.find_log, job.id, shown.dispatch_no)
    trace = broken and start_reading(
        read.session, queries.find_traceback, job.id, broken.dispatch_no
    )
    events = decisions.value if decisions else ()
    enqueued_by = next((one.actor for one in events if one.action == "task.enqueue"), None)
    decided = [tell_decision(event, (f"job/{job.id}",)) for event in events]
    declared = host().tasks.get(job.task)
    rq, why = adopted.value if adopted else None, explaining.value
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
        log=log,
        broken=broken,
        trace=trace,
        condense=condense,
        is_long=bool(long.value),
        history=newest_first([*list_history(job, attempts, rq, enqueued_by), *decided]),
        step_actions=STEP_ACTIONS,
        results=RESULTS,
        shape_of=shape_of,
        events=events,
        actions=refusals,
        reschedule=_RESCHEDULE,
        edit=ACTIONS["job.edit"],
        can_be_made_due=can_be_made_due,
        why=why,
        reasons=_show_reasons(why, job, names_partition=names_partition),
        names_partition=names_partition,
        held_by=[_PAUSES[each.code] for each in why.reasons if each.code in _PAUSES] if why else (),
        is_final=job.state in FINAL,
        meaning=MEANINGS[job.state],
        ended_by=ENDED_BY.get(job.ended_by or ""),
        is_declared=declared is not None,
        redacted=declared.redact if declared else (),
        **more,
    )


def _explain(
    read: Reading, job: JobEvidence | None, *, names_partition: bool
) -> Explanation | None:
    if job is None:
        return None
    return explain_job(host(), read.session, job, read.now, names_partition=names_partition)


def _can_be_made_due(read: Reading, job: JobInFull) -> bool:
    is_legal = job.state in _RESCHEDULE.sources
    return is_legal and _find_refusal(read, job, _RESCHEDULE, {"due_at": "now"}) is None


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
    found = {action: start_reading(read, _find_refusal, job, action) for action in actions}
    return {
        action: why.value for action, why in found.items() if not (action.is_repair and why.value)
    }


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
