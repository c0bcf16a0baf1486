"""Every action on an operation in every state, read from the lifecycle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest

from flask_opsjobs import JobFilter
from flask_opsjobs.actions.domain import Action
from flask_opsjobs.actions.registry import actions_of
from flask_opsjobs.operations.lifecycle import ARROWS, STATES
from tests.operations.conftest import WHY, Operations
from tests.operations.test_operate import Changing

WAITING = JobFilter(queue="default")
AFTER = {"start": "running", "pause": "paused", "resume": "running", "cancel": "canceled"}


def _start(operations: Operations) -> int:
    started = operations.operator.start("job.cancel", WAITING, **WHY)
    assert started.id is not None
    operations.pass_once()
    return started.id


def draft(operations: Operations) -> None:
    operations.operator.draft("job.cancel", WAITING, actor="anna")


def expired(operations: Operations) -> None:
    draft(operations)
    operations.later(timedelta(minutes=16))
    operations.pass_all()


def running(operations: Operations) -> None:
    _start(operations)


def paused(operations: Operations) -> None:
    operations.operator.pause_operation(_start(operations), **WHY)


def canceled(operations: Operations) -> None:
    operations.operator.cancel_operation(_start(operations), **WHY)


def finished(operations: Operations) -> None:
    _start(operations)
    operations.run()


def stopped(operations: Operations) -> None:
    _start(operations)
    allowing, operations.bench.host.access = operations.bench.host.access, Changing()
    operations.bench.host.access.denied = {"job.cancel"}
    operations.run()
    operations.bench.host.access = allowing


REACH: Mapping[str, Callable[[Operations], None]] = {
    function.__name__: function
    for function in (draft, running, paused, finished, stopped, canceled, expired)
}


def test_every_state_is_reached() -> None:
    assert {*REACH} == {*STATES}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(
    "action", actions_of("operation"), ids=lambda action: str(action.short_name)
)
def test_each_action_on_each_state(operations: Operations, action: Action[Any], state: str) -> None:
    operations.enqueue(20)
    REACH[state](operations)
    before = operations.operation()
    assert before["state"] == state
    (arrow,) = [arrow for arrow in ARROWS if arrow.name == action.short_name]
    params = dict.fromkeys(action.params)
    receipt = operations.operator.run(action.name, ["operation/1"], params=params, **WHY)
    after = operations.operation(1)
    assert receipt.is_done == (state in arrow.sources)
    if not receipt.is_done:
        assert receipt.code == "illegal"
        assert receipt.says.endswith(f"operation 1: it is {state}")
        assert after == before
    elif action.short_name == "undo":
        assert after == before
        new = operations.operation()
        assert (new["undo_of"], new["state"], new["action"]) == (1, "running", "job.retry")
        assert new["targets"] == before["done"]
    else:
        assert after["state"] == AFTER[action.short_name]
        assert after["state"] in arrow.targets


@pytest.mark.parametrize("action", ["start", "resume", "undo"])
def test_who_may_not_do_its_action_may_not_let_it_begin(
    operations: Operations, action: str
) -> None:
    """It needs the permission of the action on jobs too; of an undo, that of the opposite action."""
    operations.enqueue(3)
    {"start": draft, "resume": paused, "undo": finished}[action](operations)
    policy: Any = Changing()
    policy.denied = {"job.retry" if action == "undo" else "job.cancel"}
    operations.bench.host.access = policy
    params = {"rate": None} if action == "start" else {}
    receipt = operations.operator.run(f"operation.{action}", ["operation/1"], params=params, **WHY)
    assert receipt.says.endswith(f"operation 1: it needs {next(iter(policy.denied))}")
    assert not receipt.is_done
