"""Decides and applies the actions on runs of workflows, with the writes of `workflows`."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from hashlib import sha256
from typing import Any

from psycopg.errors import UniqueViolation

from .. import endings
from ..actions.domain import (
    Action,
    ChangedMeanwhile,
    NothingWritten,
    Request,
    cannot,
    exact,
    make_item,
    name_in,
    read_as_json,
    read_id_target,
    say_target,
)
from ..actions.effects import Advance, Dispatch, Effect
from ..actions.shapes import Change, Item, Skip
from ..core.db import Connection
from ..jobs import transitions as job_transitions
from ..jobs.lifecycle import ARROWS as JOB_ARROWS
from ..jobs.lifecycle import sources_of as sources_of_job
from ..jobs.record import json_storage, unique_locks
from . import transitions
from .lifecycle import NOT_TAKEN, OPEN, sources_of
from .queries import RunRow
from .send_signal import Signal, store_signal
from .send_signal import since as keep_late
from .transitions import RunForDecision, SignalForDecision, StepForDecision, StepWithLock

_LONGEST_NAME = 250
_SHOWN = 5
# The change that holds a given result or payload, which only people who may see payload see.
RESULT = "its result"
# The facts of an action on more steps than these hold one hash of them, so that the audit stays short.
_MOST_FACTS = 100
# An action that reopens waits looks at the newest late signals, at most so many.
_MOST_LATE_SIGNALS = 10_000
# The actions on the job of a step that move the step.
_ACTIONS_ON_STEP = ("retry", "cancel", "discard", "reschedule", "skip")


# --- targets and rows


@dataclass(frozen=True)
class RunWithSteps:
    """A run, and those of its steps that the action is about.

    `doomed` is the number of steps that were canceled because of these. `obstacle` says why they cannot be
    reopened. `left_out` are steps that a retry leaves as they are, because another step of the run takes
    their unique lock. `signal` is the one that a wait is to be given.
    """

    run: RunForDecision
    steps: tuple[StepForDecision, ...] = ()
    doomed: int = 0
    obstacle: str | None = None
    left_out: tuple[transitions.LockRival, ...] = ()
    signal: SignalForDecision | None = None

    @property
    def target(self) -> str:
        """The run as a target: `workflow/7`."""
        return f"workflow/{self.run.id}"

    @property
    def label(self) -> str:
        """The name of the workflow."""
        return self.run.name


def read_target(text: str) -> str | None:
    """The target in its canonical form, `workflow/7`; None when the text names no workflow."""
    return read_id_target("workflow", text)


def lock_rows(connection: Connection, request: Request, targets: Collection[str]) -> None:
    """Lock these runs until the commit, in id order, and then the signal that a wait is to be given.

    Nobody advances the runs meanwhile.
    """
    transitions.lock(connection, [int(name_in(target)) for target in targets])
    if "signal" in request.params:
        transitions.lock_signal(connection, request.params["signal"])


def find_rows(
    connection: Connection, request: Request, targets: Collection[str]
) -> dict[str, RunWithSteps]:
    """Those of these runs that exist, with the steps that the action is about.

    None for an action on a step as long as it is not named.
    """
    if request.action.params and not request.params:
        return {}
    found = transitions.look(connection, [int(name_in(target)) for target in targets])
    find = _STEPS.get(request.action.name)
    rows = {f"workflow/{run.id}": RunWithSteps(run) for run in found}
    if find is None:
        return rows
    return {target: find(connection, request, row) for target, row in rows.items()}


def say_unknown(target: str) -> str:
    """The sentence about a run that does not exist."""
    return f"there is no {say_target(target)}"


def forbid(row: RunWithSteps, request: Request) -> Skip | None:
    """Why the run's state forbids the action; None when it allows it."""
    if row.run.state in request.action.sources:
        return None
    state = row.run.state
    if state == "finished" and not row.run.unfinished:
        return cannot(
            row, request, "it is finished, as are all its steps; no action is legal any more"
        )
    return cannot(row, request, f"it is {state}{say_legal_actions(state)}")


def say_legal_actions(state: str) -> str:
    """What is legal for a run in this state, as the end of a sentence."""
    names = [action.title.lower() for action in ACTIONS if state in action.sources]
    return f"; legal now: {', '.join(names)}" if names else "; wait until its steps are stopped"


def say_legal_moves(kind: str, state: str, ended_by: str | None) -> str:
    """What is legal for a step of a running workflow in this state, as the end of a sentence.

    A step that was canceled because of another one cannot be retried by itself.
    """
    names = [
        arrow.name
        for arrow in JOB_ARROWS
        if arrow.name in _ACTIONS_ON_STEP and state in arrow.sources
    ]
    if ended_by == "dependency":
        names = [name for name in names if name != "retry"]
    if kind == "wait" and state == "deferred":
        names.append("signal")
    return f"; legal for this step: {', '.join(names)}" if names else ""


def list_facts(row: RunWithSteps, _now: datetime) -> dict[str, Any]:
    """The values that must not have changed since the preview.

    Not the counts of the run: they change whenever a step ends, and no run that makes progress could be acted
    on.
    """
    steps: Any = {step.name: f"{step.state}, delivery {step.dispatch_no}" for step in row.steps}
    if len(steps) > _MOST_FACTS:
        text = json.dumps(steps, sort_keys=True)
        steps = f"{len(steps)} steps, {sha256(text.encode()).hexdigest()[:16]}"
    facts = {
        "state": row.run.state,
        "end_no": row.run.end_no,
        "cancel_requested_at": exact(row.run.cancel_requested_at),
        "steps": steps,
    }
    signal = row.signal
    return facts if signal is None else {**facts, "signal": f"{signal.id}, {signal.outcome}"}


# --- cancel


def _decide_cancel(row: RunWithSteps, _request: Request) -> Item | Skip:
    note = "steps that wait end now; steps that run are stopped"
    return make_item(row, Change("state", row.run.state, "canceled"), note=note)


def _apply_cancel(
    connection: Connection, request: Request, rows: Sequence[RunWithSteps]
) -> list[Effect | Item]:
    ids = [row.run.id for row in rows]
    transitions.cancel(connection, ids, request.actor, request.reason, request.now)
    return [Advance(tuple(ids))]


# --- retry


def _find_steps_of_retry(
    connection: Connection, _request: Request, row: RunWithSteps
) -> RunWithSteps:
    steps = transitions.look_at_steps(connection, row.run.id, None)
    return replace(row, steps=tuple(steps))


def _read_more_of_retry(
    connection: Connection, request: Request, rows: dict[str, RunWithSteps]
) -> dict[str, RunWithSteps]:
    """The runs with what their steps doomed. Of steps that need the same unique lock, the first takes it.

    Another step of the same run is left out. Another run cannot be reopened.
    """
    takers = unique_locks.Takers()
    return {target: _leave_out(connection, request, row, takers) for target, row in rows.items()}


def _leave_out(
    connection: Connection, request: Request, row: RunWithSteps, takers: unique_locks.Takers
) -> RunWithSteps:
    ids = {step.id for step in row.steps}
    unique = transitions.list_unique(connection, ids, request.now)
    rivals = transitions.find_lock_rivals(unique, takers.branch())
    left_out = tuple(rival for rival in rivals if rival.holder in ids)
    is_left_out = {rival.id for rival in left_out}
    row = replace(
        row,
        steps=tuple(step for step in row.steps if step.id not in is_left_out),
        left_out=left_out,
    )
    takes = [step for step in unique if step.id not in is_left_out]
    return _with_doomed(connection, request, row, takes, takers)


def _read_more_of_skip(
    connection: Connection, request: Request, rows: dict[str, RunWithSteps]
) -> dict[str, RunWithSteps]:
    takers = unique_locks.Takers()
    return {
        target: _with_doomed(connection, request, row, [], takers) for target, row in rows.items()
    }


def _with_doomed(
    connection: Connection,
    request: Request,
    row: RunWithSteps,
    takes: Sequence[StepWithLock],
    takers: unique_locks.Takers,
) -> RunWithSteps:
    """The run with what its steps doomed. The steps `takes` and the doomed ones need their unique locks."""
    doomed = transitions.list_doomed(connection, [step.id for step in row.steps], request.now)
    obstacle = find_obstacle(row.run, [*takes, *doomed], takers)
    return replace(row, doomed=len(doomed), obstacle=obstacle)


def _decide_retry(row: RunWithSteps, request: Request) -> Item | Skip:
    if not row.steps:
        return cannot(row, request, "none of its steps failed or was canceled")
    if row.obstacle is not None:
        return cannot(row, request, row.obstacle, "duplicate")
    changes = [*_change_of_state(row)]
    changes += [
        Change(f"step {step.name}", step.state, state_after_retry(is_released=step.is_released))
        for step in row.steps[:_SHOWN]
    ]
    if (more := len(row.steps) - _SHOWN) > 0:
        changes.append(Change(f"{more} more steps", "failed or canceled", "available or deferred"))
    note = None
    if row.left_out:
        pairs = [(f"step {rival.name}", rival.holder) for rival in row.left_out]
        note = unique_locks.say_left_out("step", pairs)
    return make_item(row, *changes, *change_of_doomed(row.doomed), note=note)


def find_obstacle(
    run: RunForDecision, steps: Iterable[StepWithLock], takers: unique_locks.Takers
) -> str | None:
    """Why a run and these steps cannot be reopened: something else has a unique key or lock of theirs.

    Or takes it first in the same action, as `takers` knows. When nothing does, they take theirs.
    """
    trial = takers.branch()
    if run.open_rival is not None and run.state not in OPEN:
        return f"workflow {run.open_rival} is open with the same unique key"
    if run.unique_key is not None and (
        other := trial.find_rival(run.id, (run.name, run.unique_key))
    ):
        return f"workflow {other}, which is reopened too, has the same unique key"
    in_order = sorted(steps, key=lambda step: step.id)
    if rivals := transitions.find_lock_rivals(in_order, trial):
        return f"job {rivals[0].holder} has the unique lock of step {rivals[0].name}"
    takers.take_over(trial)
    return None


def _change_of_state(row: RunWithSteps) -> list[Change]:
    return [] if row.run.state == "running" else [Change("state", row.run.state, "running")]


def state_after_retry(*, is_released: bool) -> str:
    """The state of a step right after its retry: a wait, and a step that was never due, wait again."""
    return "available" if is_released else "deferred"


def change_of_doomed(number: int) -> list[Change]:
    """The change of the steps that were canceled because of a step that is retried or skipped."""
    words = "1 step behind" if number == 1 else f"{number} steps behind"
    return [Change(words, "canceled", "deferred")] if number else []


def _apply_retry(
    connection: Connection, request: Request, rows: Sequence[RunWithSteps]
) -> list[Effect | Item]:
    retry_steps(connection, request, {row.run.id: [step.id for step in row.steps] for row in rows})
    due = [step for row in rows for step in row.steps if step.is_released]
    lanes = dict.fromkeys((step.lane, step.queue) for step in due)
    return [Dispatch(tuple(lanes)), Advance(tuple(row.run.id for row in rows))]


def retry_steps(
    connection: Connection, request: Request, steps: Mapping[int, Collection[int]]
) -> None:
    """Retry these steps, by run, and reopen what they doomed. The caller holds the locks of the runs.

    A wait that is reopened takes a late signal that came for it. Raises `ChangedMeanwhile` when another job
    or run took a unique lock or key.
    """
    _lock_with_doomed(connection, [step for of_run in steps.values() for step in of_run])
    for run in sorted(steps):
        reopened = _reopen(connection, run, steps[run], request.now)
        _take_locks_again(connection, reopened, request.now)
        job_transitions.retry(connection, steps[run], request.now)
    _unmark_late_signals(connection, request)


def _unmark_late_signals(connection: Connection, request: Request) -> None:
    """Let waits that this action reopened take the signals that came after they had ended."""
    since = request.now - keep_late(request.host)
    transitions.unmark_late_signals(connection, since, _MOST_LATE_SIGNALS)


def _lock_with_doomed(connection: Connection, steps: Collection[int]) -> None:
    """Lock the jobs of these steps and of what they doomed, in id order.

    Only operators lock jobs that were doomed, and they hold the lock of the run. So nobody waits for a step
    that is locked here while he holds one that this waits for.
    """
    doomed = transitions.find_doomed_by(connection, steps)
    job_transitions.lock(connection, {*steps, *doomed})


def _reopen(connection: Connection, run: int, steps: Collection[int], now: datetime) -> list[int]:
    """Reopen steps. Raises `ChangedMeanwhile` when a run with the same unique key was started meanwhile."""
    try:
        return transitions.reopen(connection, run, steps, now)
    except UniqueViolation:
        raise ChangedMeanwhile from None


def _take_locks_again(connection: Connection, ids: Sequence[int], now: datetime) -> None:
    """Take the unique locks of reopened steps that are unique until they end.

    Raises `ChangedMeanwhile` when another job took one of them.
    """
    unique = transitions.list_unique_until_ended(connection, ids)
    if unique and unique_locks.take(connection, dict.fromkeys(unique), now):
        raise ChangedMeanwhile


# --- skip


def _read_skip(request: Request) -> dict[str, Any]:
    """The name of a step, and a result as JSON text; without one the result is null."""
    most, setting = request.host.settings.max_output_bytes, "OPSJOBS_MAX_OUTPUT_BYTES"
    return {
        "step": _read_name("step", request.params["step"]),
        "result": read_as_json("result", request.params["result"], most, setting),
    }


def _find_step_of_skip(connection: Connection, request: Request, row: RunWithSteps) -> RunWithSteps:
    steps = transitions.look_at_steps(connection, row.run.id, request.params["step"])
    return replace(row, steps=tuple(steps))


def _decide_skip(row: RunWithSteps, request: Request) -> Item | Skip:
    name, result = request.params["step"], request.params["result"]
    if not row.steps:
        return cannot(row, request, f"it has no step {name}", "unknown_step")
    (step,) = row.steps
    if step.state not in sources_of_job("skip"):
        legal = say_legal_moves(step.kind, step.state, step.ended_by)
        return cannot(row, request, f"step {name} is {step.state}{legal}")
    if step.kind == "map" and not result.startswith("["):
        why = f"step {name} is a map, so its result must be a list, one element per element"
        return cannot(row, request, why)
    if row.obstacle is not None:
        return cannot(row, request, row.obstacle, "duplicate")
    return make_item(
        row,
        *_change_of_state(row),
        Change(f"step {name}", step.state, "finished"),
        Change(RESULT, None, result),
        *change_of_doomed(row.doomed),
    )


def _apply_skip(
    connection: Connection, request: Request, rows: Sequence[RunWithSteps]
) -> list[Effect | Item]:
    steps = {row.run.id: [step.id for step in row.steps] for row in rows}
    skip_steps(connection, request, steps, request.params["result"])
    return [Advance(tuple(row.run.id for row in rows))]


def skip_steps(
    connection: Connection, request: Request, steps: Mapping[int, Collection[int]], result: str
) -> None:
    """End these steps, by run, as finished with this result, a JSON text, and reopen what they doomed.

    The caller holds the locks of the runs. Raises `ChangedMeanwhile` as `retry_steps`.
    """
    ids = [step for of_run in steps.values() for step in of_run]
    _lock_with_doomed(connection, ids)
    for run, mine in sorted(steps.items()):
        reopened = _reopen(connection, run, mine, request.now)
        _take_locks_again(connection, [id for id in reopened if id not in mine], request.now)
    ended = endings.skip(connection, ids, request.now, result, request.reason)
    if len(ended) < len(ids):
        raise ChangedMeanwhile
    _unmark_late_signals(connection, request)


# --- signal


def _read_signal(request: Request) -> dict[str, Any]:
    """The name of a wait, and a payload as JSON text; without one the payload is null."""
    most, setting = request.host.settings.max_args_bytes, "OPSJOBS_MAX_ARGS_BYTES"
    return {
        "wait": _read_name("wait", request.params["wait"]),
        "payload": read_as_json("payload", request.params["payload"], most, setting),
    }


def _find_wait_of_signal(
    connection: Connection, request: Request, row: RunWithSteps
) -> RunWithSteps:
    steps = transitions.look_at_steps(connection, row.run.id, request.params["wait"])
    return replace(row, steps=tuple(steps))


def _find_fault_of_wait(row: RunWithSteps, request: Request) -> Skip | None:
    """Why no signal can end the wait; None when one can."""
    name = request.params["wait"]
    if not row.steps or row.steps[0].kind != "wait":
        return cannot(row, request, f"it has no wait {name}", "unknown_step")
    (wait,) = row.steps
    if wait.state != "deferred":
        legal = say_legal_moves(wait.kind, wait.state, wait.ended_by)
        return cannot(row, request, f"wait {name} is {wait.state}{legal}")
    return None


def _decide_signal(row: RunWithSteps, request: Request) -> Item | Skip:
    if fault := _find_fault_of_wait(row, request):
        return fault
    (wait,) = row.steps
    note = None
    if not wait.opened_at:
        note = "it is not open yet: the first wait of this workflow for its signal takes it"
    changes = (
        Change(f"wait {wait.name}", "deferred", "finished"),
        Change(RESULT, None, request.params["payload"]),
    )
    return make_item(row, *changes, note=note)


def _apply_signal(
    connection: Connection, request: Request, rows: Sequence[RunWithSteps]
) -> list[Effect | Item]:
    """Store a signal for each run. An open wait ends with it here, whatever else is open for it."""
    job_transitions.lock(connection, [step.id for row in rows for step in row.steps])
    for row in rows:
        (wait,) = row.steps
        assert wait.signals is not None
        payload = json.loads(request.params["payload"])
        signal = Signal(wait.signals[0], wait.key, payload, run=row.run.id, by=request.actor)
        sent = store_signal(partial(transitions.run_sql, connection), request.host, signal)
        if wait.opened_at and not endings.receive(connection, wait.id, sent.id, request.now):
            raise ChangedMeanwhile
    return [Advance(tuple(row.run.id for row in rows))]


# --- give a signal


def _read_give(request: Request) -> dict[str, Any]:
    """The name of a wait, and the id of a signal."""
    target = read_id_target("signal", f"signal/{request.params['signal']}")
    if target is None:
        raise ValueError(
            f"signal is the id of a signal, such as 17; got {request.params['signal']!r:.100}"
        )
    return {"wait": _read_name("wait", request.params["wait"]), "signal": int(name_in(target))}


def _find_wait_and_signal(
    connection: Connection, request: Request, row: RunWithSteps
) -> RunWithSteps:
    signal = transitions.look_at_signal(connection, request.params["signal"])
    return replace(_find_wait_of_signal(connection, request, row), signal=signal)


def _decide_give(row: RunWithSteps, request: Request) -> Item | Skip:
    if fault := _find_fault_of_wait(row, request):
        return fault
    (wait,), signal = row.steps, row.signal
    if signal is None:
        missing = f"there is no signal {request.params['signal']}"
        return cannot(row, request, missing, "unknown_signal")
    if unfit := _say_unfit(signal, wait, row.run):
        return cannot(row, request, unfit)
    return make_item(
        row,
        Change(f"wait {wait.name}", "deferred", "finished"),
        Change(f"signal {signal.id}", signal.outcome, "taken"),
        Change(RESULT, None, signal.payload or "null"),
    )


def _say_unfit(signal: SignalForDecision, wait: StepForDecision, run: RunForDecision) -> str | None:
    """Why this signal cannot end this wait, and what can be done instead; None when it can."""
    if signal.outcome not in NOT_TAKEN:
        return (
            f"signal {signal.id} has ended the wait of job {signal.taken_by}; send another signal"
        )
    if wait.opened_at is None:
        return f"wait {wait.name} is not open yet; give it when it is open, or send another signal"
    names = wait.signals or []
    if signal.name in names and signal.key == wait.key and signal.run in (None, run.id):
        return None
    of_run = "" if signal.run is None else f" of workflow {signal.run}"
    return (
        f"signal {signal.id} is for waits{of_run} for {signal.name}{_say_key(signal.key)}, and wait "
        f"{wait.name} is for {' or '.join(names)}{_say_key(wait.key)}; send another signal"
    )


def _say_key(key: str) -> str:
    return f" with the key {key}" if key else " without a key"


def _apply_give(
    connection: Connection, request: Request, rows: Sequence[RunWithSteps]
) -> list[Effect | Item]:
    if len(rows) > 1:
        raise NothingWritten("a signal ends one wait: name one workflow")
    (row,) = rows
    (wait,) = row.steps
    job_transitions.lock(connection, [wait.id])
    signal = request.params["signal"]
    if not endings.receive(connection, wait.id, signal, request.now, NOT_TAKEN):
        raise ChangedMeanwhile
    return [Advance((row.run.id,))]


# --- what several of them need


def _read_name(what: str, value: Any) -> str:
    if (
        isinstance(value, str)
        and 1 <= len(value) <= _LONGEST_NAME
        and not json_storage.complain(value)
    ):
        return value
    raise ValueError(f"{what} is the name of a {what} of the workflow; got {value!r:.100}")


FindSteps = Callable[[Connection, Request, RunWithSteps], RunWithSteps]
_STEPS: Mapping[str, FindSteps] = {
    "workflow.retry": _find_steps_of_retry,
    "workflow.skip": _find_step_of_skip,
    "workflow.signal": _find_wait_of_signal,
    "workflow.give_signal": _find_wait_and_signal,
}

# In the order of their buttons.
ACTIONS: tuple[Action[RunWithSteps], ...] = (
    Action(
        name="workflow.cancel",
        title="Cancel",
        sources=sources_of("cancel"),
        risk="Steps that wait end now. Steps that run are stopped.",
        decide=_decide_cancel,
        apply=_apply_cancel,
    ),
    Action(
        name="workflow.retry",
        title="Retry",
        sources=sources_of("reopen"),
        risk="Each step that failed or was canceled runs once more. "
        "What was canceled because of it waits for it again.",
        read_more=_read_more_of_retry,
        decide=_decide_retry,
        apply=_apply_retry,
    ),
    Action(
        name="workflow.skip",
        title="Skip",
        phrase="skip a step of {}",
        sources=sources_of("reopen"),
        risk="The step counts as finished with your result, and what waits for it goes on. "
        "Its function is not called.",
        params=("step", "result"),
        read_params=_read_skip,
        read_more=_read_more_of_skip,
        decide=_decide_skip,
        apply=_apply_skip,
    ),
    Action(
        name="workflow.signal",
        title="Signal",
        phrase="signal {}",
        sources=("running",),
        risk="The wait ends with your payload as its result, and what waits for it goes on.",
        params=("wait", "payload"),
        read_params=_read_signal,
        decide=_decide_signal,
        apply=_apply_signal,
    ),
    Action(
        name="workflow.give_signal",
        title="Give signal",
        phrase="give a signal to {}",
        sources=("running",),
        risk="The wait ends with the payload of a signal that was sent and that no wait has taken.",
        params=("wait", "signal"),
        read_params=_read_give,
        decide=_decide_give,
        apply=_apply_give,
    ),
)


def actions_of_run(run: RunRow) -> Sequence[Action[RunWithSteps]]:
    """The actions that a page offers for a run, however large: without a step to retry there is no retry.

    Those that ask for a step or a wait are left out.
    """
    found = [each for each in ACTIONS if run.state in each.sources and not each.params]
    return [each for each in found if each.short_name != "retry" or run.failed + run.canceled]
