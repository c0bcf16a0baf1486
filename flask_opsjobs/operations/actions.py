"""Decides and applies the actions on operations: start, pause, resume, cancel and undo."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from ..actions.domain import (
    Action,
    NothingWritten,
    Request,
    cannot,
    make_item,
    name_in,
    read_id_target,
    read_whole,
    say_target,
    whole,
)
from ..actions.effects import Effect
from ..actions.permission import find_excess, is_permitted
from ..actions.shapes import Change, Item, Skip
from ..core.db import Connection
from ..core.words import counted
from ..jobs.lifecycle import sources_of as sources_of_job
from ..jobs.search.filter import JobFilter
from ..jobs.search.terms import BadFilter
from . import transitions
from .lifecycle import sources_of
from .transitions import OperationForDecision

# What takes back what an action did; each also is the action of the operation that undoes.
UNDONE_BY: Mapping[str, str] = {
    "job.cancel": "job.retry",
    "job.discard": "job.retry",
    "job.retry": "job.cancel",
}
_WHY_NOT_UNDONE = {
    "job.delete": "what was deleted is gone",
    "job.run_again": "cancel the new jobs instead",
    "job.rescue": "the jobs were given to other workers",
    "job.skip": "what waited for the steps has gone on",
}
_BEGINS = ("start", "undo")
# The highest rate: so many jobs a second.
FASTEST = 10_000


# --- targets and rows


def read_target(text: str) -> str | None:
    """The target in its canonical form, `operation/7`; None when the text names no operation."""
    return read_id_target("operation", text)


def lock_rows(connection: Connection, request: Request, targets: Collection[str]) -> None:
    """Lock these operations until the commit: the loop operate leaves them alone meanwhile."""
    beginner = request.actor if request.action.short_name in _BEGINS else None
    transitions.lock(connection, [int(name_in(target)) for target in targets], beginner)


def find_rows(
    connection: Connection, request: Request, targets: Collection[str]
) -> dict[str, OperationForDecision]:
    """Those of these operations that exist, in id order."""
    ids = [int(name_in(target)) for target in targets]
    found = transitions.look(connection, ids, request.actor)
    return {operation.target: operation for operation in found}


def say_unknown(target: str) -> str:
    """The sentence about an operation that does not exist."""
    return f"there is no {say_target(target)}"


def forbid(operation: OperationForDecision, request: Request) -> Skip | None:
    """Why the operation's state forbids the action; None when it allows it."""
    if operation.state in request.action.sources:
        return None
    code = "expired" if operation.state == "expired" else "illegal"
    return cannot(operation, request, f"it is {operation.state}", code)


def list_facts(operation: OperationForDecision, _now: datetime) -> dict[str, Any]:
    """The values that must not have changed since the preview. Not its counts: they change all the time."""
    return {
        "state": operation.state,
        "action": operation.action,
        "actor": operation.actor,
        "targets": operation.targets,
    }


def add_up_begun(
    _connection: Connection, _request: Request, operations: dict[str, OperationForDecision]
) -> dict[str, OperationForDecision]:
    """The operations, each with the jobs of those before it, which are begun in the same request."""
    found, begun = {}, 0
    for target, operation in operations.items():
        found[target] = replace(operation, open_targets=operation.open_targets + begun)
        begun += operation.targets
    return found


def find_problem_of_policy(
    request: Request, action: str, targets: int, open_targets: int = 0
) -> tuple[str, str] | None:
    """Why the access policy lets the actor not do this to so many jobs, as (code, why); None when it does."""
    if not is_permitted(request, None, action):
        return "unauthorized", f"it needs {action}"
    excess = find_excess(request, action, targets, open_targets)
    return None if excess is None else ("most_targets", excess)


# --- start


def read_rate(rate: object) -> int | None:
    """How many jobs a second, from a number or a text: 0 for no limit, None when nothing is said.

    Raises `ValueError` for anything else.

    >>> read_rate("20"), read_rate(0), read_rate(" ")
    (20, 0, None)
    """
    if rate is None or (isinstance(rate, str) and not rate.strip()):
        return None
    return 0 if whole(rate) == 0 else read_whole(rate, FASTEST, "rate is {}, or 0 for no limit")


def _read_rate_of_start(request: Request) -> dict[str, Any]:
    """With None the rate stays as the draft says."""
    return {"rate": read_rate(request.params["rate"])}


def _rate_after(operation: OperationForDecision, request: Request) -> int | None:
    asked = request.params["rate"]
    return operation.rate if asked is None else asked or None


def _decide_start(operation: OperationForDecision, request: Request) -> Item | Skip:
    if request.now >= operation.expires_at:
        return cannot(operation, request, "its draft is older than 15 minutes", "expired")
    problem = find_problem_of_policy(
        request, operation.action, operation.targets, operation.open_targets
    ) or _find_problem_of_search(operation, request)
    if problem is not None:
        code, why = problem
        return cannot(operation, request, why, code)
    changes = [
        Change("state", "draft", "running"),
        Change(operation.action, None, counted(operation.targets, "job")),
    ]
    if operation.actor != request.actor:
        changes.append(Change("actor", operation.actor, request.actor))
    rate = _rate_after(operation, request)
    if rate != operation.rate:
        changes.append(Change("jobs a second", _say_rate(operation.rate), _say_rate(rate)))
    return make_item(operation, *changes)


def _find_problem_of_search(
    operation: OperationForDecision, request: Request
) -> tuple[str, str] | None:
    """Why the actor may not start a draft of this search, which somebody else may have made."""
    try:
        needs_payload = JobFilter.from_query((operation.query or {}).items()).needs_payload
    except BadFilter:  # written by another version
        needs_payload = True
    if not needs_payload or is_permitted(request, None, "payload.view"):
        return None
    return "unauthorized", "its search is of payload: it needs payload.view"


def _say_rate(rate: int | None) -> str | None:
    return None if rate is None else f"at most {rate:,}"


def _answers(
    _request: Request, operations: Sequence[OperationForDecision]
) -> tuple[str, Collection[str]]:
    """The repair of a failure, when the first operation is about the jobs of one."""
    operation = operations[0]
    failure = (operation.query or {}).get("failure")
    repair = f"operation.{operation.action.partition('.')[2]}"
    return repair, [] if failure is None else [f"failure/{failure}"]


def _apply_start(
    connection: Connection, request: Request, operations: Sequence[OperationForDecision]
) -> list[Effect | Item]:
    transitions.start(
        connection,
        _ids(operations),
        actor=request.actor,
        reason=request.reason,
        via=request.via,
        now=request.now,
        rate=request.params["rate"],
        is_trusted=request.is_trusted,
    )
    return []


# --- pause, resume, cancel


def _decide_move(operation: OperationForDecision, request: Request) -> Item | Skip:
    left = counted(operation.targets - operation.handled, "job")
    after = {"pause": "paused", "cancel": "canceled"}[request.action.short_name]
    return make_item(operation, Change("state", operation.state, after), note=f"{left} left")


def _apply_pause(
    connection: Connection, request: Request, operations: Sequence[OperationForDecision]
) -> list[Effect | Item]:
    says = f"{request.actor} paused it: {request.reason}"
    transitions.pause(connection, _ids(operations), "operator", says, request.now)
    return []


def _decide_resume(operation: OperationForDecision, request: Request) -> Item | Skip:
    problem = find_problem_of_policy(request, operation.action, 0)
    if problem is not None:
        code, why = problem
        return cannot(operation, request, why, code)
    left = operation.targets - operation.handled
    if operation.state == "stopped" and not left:
        return cannot(operation, request, "each of its jobs is done or skipped")
    note = f"{counted(left, 'job')} left"
    if operation.state == "stopped":
        note += "; it begins again with one job"
    return make_item(operation, Change("state", operation.state, "running"), note=note)


def _apply_resume(
    connection: Connection, _request: Request, operations: Sequence[OperationForDecision]
) -> list[Effect | Item]:
    transitions.resume(connection, _ids(operations))
    return []


def _apply_cancel(
    connection: Connection, request: Request, operations: Sequence[OperationForDecision]
) -> list[Effect | Item]:
    says = f"{request.actor} canceled the rest: {request.reason}"
    transitions.end(connection, _ids(operations), "canceled", request.now, "operator", says)
    return []


# --- undo


def say_undo(action: str) -> str:
    """What an undo of an operation of this action would do, or why there is none."""
    undone_by = UNDONE_BY.get(action)
    if undone_by is None:
        return f"none: {_WHY_NOT_UNDONE[action]}"
    if undone_by == "job.cancel":
        return "cancel what still waits; what ran stays as it is"
    return "retry them"


def _decide_undo(operation: OperationForDecision, request: Request) -> Item | Skip:
    undone_by = UNDONE_BY.get(operation.action)
    if undone_by is None:
        why = _WHY_NOT_UNDONE[operation.action]
        return cannot(operation, request, f"{operation.action} cannot be undone: {why}")
    if operation.undone_by is not None:
        return cannot(operation, request, f"operation {operation.undone_by} undoes it already")
    if not operation.done:
        return cannot(operation, request, "it left nothing that could be undone")
    problem = find_problem_of_policy(request, undone_by, operation.done, operation.open_targets)
    if problem is not None:
        code, why = problem
        return cannot(operation, request, why, code)
    new = f"{undone_by} of at most {counted(operation.done, 'job')}"
    return make_item(operation, Change("new operation", None, new))


def _apply_undo(
    connection: Connection, request: Request, operations: Sequence[OperationForDecision]
) -> list[Effect | Item]:
    return [_undo(connection, request, operation) for operation in operations]


def _undo(connection: Connection, request: Request, operation: OperationForDecision) -> Item:
    action = UNDONE_BY[operation.action]
    new = transitions.begin(
        connection,
        "running",
        action=action,
        actor=request.actor,
        via=request.via,
        is_trusted=request.is_trusted,
        query=None,
        undo_of=operation.id,
        rate=operation.rate,
        reason=request.reason,
        now=request.now,
    )
    states = sources_of_job(action.partition(".")[2])
    targets = transitions.freeze_undone(connection, new, operation.id, states)
    if not targets:
        raise NothingWritten(f"nothing that operation {operation.id} did can be undone any more")
    transitions.set_targets(connection, new, targets)
    change = Change("new operation", None, f"operation/{new}")
    note = f"operation {new} undoes it: {action} of {counted(targets, 'job')}"
    item = make_item(operation, change, note=note)
    return replace(item, facts={"undone_by": f"operation/{new}"})


def _ids(operations: Sequence[OperationForDecision]) -> list[int]:
    return [operation.id for operation in operations]


# In the order of their buttons.
ACTIONS: tuple[Action[OperationForDecision], ...] = (
    Action(
        name="operation.start",
        title="Start",
        sources=sources_of("start"),
        risk="Its jobs are changed one after the other: first 1, then 10, then 100, then the rest.",
        params=("rate",),
        read_params=_read_rate_of_start,
        read_more=add_up_begun,
        answers=_answers,
        decide=_decide_start,
        apply=_apply_start,
    ),
    Action(
        name="operation.pause",
        title="Pause",
        sources=sources_of("pause"),
        risk="Jobs that were changed already go on.",
        decide=_decide_move,
        apply=_apply_pause,
    ),
    Action(
        name="operation.resume",
        title="Resume",
        sources=sources_of("resume"),
        risk="The rest of its jobs is changed.",
        decide=_decide_resume,
        apply=_apply_resume,
    ),
    Action(
        name="operation.cancel",
        title="Cancel the rest",
        phrase="cancel {}",
        sources=sources_of("cancel"),
        risk="What is done stays. The rest is not changed.",
        decide=_decide_move,
        apply=_apply_cancel,
    ),
    Action(
        name="operation.undo",
        title="Undo",
        sources=sources_of("undo"),
        risk="Another operation changes back what still can be: what ran stays as it is.",
        read_more=add_up_begun,
        decide=_decide_undo,
        apply=_apply_undo,
    ),
)
