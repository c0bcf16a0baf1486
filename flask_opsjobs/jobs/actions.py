"""Decides and applies the actions on jobs, with the writes of `jobs` and `endings`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from .. import endings
from ..actions.catalog import Action
from ..actions.effects import Dispatch, Effect, Forget, RequestHeartbeat
from ..actions.shapes import Change
from ..actions.target_plan import (
    ChangedMeanwhile,
    Decided,
    TargetPlan,
    Written,
    do,
    illegal,
    leave,
)
from ..core.db import Connection
from ..cron import transitions as cron_transitions
from ..host import Host
from . import transitions as job_transitions
from .action_changes import CHANGES, facts_of_job, span_of
from .record import unique_locks
from .transitions import JobForDecision

_TARGET = re.compile(r"job/([0-9]{1,19})")
_LARGEST_ID = 2**63 - 1  # what a bigint holds


def read_target(text: str) -> str | None:
    """The target in its canonical form, `job/42`; None when the text names no job."""
    match = _TARGET.fullmatch(text)
    return None if match is None or int(match[1]) > _LARGEST_ID else f"job/{int(match[1])}"


def read_params(_host: Host, _action: Action, given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters beside the targets. Actions on jobs have none."""
    return dict(given)


def decide(
    connection: Connection,
    host: Host,
    action: Action,
    targets: Sequence[str],
    decided: Decided,
    *,
    lock: bool,
) -> list[TargetPlan]:
    """What the action would do with each of these jobs. `lock` locks their rows until the commit."""
    ids = {target: int(target.partition("/")[2]) for target in targets}
    if lock:
        job_transitions.lock(connection, ids.values())
    found = job_transitions.look(connection, ids.values(), decided.now)
    rivals = _Rivals(action)
    return [
        _decide_one(host, action, target, found.get(id), rivals, decided.now)
        for target, id in ids.items()
    ]


def apply(
    connection: Connection,
    host: Host,
    action: Action,
    target_plans: Sequence[TargetPlan],
    decided: Decided,
) -> Written:
    """Write the action on jobs that the caller has locked. The caller commits.

    Raises `ChangedMeanwhile` when another job has taken a unique lock that one of them needs.
    """
    jobs = [target_plan.row for target_plan in target_plans]
    new_ids, effects = _WRITES[action.short_name](connection, host, jobs, decided)
    current = job_transitions.look(connection, [job.id for job in jobs], decided.now)
    after = {
        f"job/{job.id}": _after(current.get(job.id), new_ids.get(job.id), decided.now)
        for job in jobs
    }
    items = []
    for target_plan in target_plans:
        assert target_plan.item is not None
        new = new_ids.get(target_plan.row.id)
        items.append(target_plan.item if new is None else _with_new_job(target_plan, new))
    return Written(tuple(items), after, tuple(dict.fromkeys(effects)))


def _decide_one(
    host: Host,
    action: Action,
    target: str,
    job: JobForDecision | None,
    rivals: _Rivals,
    now: datetime,
) -> TargetPlan:
    if job is None:
        return leave(target, None, {}, "not_found", f"there is no {target.replace('/', ' ', 1)}")
    facts = facts_of_job(job, now)
    if job.origin != "opsjobs":
        sentence = f"cannot {action.on(f'job {job.id}')}: RQ owns it, and it is read-only here"
        return leave(target, job.task, facts, "illegal", sentence)
    if job.state not in action.sources:
        return illegal(action, target, job.task, facts, job.state)
    if (
        action.short_name == "cancel"
        and job.cancel_requested_at is not None
        and job.state == "started"
    ):
        who = job.cancel_requested_by or "somebody"
        sentence = (
            f"{who} has already asked to stop job {job.id}; its worker has not stopped it yet"
        )
        return leave(target, job.task, facts, "already", sentence)
    if rival := rivals.find(job):
        sentence = f"cannot {action.on(f'job {job.id}')}: job {rival} holds the unique lock of the same call"
        return leave(target, job.task, facts, "duplicate", sentence)
    changes, note = CHANGES[action.short_name](job, host, now)
    return do(target, job.task, facts, job, *changes, note=note)


class _Rivals:
    """Finds the job that holds a needed unique lock: in the database, or earlier in the same plan."""

    def __init__(self, action: Action) -> None:
        self._short_name = action.short_name
        self._taken: dict[bytes, int] = {}

    def find(self, job: JobForDecision) -> int | None:
        """The id of the job that holds the lock. None when it is free: then this job counts as its holder."""
        if self._short_name == "retry":
            is_needed = job.unique_until == "ended"
        else:
            is_needed = self._short_name == "run_again" and job.unique_until is not None
        if not is_needed or job.unique_key is None:
            return None
        holder = job.unique_lock_of
        if holder is not None and (self._short_name == "run_again" or holder != job.id):
            return holder
        first = self._taken.setdefault(job.unique_key, job.id)
        return None if first == job.id else first


def _after(job: JobForDecision | None, new_id: int | None, now: datetime) -> dict[str, Any] | None:
    if job is None:
        return None
    facts = facts_of_job(job, now)
    return facts if new_id is None else {**facts, "run_again_as": f"job/{new_id}"}


def _with_new_job(target_plan: TargetPlan, new: int) -> Any:
    assert target_plan.item is not None
    changes = (Change("new job", None, f"job/{new}"),)
    return replace(target_plan.item, changes=changes, note=f"it runs again as job {new}")


# --- the writes: each returns the ids of new jobs by the old ids, and the effects to run after the commit

_NewIds = Mapping[int, int]
_Write = Callable[
    [Connection, Host, Sequence[JobForDecision], Decided], tuple[_NewIds, Iterable[Effect]]
]


def _retry(
    connection: Connection, _host: Host, jobs: Sequence[JobForDecision], decided: Decided
) -> tuple[_NewIds, Iterable[Effect]]:
    unique = {job.id: None for job in jobs if job.unique_until == "ended"}
    if unique and unique_locks.take(connection, unique, decided.now):
        raise ChangedMeanwhile
    ids = [job.id for job in jobs]
    job_transitions.retry(connection, ids, decided.now)
    cron_transitions.forget_job_ends(connection, ids)
    return {}, _dispatch(jobs)


def _run_again(
    connection: Connection, host: Host, jobs: Sequence[JobForDecision], decided: Decided
) -> tuple[_NewIds, Iterable[Effect]]:
    spans = {
        job.id: span_of(host, job)
        for job in jobs
        if job.unique_until in ("ended", "forever") or span_of(host, job) is not None
    }
    ids = [job.id for job in jobs]
    new_ids = job_transitions.run_again(connection, ids, spans, decided.now)
    withins = {new_ids[id]: span for id, span in spans.items()}
    if withins and unique_locks.take(connection, withins, decided.now):
        raise ChangedMeanwhile
    return new_ids, _dispatch(jobs)


def _cancel(
    connection: Connection, _host: Host, jobs: Sequence[JobForDecision], decided: Decided
) -> tuple[_NewIds, Iterable[Effect]]:
    waiting = [job for job in jobs if job.state != "started"]
    started = [job for job in jobs if job.state == "started"]
    endings.cancel(connection, [job.id for job in waiting], decided.now, decided.reason)
    ids = [job.id for job in started]
    job_transitions.request_cancel(connection, ids, decided.actor, decided.reason, decided.now)
    requests = [
        RequestHeartbeat(job.queue, job.worker)
        for job in started
        if job.worker is not None and job.worker_kind != "plain"
    ]
    return {}, [*_forget(waiting), *requests]


def _discard(
    connection: Connection, _host: Host, jobs: Sequence[JobForDecision], decided: Decided
) -> tuple[_NewIds, Iterable[Effect]]:
    endings.discard(connection, [job.id for job in jobs], decided.now, decided.reason)
    return {}, _forget(jobs)


def _delete(
    connection: Connection, _host: Host, jobs: Sequence[JobForDecision], decided: Decided
) -> tuple[_NewIds, Iterable[Effect]]:
    job_transitions.delete(connection, [job.id for job in jobs], decided.now)
    return {}, ()


def _dispatch(jobs: Iterable[JobForDecision]) -> list[Effect]:
    return [Dispatch(tuple(dict.fromkeys((job.lane, job.queue) for job in jobs)))]


def _forget(jobs: Iterable[JobForDecision]) -> list[Effect]:
    queued = [(job.queue, job.id, job.dispatch_no) for job in jobs if job.state == "queued"]
    return [Forget(tuple(queued))] if queued else []


_WRITES: dict[str, _Write] = {
    "retry": _retry,
    "cancel": _cancel,
    "discard": _discard,
    "run_again": _run_again,
    "delete": _delete,
}
