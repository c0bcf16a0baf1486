"""Decides and applies the actions on runs of workflows, with the writes of `workflows`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

from ..actions.domain import (
    Action,
    ChangedMeanwhile,
    Request,
    cannot,
    exact,
    make_item,
    name_in,
    say_target,
)
from ..actions.effects import Advance, Dispatch, Effect
from ..actions.shapes import Change, Item, Skip
from ..core.db import Connection
from ..host import Host
from ..jobs import transitions as job_transitions
from ..jobs.record import json_storage, unique_locks
from . import transitions
from .lifecycle import sources_of
from .send_signal import Signal, store_signal
from .transitions import RunForDecision, StepForDecision

_TARGET = re.compile(r"workflow/([0-9]{1,19})")
_LARGEST_ID = 2**63 - 1  # what a bigint holds
_LONGEST_NAME = 250
_SHOWN = 5


# --- targets and rows


@dataclass(frozen=True)
class RunWithSteps:
    """A run, and those of its steps that the action is about."""

    run: RunForDecision
    steps: tuple[StepForDecision, ...] = ()
    reopened: int = 0

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
    match = _TARGET.fullmatch(text)
    return None if match is None or int(match[1]) > _LARGEST_ID else f"workflow/{int(match[1])}"


def lock_rows(connection: Connection, _request: Request, targets: Collection[str]) -> None:
    """Lock these runs until the commit, in id order. Nobody advances them meanwhile."""
    transitions.lock(connection, [int(name_in(target)) for target in targets])


def find_rows(
    connection: Connection, request: Request, targets: Collection[str]
) -> dict[str, RunWithSteps]:
    """Those of these runs that exist, with the steps that the action is about."""
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
    return cannot(row, request, f"it is {row.run.state}{_what_is_legal(row.run.state)}")


def _what_is_legal(state: str) -> str:
    names = [action.title.lower() for action in ACTIONS if state in action.sources]
    return f"; legal now: {', '.join(names)}" if names else "; wait until its steps are stopped"


def list_facts(row: RunWithSteps, _now: datetime) -> dict[str, Any]:
    """The values that must not have changed since the preview.

    Not the counts of the run: they change whenever a step ends, and no run that makes progress could be acted
    on.
    """
    return {
        "state": row.run.state,
        "end_no": row.run.end_no,
        "cancel_requested_at": exact(row.run.cancel_requested_at),
        "steps": {step.name: [step.state, step.dispatch_no] for step in row.steps},
    }


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
    connection: Connection, request: Request, row: RunWithSteps
) -> RunWithSteps:
    steps = transitions.look_at_steps(connection, row.run.id, None, request.now)
    return _with_reopened(connection, row, steps)


def _with_reopened(
    connection: Connection, row: RunWithSteps, steps: Sequence[StepForDecision]
) -> RunWithSteps:
    doomed = transitions.find_doomed_by(connection, [step.id for step in steps])
    return replace(row, steps=tuple(steps), reopened=len(doomed))


def _decide_retry(row: RunWithSteps, request: Request) -> Item | Skip:
    if not row.steps:
        return cannot(row, request, "none of its steps failed or was canceled")
    for step in row.steps:
        if step.unique_until == "ended" and step.unique_lock_of not in (None, step.id):
            rival = f"job {step.unique_lock_of} holds the unique lock of step {step.name}"
            return cannot(row, request, rival, "duplicate")
    changes = [Change("state", row.run.state, "running")] if row.run.state != "running" else []
    changes += [
        Change(f"step {step.name}", step.state, "available" if step.is_released else "deferred")
        for step in row.steps[:_SHOWN]
    ]
    if (more := len(row.steps) - _SHOWN) > 0:
        changes.append(Change(f"{more} more steps", "failed or canceled", "available"))
    return make_item(row, *changes, *_change_of_reopened(row))


def _change_of_reopened(row: RunWithSteps) -> list[Change]:
    if not row.reopened:
        return []
    return [Change(f"{row.reopened} steps behind them", "canceled", "deferred")]


def _apply_retry(
    connection: Connection, request: Request, rows: Sequence[RunWithSteps]
) -> list[Effect | Item]:
    lanes: dict[tuple[str, str], None] = {}
    for row in rows:
        ids = [step.id for step in row.steps]
        job_transitions.lock(connection, ids)
        reopened = transitions.reopen(connection, row.run.id, ids, request.now)
        take_locks_again(connection, reopened, request.now)
        released = [step for step in row.steps if step.is_released]
        job_transitions.retry(connection, [step.id for step in released], request.now)
        lanes |= dict.fromkeys((step.lane, step.queue) for step in released)
    return [Dispatch(tuple(lanes)), Advance(tuple(row.run.id for row in rows))]


def take_locks_again(connection: Connection, ids: Sequence[int], now: datetime) -> None:
    """Take the unique locks of reopened steps that are unique until they end.

    Raises `ChangedMeanwhile` when another job took one of them.
    """
    unique = transitions.list_unique_until_ended(connection, ids)
    if unique and unique_locks.take(connection, dict.fromkeys(unique), now):
        raise ChangedMeanwhile


# --- skip


def _read_skip(_host: Host, given: Mapping[str, Any]) -> dict[str, Any]:
    """The name of a step, and a result as JSON text; without one the result is null."""
    return {
        "step": _read_name("step", given["step"]),
        "result": _read_json("result", given["result"]),
    }


def _find_step_of_skip(connection: Connection, request: Request, row: RunWithSteps) -> RunWithSteps:
    name = request.params["step"]
    return _with_reopened(
        connection, row, transitions.look_at_steps(connection, row.run.id, name, request.now)
    )


def _decide_skip(row: RunWithSteps, request: Request) -> Item | Skip:
    name = request.params["step"]
    if not row.steps:
        return cannot(row, request, f"it has no step {name}", "unknown_step")
    (step,) = row.steps
    if step.state not in ("deferred", "failed", "canceled"):
        why = (
            f"step {name} is {step.state}; only a deferred, failed or canceled step can be skipped"
        )
        return cannot(row, request, why)
    changes = [
        Change(f"step {name}", step.state, "finished"),
        Change("its result", None, request.params["result"]),
    ]
    if row.run.state != "running":
        changes.insert(0, Change("state", row.run.state, "running"))
    return make_item(row, *changes, *_change_of_reopened(row))


def _apply_skip(
    connection: Connection, request: Request, rows: Sequence[RunWithSteps]
) -> list[Effect | Item]:
    for row in rows:
        (step,) = row.steps
        job_transitions.lock(connection, [step.id])
        reopened = transitions.reopen(connection, row.run.id, [step.id], request.now)
        behind = [id for id in reopened if id != step.id]
        take_locks_again(connection, behind, request.now)
        transitions.skip(connection, step.id, request.params["result"], request.reason, request.now)
    return [Advance(tuple(row.run.id for row in rows))]


# --- signal


def _read_signal(_host: Host, given: Mapping[str, Any]) -> dict[str, Any]:
    """The name of a wait, and a payload as JSON text; without one the payload is null."""
    return {
        "wait": _read_name("wait", given["wait"]),
        "payload": _read_json("payload", given["payload"]),
    }


def _find_wait_of_signal(
    connection: Connection, request: Request, row: RunWithSteps
) -> RunWithSteps:
    name = request.params["wait"]
    steps = transitions.look_at_steps(connection, row.run.id, name, request.now)
    return replace(row, steps=tuple(steps))


def _decide_signal(row: RunWithSteps, request: Request) -> Item | Skip:
    name = request.params["wait"]
    if not row.steps or row.steps[0].kind != "wait":
        return cannot(row, request, f"it has no wait {name}", "unknown_step")
    (wait,) = row.steps
    if wait.state != "deferred":
        return cannot(row, request, f"wait {name} is {wait.state}")
    note = None if wait.opened_at else "it is not open yet, and takes the signal when it opens"
    changes = (
        Change(f"wait {name}", "deferred", "finished"),
        Change("its result", None, request.params["payload"]),
    )
    return make_item(row, *changes, note=note)


def _apply_signal(
    connection: Connection, request: Request, rows: Sequence[RunWithSteps]
) -> list[Effect | Item]:
    for row in rows:
        (wait,) = row.steps
        assert wait.signals is not None
        payload = json.loads(request.params["payload"])
        signal = Signal(wait.signals[0], wait.key, payload, run=row.run.id, by=request.actor)
        store_signal(partial(transitions.run_sql, connection), request.host, signal)
    return [Advance(tuple(row.run.id for row in rows))]


# --- what several of them need


def _read_name(what: str, value: Any) -> str:
    if (
        isinstance(value, str)
        and 1 <= len(value) <= _LONGEST_NAME
        and not json_storage.complain(value)
    ):
        return value
    raise ValueError(f"{what} is the name of a {what} of the workflow; got {value!r:.100}")


def _read_json(what: str, value: Any) -> str:
    """The value as JSON text. Forms and commands send text; Python code may send any value."""
    if value in (None, ""):
        return "null"
    try:
        plain = json.loads(value) if isinstance(value, str) else value
        raw = json_storage.dump(plain)
        json_storage.check_readable(raw)
        json_storage.check_keys(plain)
    except (ValueError, json_storage.NotStorable) as why:
        raise ValueError(f'{what} is JSON such as {{"amount": 990}} or "a text": {why}') from None
    return raw.decode()


FindSteps = Callable[[Connection, Request, RunWithSteps], RunWithSteps]
_STEPS: Mapping[str, FindSteps] = {
    "workflow.retry": _find_steps_of_retry,
    "workflow.skip": _find_step_of_skip,
    "workflow.signal": _find_wait_of_signal,
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
)
