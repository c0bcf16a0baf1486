"""Decides the removal of an orphan delivery. Redis was asked before, and is changed after the commit.

A target is `delivery/opsjobs-42-3`, as the RQ job is called in Redis: the delivery of job 42 under the
dispatch number 3.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..actions.domain import Action, Request, cannot, make_item, name_in, say_target
from ..actions.effects import Effect, Forget
from ..actions.shapes import Change, Item, Skip
from ..core.db import LARGEST_ID, Connection
from ..core.redis_facts import DeliveryPlace
from ..jobs import transitions as job_transitions
from . import transitions as delivery_transitions
from .lifecycle import sources_of
from .transitions import DeliveryNeed, Key

_TARGET = re.compile(r"delivery/opsjobs-([0-9]{1,19})-([0-9]{1,19})")
_PLACES = {
    "listed": "waits in the list",
    "parked": "was taken by a worker and not begun",
    "running": "is run by a worker, says RQ",
    "kept": "only its record is left",
}


@dataclass(frozen=True)
class DeliveryForDecision:
    """A delivery that Redis has, or whose Redis does not answer, and who needs it."""

    need: DeliveryNeed
    found: DeliveryPlace

    @property
    def target(self) -> str:
        """The delivery as the target of an action."""
        return f"delivery/{self.label}"

    @property
    def label(self) -> str:
        """The delivery for people: its id in Redis."""
        return f"opsjobs-{self.need.job_id}-{self.need.dispatch_no}"

    @property
    def state(self) -> str:
        """Its state, as the lifecycle names it."""
        if self.found.place == "unknown":
            return "unknown"
        if self.need.is_of_job or self.need.is_reserved:
            return "needed"
        return "running" if self.found.place == "running" else "orphan"


def read_target(text: str) -> str | None:
    """The target, such as `delivery/opsjobs-42-3`, when it is exactly that; None for any other text."""
    match = _TARGET.fullmatch(text)
    if match is None or max(int(match[1]), int(match[2])) > LARGEST_ID:
        return None
    return text if text == f"delivery/opsjobs-{int(match[1])}-{int(match[2])}" else None


def key_of(target: str) -> Key:
    """The job and the dispatch number of a target."""
    _, job_id, dispatch_no = name_in(target).split("-")
    return int(job_id), int(dispatch_no)


def lock_rows(connection: Connection, _request: Request, targets: Collection[str]) -> None:
    """Lock the jobs of these deliveries until the commit, so that none of them is dispatched or begins."""
    job_transitions.lock(connection, {key_of(target)[0] for target in targets})


def find_rows(
    connection: Connection, request: Request, targets: Collection[str]
) -> dict[str, DeliveryForDecision]:
    """Those of these deliveries that Redis had when it was asked, or whose Redis did not answer."""
    places = {target: found for target in targets if (found := request.in_redis.get(target))}
    needs = delivery_transitions.read(connection, [key_of(target) for target in places])
    by_key = {(need.job_id, need.dispatch_no): need for need in needs}
    return {
        target: DeliveryForDecision(by_key[key_of(target)], found)
        for target, found in places.items()
        if isinstance(found, DeliveryPlace)
    }


def say_unknown(target: str) -> str:
    """The sentence about a delivery that no Redis has."""
    return f"no Redis has the {say_target(target)}: nothing is left to remove"


def forbid(delivery: DeliveryForDecision, request: Request) -> Skip | None:
    """Why the delivery's state forbids the action; None when it allows it."""
    state, need = delivery.state, delivery.need
    if state in request.action.sources:
        return None
    if state == "unknown":
        why = "its Redis does not answer, so nobody knows where it is"
    elif state == "running":
        why = "RQ says that a worker runs it; the worker refuses or ends it"
    elif need.is_of_job:
        why = f"job {need.job_id} is {need.job_state}, and needs it"
    else:
        why = "a worker has it, says the heartbeat of the worker"
    return cannot(delivery, request, why)


def list_facts(delivery: DeliveryForDecision, _now: datetime) -> dict[str, Any]:
    """The values that must not have changed since the preview."""
    return {
        "state": delivery.state,
        "place": delivery.found.place,
        "queue": delivery.found.queue,
        "job_state": delivery.need.job_state,
        "job_dispatch_no": delivery.need.job_dispatch_no,
    }


def _decide_remove(delivery: DeliveryForDecision, _request: Request) -> Item | Skip:
    need, found = delivery.need, delivery.found
    job = f"job {need.job_id}"
    if need.job_state is None:
        why = f"{job} is deleted, or never was committed"
    elif need.job_dispatch_no == need.dispatch_no:
        why = f"{job} is {need.job_state}"
    else:
        why = f"{job} is {need.job_state}, under the dispatch number {need.job_dispatch_no}"
    before = f"queue {found.queue}: {_PLACES[found.place]}"
    return make_item(delivery, Change("in Redis", before, None), note=why)


def _apply_remove(
    _connection: Connection, _request: Request, deliveries: Sequence[DeliveryForDecision]
) -> list[Effect | Item]:
    return [
        Forget(tuple((each.found.queue or "default", *key_of(each.target)) for each in deliveries))
    ]


ACTIONS: tuple[Action[DeliveryForDecision], ...] = (
    Action(
        name="delivery.remove",
        title="Remove",
        sources=sources_of("remove"),
        risk="RQ forgets it. No job is lost, because no job needs it.",
        is_repair=True,
        asks_redis=True,
        decide=_decide_remove,
        apply=_apply_remove,
    ),
)
