"""Decides what RQ may be asked to do with an adopted job. RQ is asked after the commit, and once only.

The row of the job keeps its state: the adopting loop changes it when RQ has done what it was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...actions.domain import Request, cannot, exact, make_item, moment_in_words
from ...actions.effects import AskRq, Effect
from ...actions.shapes import Change, Item, Skip
from ...core.db import Connection
from .. import transitions as job_transitions
from ..lifecycle import ASKED_OF_RQ
from ..transitions import JobForDecision

_AFTER = {"retry": "queued", "cancel": "canceled", "discard": "failed"}
_NOTE = "RQ is asked once; the adopt loop sees within 20 s what becomes of the job"
_IF_ALIVE = (
    "RQ is asked only if the worker that ran it is gone, and it is refused while that worker lives"
)


def forbid(job: JobForDecision, request: Request) -> Skip | None:
    """The reason why RQ may not be asked; None when it may."""
    name = request.action.short_name
    if name not in ASKED_OF_RQ:
        legal = ", ".join(ASKED_OF_RQ)
        return cannot(job, request, f"RQ owns it, and may be asked only for: {legal}")
    if job.state not in ASKED_OF_RQ[name]:
        way_out = "; cancel it instead" if job.state in ASKED_OF_RQ["cancel"] else ""
        return cannot(job, request, f"it is {job.state}{way_out if name == 'discard' else ''}")
    return None


def name_in_rq(job: JobForDecision) -> dict[str, Any]:
    """Facts that name the job in RQ. The adopt loop reads in the audit which jobs were deleted."""
    return {
        "rq_place": job.rq_place,
        "rq_id": job.rq_id,
        "rq_created_at": exact(job.rq_created_at),
    }


def decide(job: JobForDecision, request: Request) -> Item | Skip:
    """What RQ is asked for."""
    name = request.action.short_name
    if name == "delete":
        return make_item(job, Change("job", job.state, None), note="RQ is asked to delete it too")
    notes = [_NOTE]
    if job.state == "started" and name != "cancel":
        notes.insert(0, _IF_ALIVE)
    if job.cancel_requested_at is not None:
        when = moment_in_words(job.cancel_requested_at)
        notes.append(f"{job.cancel_requested_by} asked to cancel it before, {when}")
    after = f"{_AFTER[name]}, asked of RQ"
    return make_item(job, Change("state", job.state, after), note=". ".join(notes))


def apply(
    connection: Connection, request: Request, jobs: Sequence[JobForDecision]
) -> list[Effect | Item]:
    """Record what RQ is asked for, and return the questions. A deleted row goes at once."""
    ids, name = [job.id for job in jobs], request.action.short_name
    if name == "delete":
        job_transitions.delete(connection, ids, request.now)
    elif name == "cancel":
        job_transitions.note_cancel_of_rq(
            connection, ids, request.actor, request.reason, request.now
        )
    else:
        job_transitions.forget_cancel_of_rq(connection, ids)
    return [
        AskRq(name, job.id, job.rq_place, job.queue, job.rq_id, job.rq_created_at)
        for job in jobs
        if job.rq_place is not None and job.rq_id is not None
    ]
