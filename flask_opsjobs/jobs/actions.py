"""Decides and applies the actions on jobs, with the writes of `jobs` and `endings`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from .. import endings
from ..actions.domain import (
    Action,
    ChangedMeanwhile,
    Request,
    cannot,
    exact,
    make_item,
    make_skip,
    moment_in_words,
    name_in,
    read_id_target,
    read_moment,
    say_target,
)
from ..actions.effects import Advance, AnnounceStop, Dispatch, Effect, Forget
from ..actions.shapes import Change, Item, Skip
from ..batches import lifecycle as batch_lifecycle
from ..core.db import Connection
from ..core.redis_facts import DeliveryPlace
from ..core.round_trips import start_reading
from ..core.words import show_value
from ..cron import transitions as cron_transitions
from ..engine.dispatch import dispatch
from ..host import Host
from ..settings import Settings
from ..workers.lost_worker import LostWorker
from ..workflows import actions as workflow_actions
from ..workflows import transitions as workflow_transitions
from ..workflows.lifecycle import OPEN
from . import transitions as job_transitions
from .adopted import actions as adopted_actions
from .edit import actions as edit_actions
from .lifecycle import ASKED_OF_RQ, ENDED_BY, sources_of
from .record import unique_locks
from .record.options import LAST_YEAR
from .transitions import JobForDecision

_Decide = Callable[[JobForDecision, Request], Item | Skip]
_Apply = Callable[[Connection, Request, Sequence[JobForDecision]], Sequence[Effect | Item]]
_STARTS_BEFORE = "it must start before its deadline, "
_T = TypeVar("_T")


# --- targets and rows


def read_target(text: str) -> str | None:
    """The target in its canonical form, `job/42`; None when the text names no job."""
    return read_id_target("job", text)


def lock_rows(connection: Connection, request: Request, targets: Collection[str]) -> None:
    """Lock these jobs until the commit; before them their runs, and for a retry their batches."""
    is_retry = request.action.short_name == "retry"
    job_transitions.lock(connection, _ids(targets), with_batches=is_retry)


def find_rows(
    connection: Connection, request: Request, targets: Collection[str]
) -> dict[str, JobForDecision]:
    """Those of these jobs that exist, in the order of the targets."""
    found = job_transitions.read(connection, _ids(targets), request.now)
    return {target: found[id] for target in targets if (id := int(name_in(target))) in found}


def say_unknown(target: str) -> str:
    """The sentence about a job that does not exist."""
    return f"there is no {say_target(target)}"


def forbid(job: JobForDecision, request: Request) -> Skip | None:
    """The reason to skip the job: its state, workflow or batch forbids the action, or RQ cannot do it.

    None when the action is allowed.
    """
    if job.origin == "rq":
        return adopted_actions.forbid(job, request)
    name, is_legal = request.action.short_name, job.state in request.action.sources
    why = _find_step_problem(job, name)
    if why is None and not is_legal:
        why = f"it is {job.state}"
        if job.step is not None:
            why += workflow_actions.say_legal_moves(job.step_kind or "", job.state, job.ended_by)
    if why is None and job.is_reserved and name not in ("cancel", "rescue"):
        why = f"worker {job.worker} has taken it and begins it at any moment"
    if why is None:
        why = _find_batch_problem(job, name)
    return None if why is None else cannot(job, request, why)


def _find_batch_problem(job: JobForDecision, action: str) -> str | None:
    """Why the batch of a member forbids the action; None when it allows it, or without a batch."""
    if job.batch_state not in batch_lifecycle.OPEN:
        return None
    if action == "delete":
        return f"it is a member of batch {job.batch_id}, which has not ended"
    if action == "retry" and job.is_batch_canceled:
        return f"its batch {job.batch_id} is being canceled; wait until it has ended"
    return None


def _find_step_problem(job: JobForDecision, action: str) -> str | None:
    """Why the workflow of a step, or that it is none, forbids the action; None when it is allowed."""
    if job.step is None:
        return "it is no step of a workflow" if action == "skip" else None
    state = job.workflow_state or ""
    of = f"it is step {job.step} of workflow {job.workflow_id}"
    if action in ("run_again", "edit"):
        is_call = job.step_kind in ("job", "member")
        if not is_call:
            return f"{of}, a {job.step_kind}, which calls no function of yours"
        if action == "run_again":
            return None
    if state == "canceling":
        return f"{of}, which is canceling{workflow_actions.say_legal_actions(state)}"
    if action == "delete" and state in OPEN:
        return f"{of}, which is {state}; cancel the workflow, or wait for its end"
    return None


def list_facts(job: JobForDecision, now: datetime) -> dict[str, Any]:
    """The values that must not have changed since the preview.

    `deadline_passed` is listed because it changes with time alone. Once it is true, a retry also removes the
    deadline.
    """
    return {
        "task": job.task,
        "queue": job.queue,
        "priority": job.priority,
        "state": job.state,
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
        "dispatch_no": job.dispatch_no,
        "due_at": exact(job.due_at),
        "deadline_at": exact(job.deadline_at),
        "deadline_passed": _has_passed(job, now),
        "ended_at": exact(job.ended_at),
        "ended_by": job.ended_by,
        "cancel_requested_at": exact(job.cancel_requested_at),
        **({"worker": job.worker} if job.is_with_worker else {}),
        **({} if job.edited is None else edit_actions.list_edit_facts(job)),
        **({} if job.step is None else {"workflow_state": job.workflow_state}),
        **({} if job.origin == "opsjobs" else adopted_actions.name_in_rq(job)),
    }


# --- retry


def _read_more_of_retry(
    connection: Connection, request: Request, jobs: dict[str, JobForDecision]
) -> dict[str, JobForDecision]:
    takers = unique_locks.Takers()
    jobs = _let_the_first_take_the_lock(jobs, lambda job: job.unique_until == "ended", takers)
    steps = _steps_among(jobs)
    canceled = {target: job for target, job in steps.items() if job.ended_by == "dependency"}
    others = {target: job for target, job in steps.items() if target not in canceled}
    blaming = start_reading(connection, _with_culprits, canceled)
    return {**jobs, **_with_doomed(connection, request, others, takers), **blaming.value}


def _steps_among(jobs: Mapping[str, JobForDecision]) -> dict[str, JobForDecision]:
    return {target: job for target, job in jobs.items() if job.workflow_id is not None}


def _with_culprits(
    connection: Connection, steps: Mapping[str, JobForDecision]
) -> dict[str, JobForDecision]:
    """These steps, which cannot be retried by themselves, with those that can."""
    ids = [job.id for job in steps.values()]
    culprits = workflow_transitions.find_culprits(connection, ids) if ids else {}
    return {
        target: replace(job, obstacle=("illegal", _say_culprits(culprits.get(job.id, []))))
        for target, job in steps.items()
    }


def _with_doomed(
    connection: Connection,
    request: Request,
    steps: Mapping[str, JobForDecision],
    takers: unique_locks.Takers,
) -> dict[str, JobForDecision]:
    """These steps with what each of them doomed, and why that cannot be reopened."""
    if not steps:
        return {}
    listing = {
        target: start_reading(connection, workflow_transitions.list_doomed, [job.id], request.now)
        for target, job in steps.items()
    }
    ids = {job.workflow_id or 0 for job in steps.values()}
    runs = {run.id: run for run in workflow_transitions.look(connection, ids)}
    found = {}
    for target, job in steps.items():
        doomed = listing[target].value
        why = workflow_actions.find_obstacle(runs[job.workflow_id or 0], doomed, takers)
        obstacle = ("duplicate", why) if why else None
        found[target] = replace(job, obstacle=obstacle, doomed=len(doomed))
    return found


def _say_culprits(culprits: Sequence[str]) -> str:
    """Why a step cannot be retried by itself, and what can be done."""
    if not culprits:
        return "a step before it did not finish; legal for this step: skip"
    steps = ", ".join(culprits)
    return f"it was canceled because step {steps} did not finish; retry or skip {steps}, or skip this step"


def _decide_retry(job: JobForDecision, request: Request) -> Item | Skip:
    if job.obstacle is not None:
        code, why = job.obstacle
        return cannot(job, request, why, code)
    if job.unique_until == "ended" and job.unique_lock_of not in (None, job.id):
        return _skip_duplicate(job, request)
    has_passed = _has_passed(job, request.now)
    is_bound = job.deadline_at is not None and not has_passed
    note = f"{_STARTS_BEFORE}{moment_in_words(job.deadline_at)}" if is_bound else None
    if _waits_again(job):
        changes = [Change("state", job.state, "deferred")]
    else:
        changes = [
            Change("state", job.state, "available"),
            Change("due", moment_in_words(job.due_at), "now"),
            *_change_of_attempts(job),
        ]
    return make_item(job, *changes, *_changes_of_end(job, has_passed=has_passed), note=note)


def _waits_again(job: JobForDecision) -> bool:
    """Whether a retry of this step lets it wait again: a wait, or a step that was never due."""
    return job.step is not None and not job.is_step_released and job.state != "retryable"


def _change_of_attempts(job: JobForDecision) -> list[Change]:
    most = max(job.max_attempts, job.attempt + 1)
    if most == job.max_attempts:
        return []
    return [Change("attempts allowed", str(job.max_attempts), str(most))]


def _changes_of_end(job: JobForDecision, *, has_passed: bool) -> list[Change]:
    """What a retry takes back: the deadline that has passed, the end, and what followed from the end."""
    changes = []
    if has_passed:
        changes.append(Change("deadline", f"{moment_in_words(job.deadline_at)}, passed", None))
    if job.ended_at:
        ended = f"{ENDED_BY[job.ended_by or '']}, {moment_in_words(job.ended_at)}"
        changes.append(Change("ended", ended, None))
    if job.unique_until == "ended" and job.unique_lock_of is None:
        changes.append(Change("unique lock", "released", "taken again"))
    if job.batch_state in batch_lifecycle.FINAL:
        changes.append(Change(f"batch {job.batch_id}", job.batch_state, "running"))
    return changes + _changes_of_run(job)


def _changes_of_run(job: JobForDecision) -> list[Change]:
    """What the retry or the skip of a step changes in its run: nothing for a job that is no step."""
    if job.step is None:
        return []
    changes = []
    if job.workflow_state != "running":
        changes.append(Change(f"workflow {job.workflow_id}", job.workflow_state, "running"))
    return changes + workflow_actions.change_of_doomed(job.doomed)


def _apply_retry(
    connection: Connection, request: Request, jobs: Sequence[JobForDecision]
) -> list[Effect | Item]:
    alone = [job for job in jobs if job.step is None]
    unique = {job.id: None for job in alone if job.unique_until == "ended"}
    if unique and unique_locks.take(connection, unique, request.now):
        raise ChangedMeanwhile
    job_transitions.retry(connection, [job.id for job in alone], request.now)
    if of_cron := [job.id for job in alone if job.cron_entry is not None]:
        cron_transitions.forget_job_ends(connection, of_cron)
    if steps := _by_run(jobs):
        workflow_actions.retry_steps(connection, request, steps)
    return [_dispatch(jobs), *_advance(jobs)]


def _by_run(jobs: Iterable[JobForDecision]) -> Mapping[int, list[int]]:
    """Those of these jobs that are steps, by their runs."""
    steps: dict[int, list[int]] = defaultdict(list)
    for job in jobs:
        if job.workflow_id is not None:
            steps[job.workflow_id].append(job.id)
    return steps


# --- skip


def _read_more_of_skip(
    connection: Connection, request: Request, jobs: dict[str, JobForDecision]
) -> dict[str, JobForDecision]:
    takers = unique_locks.Takers()
    return {**jobs, **_with_doomed(connection, request, _steps_among(jobs), takers)}


def _decide_skip(job: JobForDecision, request: Request) -> Item | Skip:
    if job.step_kind == "map":
        why = (
            f"it is a map, whose result is a list: skip step {job.step} of workflow {job.workflow_id} "
            "with a list"
        )
        return cannot(job, request, why)
    if job.obstacle is not None:
        code, why = job.obstacle
        return cannot(job, request, why, code)
    end = [Change("state", job.state, "finished"), Change("result", None, "null")]
    return make_item(job, *end, *_changes_of_run(job))


def _apply_skip(
    connection: Connection, request: Request, jobs: Sequence[JobForDecision]
) -> list[Effect | Item]:
    workflow_actions.skip_steps(connection, request, _by_run(jobs), "null")
    return [*_advance(jobs)]


# --- cancel and discard


def _decide_cancel(job: JobForDecision, request: Request) -> Item | Skip:
    if not job.is_with_worker:
        return make_item(job, Change("state", job.state, "canceled"))
    if _find_rescue_problem(job, request) is None:
        note = (
            f"{_say_lost(job)}, so it ends now; if its function should still run there, its result does not "
            "count"
        )
        return make_item(job, Change("state", job.state, "canceled"), note=note)
    if job.cancel_requested_at is not None:
        who = job.cancel_requested_by or "somebody"
        sentence = (
            f"{who} has already asked to stop job {job.id}; its worker has not stopped it yet"
        )
        return make_skip(job, "already", sentence)
    after = "started, as before" if job.worker_kind == "plain" else "canceled, once it is stopped"
    note = _when_stopped(job, request.host.settings)
    return make_item(job, Change("state", job.state, after), note=note)


def _when_stopped(job: JobForDecision, settings: Settings) -> str:
    """When and how a request to cancel takes effect, by the kind and the state of the worker."""
    if job.worker_state != "alive":
        rescue = "the watch loop rescues it" if settings.rescue == "automatic" else "it is rescued"
        return (
            f"its worker {job.worker or 'is unknown and'} sends no heartbeat: the job ends when the worker "
            f"comes back and stops it, or when the worker is missing and {rescue}"
        )
    if job.worker_kind == "pool":
        return (
            "its worker kills the child that runs it as soon as the worker gets the request: at once through "
            f"Redis, or with its next heartbeat, at most {settings.heartbeat_seconds:g} s later"
        )
    return (
        "a plain rq worker cannot be asked to stop, so the function runs to its end. "
        "If it returns, the job is finished. If it fails, the job is canceled and not retried"
    )


def _apply_cancel(
    connection: Connection, request: Request, jobs: Sequence[JobForDecision]
) -> list[Effect | Item]:
    actor, reason, now = request.actor, request.reason, request.now
    waiting = [job for job in jobs if not job.is_with_worker]
    with_workers = [job for job in jobs if job.is_with_worker]
    lost = [job for job in with_workers if _find_rescue_problem(job, request) is None]
    endings.cancel(connection, [job.id for job in waiting], now, reason)
    ids = [job.id for job in with_workers]
    job_transitions.request_cancel(connection, ids, actor, reason, now)
    _rescue(connection, request, lost)
    requests = [
        AnnounceStop(job.queue, job.worker)
        for job in with_workers
        if job not in lost and job.worker is not None and job.worker_kind != "plain"
    ]
    ended = [*waiting, *lost]
    return [*_forget(ended), *requests, *_advance(ended)]


def _decide_discard(job: JobForDecision, _request: Request) -> Item | Skip:
    return make_item(job, Change("state", job.state, "failed"), Change("ended", None, "discarded"))


def _apply_discard(
    connection: Connection, request: Request, jobs: Sequence[JobForDecision]
) -> list[Effect | Item]:
    endings.discard(connection, [job.id for job in jobs], request.now, request.reason)
    return [*_forget(jobs), *_advance(jobs)]


# --- rescue


def _find_rescue_problem(job: JobForDecision, request: Request) -> str | None:
    """Why the job cannot be taken from its worker; None when the worker has ended or is unknown."""
    if not job.is_with_worker:
        return f"it is {job.state}, and no worker has it"
    if (worker := job.lost_worker) is None:
        return f"its worker {job.worker} is {job.worker_state}, and may still run it"
    missing_seconds, now = request.host.settings.missing_seconds, request.now
    if job.is_reserved:
        taken_at, before = (
            job.dispatched_at,
            worker.lost_reservations_before(now, missing_seconds),
        )
    else:
        taken_at = job.started_at
        before = worker.lost_claims_before(taken_at, now, missing_seconds)
    if taken_at is not None and taken_at < before:
        return None
    return (
        f"its worker {job.worker} took it at {moment_in_words(taken_at)}, and may have come back: try again "
        f"in {missing_seconds:g} s, unless its heartbeat arrives"
    )


def _decide_rescue(job: JobForDecision, request: Request) -> Item | Skip:
    if (why := _find_rescue_problem(job, request)) is not None:
        return cannot(job, request, why)
    note = f"{_say_lost(job)}; if its function should still run there, its result does not count"
    changes = [Change("state", "reserved" if job.is_reserved else job.state, _after_rescue(job))]
    return make_item(job, *changes, note=note)


def _after_rescue(job: JobForDecision) -> str:
    """The state after a rescue, as `rescue_jobs.sql` and `rescue_reserved_jobs.sql` decide it."""
    if job.cancel_requested_at is not None:
        return "canceled"
    return "available" if job.is_reserved or job.attempt < job.max_attempts else "failed"


def _say_lost(job: JobForDecision) -> str:
    """What became of its worker."""
    worker = job.lost_worker
    if worker is None or worker.name is None:
        return "its worker is unknown"
    return (
        f"its worker {worker.name} {'has stopped' if worker.state == 'stopped' else 'is missing'}"
    )


def _rescue(connection: Connection, request: Request, jobs: Sequence[JobForDecision]) -> None:
    """Take jobs from their lost workers, as the watch loop does."""
    by_worker: dict[LostWorker, list[JobForDecision]] = defaultdict(list)
    for job in jobs:
        if job.lost_worker is not None:
            by_worker[job.lost_worker].append(job)
    for worker, of_worker in by_worker.items():
        # Each of them was decided. A later time than all of theirs lets the statements take them all.
        taken = [at for job in of_worker for at in (job.started_at, job.dispatched_at) if at]
        before = max([*taken, request.now]) + timedelta(microseconds=1)
        endings.rescue_lost(connection, worker, [job.id for job in of_worker], before, request.now)


def _apply_rescue(
    connection: Connection, request: Request, jobs: Sequence[JobForDecision]
) -> list[Effect | Item]:
    _rescue(connection, request, jobs)
    # What a worker of RQ has left of them in Redis goes too.
    left = Forget(tuple((job.queue, job.id, job.dispatch_no) for job in jobs))
    return [left, _dispatch(jobs), *_advance(jobs)]


# --- recall

_PLACES = {
    "listed": "its delivery is in Redis, and a worker takes it from there",
    "running": "RQ says that a worker runs it",
    "held": "a worker has it, says the heartbeat of the worker",
    "parked": "a worker has just taken its delivery, or died with it: then the recall loop recalls it",
    "unknown": "its Redis does not answer, so nobody knows where its delivery is",
}


def _decide_recall(job: JobForDecision, request: Request) -> Item | Skip:
    found, wait = request.in_redis.get(job.target), request.host.settings.recall_seconds
    if not isinstance(found, DeliveryPlace) or found.dispatch_no != job.dispatch_no:
        return cannot(job, request, "it moved while its delivery was looked for")
    if found.place != "nowhere":
        return cannot(job, request, _PLACES[found.place])
    if job.dispatched_at is not None and 0 <= _seconds_since(job.dispatched_at, request) < wait:
        return cannot(
            job, request, f"it was dispatched less than {wait:g} s ago, and may be on its way"
        )
    note = "its delivery is nowhere in Redis; if it should appear again, no worker accepts it"
    return make_item(job, Change("state", "queued", "available"), note=note)


def _seconds_since(moment: datetime, request: Request) -> float:
    return (request.now - moment).total_seconds()


def _apply_recall(
    connection: Connection, _request: Request, jobs: Sequence[JobForDecision]
) -> list[Effect | Item]:
    dispatch.recall(connection, [(job.id, job.dispatch_no) for job in jobs])
    return [*_forget(jobs), _dispatch(jobs)]


# --- reschedule


def _read_due_at(request: Request) -> dict[str, Any]:
    """The due time in UTC as ISO 8601, or `now`."""
    value = request.params["due_at"]
    if value in (None, "now"):
        return {"due_at": "now"}
    if (moment := read_moment(value)) is not None:
        return {"due_at": moment}
    raise ValueError(
        f"due_at is now, or a time up to the year {LAST_YEAR} such as 2026-11-26T09:00, "
        f"in UTC unless it has an offset; got {show_value(value)}"
    )


def _due_at(request: Request) -> datetime:
    """The new due time. A time that has passed means now, so that the job does not overtake others."""
    asked = request.params["due_at"]
    return request.now if asked == "now" else max(request.now, datetime.fromisoformat(asked))


def _decide_reschedule(job: JobForDecision, request: Request) -> Item | Skip:
    due_at, now = _due_at(request), request.now
    if due_at == job.due_at or (due_at == now and job.state in ("available", "queued")):
        return make_skip(job, "already", f"job {job.id} is due then already: it is {job.state}")
    if job.deadline_at is not None and job.deadline_at <= due_at:
        return cannot(job, request, f"{_STARTS_BEFORE}{moment_in_words(job.deadline_at)}")
    state = "available" if due_at == now else "scheduled"
    after = "now" if due_at == now else moment_in_words(due_at)
    changes = [Change("due", moment_in_words(job.due_at), after)]
    if state != job.state:
        changes.append(Change("state", job.state, state))
    return make_item(job, *changes)


def _apply_reschedule(
    connection: Connection, request: Request, jobs: Sequence[JobForDecision]
) -> list[Effect | Item]:
    due_at = _due_at(request)
    job_transitions.reschedule(connection, [job.id for job in jobs], due_at, request.now)
    due_now = [_dispatch(jobs)] if due_at == request.now else []
    return [*_forget(jobs), *due_now]


# --- run again and delete


def _assign_locks_to_run_again(
    _connection: Connection, _request: Request, jobs: dict[str, JobForDecision]
) -> dict[str, JobForDecision]:
    takers = unique_locks.Takers()
    return _let_the_first_take_the_lock(jobs, lambda job: job.unique_until is not None, takers)


def _decide_run_again(job: JobForDecision, request: Request) -> Item | Skip:
    if job.unique_until is not None and job.unique_lock_of is not None:
        return _skip_duplicate(job, request)
    note = None
    if job.unique_until == "within" and _lifetime_of(request.host, job) is None:
        note = (
            "the new job gets no unique lock, because this process does not know how long that lock "
            "would last: the same call may be enqueued again"
        )
    if job.step is not None:
        alone = f"the new job is no step of workflow {job.workflow_id}"
        note = alone if note is None else f"{alone}; {note}"
    new = f"{job.task} in {job.queue}, available, due now"
    return make_item(job, Change("new job", None, new), note=note)


def _apply_run_again(
    connection: Connection, request: Request, jobs: Sequence[JobForDecision]
) -> list[Effect | Item]:
    lifetimes = {
        job.id: _lifetime_of(request.host, job)
        for job in jobs
        if job.unique_until in ("ended", "forever") or _lifetime_of(request.host, job) is not None
    }
    ids = [job.id for job in jobs]
    task, queue = _only({job.task for job in jobs}), _only({job.queue for job in jobs})
    with request.host.telemetry.sending(task, queue) as sent:
        new_ids = job_transitions.run_again(connection, ids, lifetimes, request.now, sent)
        sent.job_id = _only(new_ids.values())
        sent.count = len(new_ids) if sent.job_id is None else None
    new_lifetimes = {new_ids[id]: lifetime for id, lifetime in lifetimes.items()}
    if new_lifetimes and unique_locks.take(connection, new_lifetimes, request.now):
        raise ChangedMeanwhile
    return [_dispatch(jobs), *(_with_new_job(job, new_ids[job.id]) for job in jobs)]


def _only(values: Collection[_T]) -> _T | None:
    """The only one of these; None when there are several."""
    return next(iter(values)) if len(values) == 1 else None


def _lifetime_of(host: Host, job: JobForDecision) -> timedelta | None:
    """The lifetime of a new unique lock, as the job's task declares it; None when it is unknown here."""
    task = host.tasks.get(job.task)
    unique = task.declared.unique if task is not None else None
    return unique.within if unique is not None and job.unique_until == "within" else None


def _with_new_job(job: JobForDecision, new: int) -> Item:
    item = make_item(job, Change("new job", None, f"job/{new}"), note=f"it runs again as job {new}")
    return replace(item, facts={"run_again_as": f"job/{new}"})


def _decide_delete(job: JobForDecision, _request: Request) -> Item | Skip:
    note = None
    if job.unique_lock_of == job.id:
        until = "for ever" if job.unique_until == "forever" else "until the lock expires"
        note = f"its unique lock stays: the same call is refused {until}"
    return make_item(job, Change("job", job.state, None), note=note)


def _apply_delete(
    connection: Connection, request: Request, jobs: Sequence[JobForDecision]
) -> list[Effect | Item]:
    job_transitions.delete(connection, [job.id for job in jobs], request.now)
    return []


# --- what several of them need


def _ids(targets: Iterable[str]) -> list[int]:
    return [int(name_in(target)) for target in targets]


def _skip_duplicate(job: JobForDecision, request: Request) -> Skip:
    why = f"job {job.unique_lock_of} holds the unique lock of the same call"
    return cannot(job, request, why, "duplicate")


def _has_passed(job: JobForDecision, now: datetime) -> bool:
    return job.deadline_at is not None and job.deadline_at <= now


def _let_the_first_take_the_lock(
    jobs: dict[str, JobForDecision],
    needs_lock: Callable[[JobForDecision], bool],
    takers: unique_locks.Takers,
) -> dict[str, JobForDecision]:
    """Return the jobs. When several need the same free unique lock, the first takes it.

    The others name the first as the lock's holder.
    """
    found = {}
    for target, job in jobs.items():
        if job.unique_key is not None and needs_lock(job):
            rival = takers.find_rival(job.id, job.unique_key, job.unique_lock_of)
            job = job if rival is None else replace(job, unique_lock_of=rival)
        found[target] = job
    return found


def _dispatch(jobs: Iterable[JobForDecision]) -> Effect:
    return Dispatch(tuple(dict.fromkeys((job.lane, job.queue) for job in jobs)))


def _advance(jobs: Iterable[JobForDecision]) -> list[Effect]:
    """Pass the ends of steps on to what waits for them."""
    runs = dict.fromkeys(job.workflow_id for job in jobs if job.workflow_id is not None)
    return [Advance(tuple(runs))] if runs else []


def _forget(jobs: Iterable[JobForDecision]) -> list[Effect]:
    queued = [(job.queue, job.id, job.dispatch_no) for job in jobs if job.state == "queued"]
    return [Forget(tuple(queued))] if queued else []


def merge_notes(items: Sequence[Item]) -> list[str]:
    """The notes of a plan or a receipt, each once. One note counts all deadlines and gives the first."""
    notes = [item.note for item in items if item.note]
    deadlines = sorted(note for note in notes if note.startswith(_STARTS_BEFORE))
    if len(deadlines) > 1:
        notes = [note for note in notes if note not in deadlines]
    merged = []
    for note, number in Counter(notes).items():
        # "it has 2 jobs now" tells of one; of all of several it is said of each.
        of_all = "each" if len(items) > 1 and note.startswith(("it ", "its ")) else ""
        whom = of_all if number == len(items) else str(number)
        merged.append(f"{whom} of them: {note}" if whom else note)
    if len(deadlines) > 1:
        first = deadlines[0].removeprefix(_STARTS_BEFORE)
        merged.append(f"{len(deadlines)} must start before their deadlines, the first at {first}")
    return merged


# --- adopted jobs


def _or_ask_rq(decide: _Decide) -> _Decide:
    """Decide so about managed jobs, and about adopted ones what RQ is asked for."""
    return lambda job, request: (
        adopted_actions.decide(job, request) if job.origin == "rq" else decide(job, request)
    )


def _and_ask_rq(apply: _Apply) -> _Apply:
    """Apply so to managed jobs, and ask RQ about adopted ones."""

    def apply_to_all(
        connection: Connection, request: Request, jobs: Sequence[JobForDecision]
    ) -> Sequence[Effect | Item]:
        managed = [job for job in jobs if job.origin == "opsjobs"]
        adopted = [job for job in jobs if job.origin == "rq"]
        done = apply(connection, request, managed) if managed else []
        return [*done, *adopted_actions.apply(connection, request, adopted)]

    return apply_to_all


def actions_of_job(
    origin: str, state: str, *, is_step: bool = True
) -> tuple[Action[JobForDecision], ...]:
    """The actions that are legal for jobs of this origin and state, in the order of their buttons."""
    if origin == "opsjobs":
        legal = (action for action in ACTIONS if state in action.sources)
        return tuple(action for action in legal if is_step or action.short_name != "skip")
    return tuple(action for action in ACTIONS if state in ASKED_OF_RQ.get(action.short_name, ()))


# In the order of their buttons.
ACTIONS: tuple[Action[JobForDecision], ...] = (
    Action(
        name="job.retry",
        title="Retry",
        sources=sources_of("retry"),
        risk="The function runs once more, and repeats all that earlier attempts did.",
        read_more=_read_more_of_retry,
        decide=_or_ask_rq(_decide_retry),
        apply=_and_ask_rq(_apply_retry),
    ),
    Action(
        name="job.cancel",
        title="Cancel",
        sources=sources_of("cancel"),
        risk="A waiting job will not run. A running function is stopped in the middle of its work.",
        decide=_or_ask_rq(_decide_cancel),
        apply=_and_ask_rq(_apply_cancel),
    ),
    Action(
        name="job.rescue",
        title="Rescue",
        sources=("queued", "started"),
        risk="The function runs once more, while it may still run on a machine that cannot be reached. "
        "Without attempts left, the job fails.",
        is_repair=True,
        decide=_decide_rescue,
        apply=_apply_rescue,
    ),
    Action(
        name="job.recall",
        title="Recall",
        sources=sources_of("recall"),
        risk="The job is dispatched anew. It costs no attempt.",
        is_repair=True,
        asks_redis=True,
        decide=_decide_recall,
        apply=_apply_recall,
    ),
    Action(
        name="job.discard",
        title="Discard",
        sources=sources_of("discard"),
        risk="The job will not run, and counts as failed.",
        decide=_or_ask_rq(_decide_discard),
        apply=_and_ask_rq(_apply_discard),
    ),
    Action(
        name="job.skip",
        title="Skip",
        sources=sources_of("skip"),
        risk="The step counts as finished with the result null, and what waits for it goes on. "
        "Its function is not called.",
        is_repair=True,
        read_more=_read_more_of_skip,
        decide=_decide_skip,
        apply=_apply_skip,
    ),
    Action(
        name="job.reschedule",
        title="Reschedule",
        sources=sources_of("reschedule"),
        risk="The job starts at that time, or later when no worker is free. "
        "A job that waits in Redis is taken out of it.",
        params=("due_at",),
        read_params=_read_due_at,
        decide=_decide_reschedule,
        apply=_apply_reschedule,
    ),
    Action(
        name="job.edit",
        title="Edit",
        sources=sources_of("edit"),
        risk="The job runs with the new values. A job that waits in Redis is taken out of it, and "
        "dispatched anew.",
        params=edit_actions.PARAMS,
        unaudited=("args",),
        read_params=lambda request: edit_actions.read_edit(request.host, request.params),
        read_more=edit_actions.read_calls,
        decide=edit_actions.decide_edit,
        apply=edit_actions.apply_edit,
    ),
    Action(
        name="job.run_again",
        title="Run again",
        phrase="run {} again",
        sources=sources_of("run_again"),
        risk="A new job calls the function with the same arguments. It repeats all that the function did.",
        read_more=_assign_locks_to_run_again,
        decide=_decide_run_again,
        apply=_apply_run_again,
    ),
    Action(
        name="job.delete",
        title="Delete",
        sources=sources_of("delete"),
        risk="The job, its attempts, logs and output are deleted for ever. The audit stays.",
        decide=_or_ask_rq(_decide_delete),
        apply=_and_ask_rq(_apply_delete),
    ),
)
