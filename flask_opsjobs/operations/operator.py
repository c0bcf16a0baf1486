"""Adds operations to the operator: drafts, starts, pauses, resumes, cancels and undoes them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Unpack

from ..actions import execution, planning
from ..actions.domain import Action, Request, Who
from ..actions.operator import Operator, Why
from ..actions.permission import is_permitted
from ..actions.registry import ACTIONS
from ..actions.shapes import Plan, Receipt
from ..core.db import Connection
from ..core.words import counted, show_value
from ..errors import ActionRefused
from ..jobs.actions import actions_of_job
from ..jobs.lifecycle import WAITING
from ..jobs.search.filter import LIMITS, Condition, JobFilter
from ..jobs.search.hit_queries import shows
from ..jobs.search.terms import BadFilter
from ..queues import actions as queue_actions
from . import transitions
from .actions import find_problem_of_policy, read_rate
from .targets import MOST_ERRORS, MOST_JOBS

# What an operation can do.
OPERABLE: Mapping[str, Action[Any]] = {
    action.name: action for action in ACTIONS.values() if action.is_operable
}
MOST_SAMPLES = 20


@dataclass(frozen=True)
class FrozenCount:
    """How many frozen jobs of an origin are in a state, and whether the action is legal in it."""

    origin: str
    state: str
    number: int
    is_legal: bool


@dataclass(frozen=True)
class OperationDraft:
    """An operation before its start: nothing has changed yet. `id` is None when it was not kept.

    `counts` are exact, by origin and state. `samples` is the plan of some of its jobs, chosen at random: each
    job is judged again when its turn comes. `bound` says why the access policy does not allow so many.
    """

    id: int | None
    action: str
    targets: int
    counts: tuple[FrozenCount, ...]
    samples: Plan
    risk: str
    expires_at: datetime
    rate: int | None = None
    bound: str | None = None

    @property
    def legal(self) -> int:
        """How many of its jobs are in a state in which the action is legal."""
        return sum(count.number for count in self.counts if count.is_legal)


class BulkOperator(Operator):
    """An operator who may also do one action to all jobs of a filter, up to a million: an operation."""

    # The most jobs of one operation.
    most_jobs = MOST_JOBS

    def draft(
        self,
        action: str,
        jobs: JobFilter,
        *,
        actor: str,
        via: str = "python",
        rate: int | None = None,
        authorize: bool = True,
        is_kept: bool = True,
        now: datetime | None = None,
    ) -> OperationDraft:
        """Freeze the jobs that fit, with their states, for an operation that may be started for 15 minutes.

        `rate` is how many jobs a second it may change; 0, as None, means no limit. With `is_kept=False`
        nothing is written. Raises `ActionRefused`: `nothing_matches`, `too_many`, `unauthorized` or
        `unreadable`.

        >>> job = send_invoice.options(delay=60).enqueue(9001)
        >>> db.session.commit()
        >>> draft = operator.draft("job.cancel", JobFilter(state="scheduled"), actor="anna")
        >>> draft.targets, draft.legal
        (1, 1)
        """
        chosen = _require_operable(action, actor)
        rate = _require_rate(action, rate)
        jobs = _require_search(action, jobs)
        who: Who = {"actor": actor, "via": via, "is_trusted": not authorize}
        with self._connected(now) as (connection, now):
            request = Request(self._host, chosen, (), {}, **who, now=now)
            _require_allowed(request, jobs)
            with connection.transaction(force_rollback=not is_kept):
                planning.limit_waits(connection, 5)
                made = _freeze(connection, request, jobs, rate, self.most_jobs)
                return made if is_kept else replace(made, id=None)

    def start(
        self,
        action: str,
        jobs: JobFilter,
        *,
        rate: int | None = None,
        via: str = "python",
        **why: Unpack[Why],
    ) -> OperationDraft:
        """Do an action to all jobs that fit: freeze them, and start the operation at once. Raises as `draft`.

        >>> job = send_invoice.options(delay=60).enqueue(9001)
        >>> db.session.commit()
        >>> started = operator.start("job.cancel", JobFilter(queue="mail", state="scheduled"), **why)
        >>> started.targets
        1
        """
        # Before the freeze, which may take seconds.
        _require_reason(why["reason"])
        authorize = why.get("authorize", True)
        draft = self.draft(
            action, jobs, actor=why["actor"], via=via, rate=rate, authorize=authorize
        )
        self._operate("operation.start", draft.id or 0, why, via, {"rate": None})
        return draft

    def clear_queue(
        self, queue: str, *, rate: int | None = None, via: str = "python", **why: Unpack[Why]
    ) -> OperationDraft:
        """Cancel all jobs of a queue that wait: freeze them, and start the operation at once.

        What runs goes on. Raises as `draft`.

        >>> job = send_invoice.options(delay=60).enqueue(9001)
        >>> db.session.commit()
        >>> operator.clear_queue("mail", **why).targets
        1
        """
        waiting = waiting_in(JobFilter(queue=queue))
        return self.start("job.cancel", waiting, rate=rate, via=via, **why)

    def start_draft(
        self, operation: int, *, rate: int | None = None, **why: Unpack[Why]
    ) -> Receipt:
        """Start a draft within 15 minutes, under the name of `actor`, also when somebody else made it.

        `rate` replaces that of the draft, if it is given; 0 means no limit.

        >>> job = send_invoice.options(delay=60).enqueue(9001)
        >>> db.session.commit()
        >>> draft = operator.draft("job.cancel", JobFilter(state="scheduled"), actor="anna")
        >>> operator.start_draft(draft.id, **why).outcome
        'done'
        """
        return self._operate("operation.start", operation, why, params={"rate": rate})

    def pause_operation(self, operation: int, **why: Unpack[Why]) -> Receipt:
        """Let an operation change nothing more until it is resumed.

        >>> job = send_invoice.options(delay=60).enqueue(9001)
        >>> db.session.commit()
        >>> started = operator.start("job.cancel", JobFilter(state="scheduled"), **why)
        >>> operator.pause_operation(started.id, **why).outcome
        'done'
        """
        return self._operate("operation.pause", operation, why)

    def resume_operation(self, operation: int, **why: Unpack[Why]) -> Receipt:
        """Let an operation go on that is paused or has stopped. After a stop it begins again with one job.

        >>> job = send_invoice.options(delay=60).enqueue(9001)
        >>> db.session.commit()
        >>> started = operator.start("job.cancel", JobFilter(state="scheduled"), **why)
        >>> operator.pause_operation(started.id, **why).outcome
        'done'
        >>> operator.resume_operation(started.id, **why).outcome
        'done'
        """
        return self._operate("operation.resume", operation, why)

    def cancel_operation(self, operation: int, **why: Unpack[Why]) -> Receipt:
        """End an operation: what is done stays, the rest is not changed.

        >>> job = send_invoice.options(delay=60).enqueue(9001)
        >>> db.session.commit()
        >>> started = operator.start("job.cancel", JobFilter(state="scheduled"), **why)
        >>> operator.cancel_operation(started.id, **why).outcome
        'done'
        """
        return self._operate("operation.cancel", operation, why)

    def undo_operation(self, operation: int, **why: Unpack[Why]) -> Receipt:
        """Start another operation, which takes back what this one did: the receipt names it.

        Canceled and discarded jobs are retried. Of retried jobs, those that still wait are canceled.

        >>> job = send_invoice.options(delay=60).enqueue(9001)
        >>> db.session.commit()
        >>> started = operator.start("job.cancel", JobFilter(state="scheduled"), **why)
        >>> operator.undo_operation(started.id, **why)
        Traceback (most recent call last):
        flask_opsjobs.errors.ActionRefused: cannot undo operation 1: it is running
        """
        return self._operate("operation.undo", operation, why)

    def _operate(
        self,
        action: str,
        operation: int,
        why: Why,
        via: str = "python",
        params: Mapping[str, Any] | None = None,
    ) -> Receipt:
        receipt = self.run(action, [f"operation/{operation}"], via=via, params=params, **why)
        if not receipt.is_done:
            raise ActionRefused(receipt)
        return receipt


def waiting_in(wanted: JobFilter) -> JobFilter:
    """Those of the jobs that wait: what a clear of a queue or a task cancels."""
    states = tuple(Condition("state", state) for state in WAITING)
    return wanted.but(further=(states,))


# --- what is required


def _refuse(action: object, code: str, says: str) -> ActionRefused:
    """The refusal of a draft. It decides nothing, so it is not audited."""
    return ActionRefused(Receipt("refused", str(action), code, says, audit_sequence=None))


def _require_operable(action: str, actor: str) -> Action[Any]:
    if action not in OPERABLE:
        known = ", ".join(OPERABLE)
        raise _refuse(
            action,
            planning.UNREADABLE,
            f"no operation does {show_value(action)}: known are {known}",
        )
    if not isinstance(actor, str) or not actor.strip():
        raise _refuse(action, "unauthorized", f"{action} needs an actor: nobody is signed in")
    return OPERABLE[action]


def _require_rate(action: str, rate: object) -> int | None:
    """The highest rate; None for no limit."""
    try:
        return read_rate(rate) or None
    except ValueError as wrong:
        raise _refuse(action, planning.UNREADABLE, str(wrong)) from None


def _require_search(action: str, jobs: JobFilter) -> JobFilter:
    """The filter as the search box would read it, which ignores no condition. Refuse what it cannot read."""

    def refuse(says: str) -> ActionRefused:
        return _refuse(action, planning.UNREADABLE, says)

    if not isinstance(jobs, JobFilter):
        says = f"jobs is a JobFilter, such as JobFilter(state='failed'); got {show_value(jobs)}"
        raise refuse(says)
    if jobs.limit != LIMITS[0]:
        raise refuse("limit: is the size of a page, and an operation takes all jobs that match")
    query = jobs.to_query()
    if empty := [name for name, value in query.items() if not value.strip()]:
        raise refuse(f"{empty[0]}: is empty")
    try:
        return JobFilter.from_query(query.items())
    except BadFilter as wrong:
        raise refuse(str(wrong)) from wrong


def _require_reason(reason: object) -> None:
    text = reason if isinstance(reason, str) else ""
    name = "operation.start"
    wrong = execution.find_long_reason(text) or execution.find_short_reason(name, text.strip())
    if wrong is not None:
        raise ActionRefused(wrong.receipt(name))


def _require_allowed(request: Request, jobs: JobFilter) -> None:
    """Refuse an actor who may not start operations, do this in general, or see what is searched."""
    needed = ["operation.start", request.action.permission]
    needed += ["payload.view"] if jobs.needs_payload else []
    for permission in needed:
        if not is_permitted(request, None, permission):
            says = f"cannot start an operation of {request.action.name}: it needs {permission}"
            raise _refuse(request.action.name, "unauthorized", says)


# --- the draft


def _freeze(
    connection: Connection, request: Request, jobs: JobFilter, rate: int | None, most: int
) -> OperationDraft:
    action, now = request.action, request.now
    operation = transitions.begin(
        connection,
        "draft",
        action=action.name,
        actor=request.actor,
        via=request.via,
        is_trusted=request.is_trusted,
        query=jobs.to_query(),
        undo_of=None,
        rate=rate,
        reason=None,
        now=now,
    )
    jobs_of_texts = _find_jobs_of_texts(connection, request, jobs) if jobs.texts else {}
    targets = transitions.freeze(connection, operation, jobs, now, most, jobs_of_texts)
    if not targets:
        says = _say_unknown_queue(connection, request, jobs)
        says = says or "no job matches: there is nothing to do"
        raise _refuse(action.name, "nothing_matches", says)
    if targets > most:
        says = f"more than {most:,} jobs match, and an operation takes no more: narrow the filter"
        raise _refuse(action.name, "too_many", says)
    frozen = transitions.count_frozen_states(connection, operation)
    transitions.set_targets(connection, operation, targets, frozen)
    problem = find_problem_of_policy(request, action.name, targets)
    return OperationDraft(
        id=operation,
        action=action.name,
        targets=targets,
        counts=judge_frozen(action, frozen),
        samples=plan_samples(connection, request, list_samples(connection, operation)),
        risk=action.risk,
        expires_at=now + transitions.DRAFT_SPAN,
        rate=rate,
        bound=None if problem is None else problem[1],
    )


def _say_unknown_queue(connection: Connection, request: Request, jobs: JobFilter) -> str | None:
    """The sentence about the queue of the filter, when nobody knows it."""
    target = f"queue/{jobs.queue}"
    if jobs.queue is None or queue_actions.find_rows(connection, request, [target]):
        return None
    return queue_actions.say_unknown(target)


def _find_jobs_of_texts(
    connection: Connection, request: Request, jobs: JobFilter
) -> Mapping[str, Sequence[int]]:
    """By searched text: the jobs whose errors have it as the display policy shows them.

    Refused when too many have an error, whatever it says: otherwise the refusal would reveal hidden text.
    """
    if transitions.count_errors(connection, jobs, request.now) > MOST_ERRORS:
        says = (
            f"more than {MOST_ERRORS:,} jobs that match have an error, and the text is searched in no more: "
            "add a task, a queue or created:<1d, or choose them by the failure, such as failure:58"
        )
        raise _refuse(request.action.name, "too_many", says)
    is_shown = shows(request.host.display)
    return {
        text: [
            id
            for id, error in transitions.list_errors(connection, jobs, text, request.now)
            if is_shown(error, text)
        ]
        for text in jobs.texts
    }


def judge_frozen(
    action: Action[Any], frozen: Iterable[tuple[str, str, int]]
) -> tuple[FrozenCount, ...]:
    """The frozen jobs by origin and state, each with whether the action is legal there."""
    return tuple(
        FrozenCount(origin, state, number, action in actions_of_job(origin, state))
        for origin, state, number in frozen
    )


def list_samples(connection: Connection, operation: int) -> Sequence[int]:
    """Some jobs of a draft, chosen at random: each time the same ones."""
    chance = random.Random(operation)
    places = [chance.random() for _ in range(MOST_SAMPLES)]
    return transitions.list_samples(connection, operation, places)


def plan_samples(connection: Connection, request: Request, jobs: Sequence[int]) -> Plan:
    """The plan of these jobs as of now. The targets of the request are not used. Locks and writes nothing."""
    targets = tuple(f"job/{id}" for id in jobs)
    return planning.make_plan(connection, replace(request, targets=targets))


def say_draft(draft: OperationDraft) -> list[str]:
    """The draft in sentences: what it would do, by state, and what is skipped for sure."""
    title = ACTIONS[draft.action].title
    lines = [f"{title} {counted(draft.targets, 'job')}: {draft.legal:,} in a state that allows it"]
    for count in draft.counts:
        origin = "plain, " if count.origin == "rq" else ""
        after = "" if count.is_legal else ", skipped"
        lines.append(f"  {count.number:,} {origin}{count.state}{after}")
    if draft.bound is not None:
        lines.append(draft.bound)
    return [*lines, draft.risk]
