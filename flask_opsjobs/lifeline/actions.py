"""Decides and applies the actions on incidents, with the writes of `lifeline`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from ..actions.domain import (
    Action,
    Request,
    cannot,
    exact,
    make_item,
    make_skip,
    moment_in_words,
    name_in,
    read_id_target,
    say_target,
)
from ..actions.effects import AnnounceResolved, Effect
from ..actions.shapes import Change, Item, Skip
from ..actions.until import find_until, read_until
from ..core.db import Connection
from . import transitions
from .finding import Observation
from .incidents import NewEvidence
from .lifecycle import ACTIVE
from .transitions import IncidentForDecision

LONGEST = timedelta(days=30)


# --- targets and rows


def read_target(text: str) -> str | None:
    """The target in its canonical form, `incident/7`; None when the text names no incident."""
    return read_id_target("incident", text)


def lock_rows(connection: Connection, _request: Request, targets: Collection[str]) -> None:
    """Lock these incidents until the commit, by fingerprint. No detector decides about them meanwhile."""
    transitions.lock(connection, [int(name_in(target)) for target in targets])


def find_rows(
    connection: Connection, _request: Request, targets: Collection[str]
) -> dict[str, IncidentForDecision]:
    """Those of these incidents that exist, in id order."""
    found = transitions.look(connection, [int(name_in(target)) for target in targets])
    return {incident.target: incident for incident in found}


def say_unknown(target: str) -> str:
    """The sentence about an incident that does not exist."""
    return f"there is no {say_target(target)}"


def forbid(incident: IncidentForDecision, request: Request) -> Skip | None:
    """Why the incident's state forbids the action; None when it allows it."""
    if incident.state in request.action.sources:
        return None
    if request.action.short_name == "unacknowledge" and incident.state == "open":
        return make_skip(incident, "already", f"nobody has acknowledged incident {incident.id}")
    return cannot(incident, request, f"it is {incident.state}")


def list_facts(incident: IncidentForDecision, _now: datetime) -> dict[str, Any]:
    """The values that must not have changed since the preview.

    Not how many are affected: that changes from pass to pass.
    """
    return {
        "state": incident.state,
        "episode": incident.episode,
        "severity": incident.severity,
        "acknowledged_until": exact(incident.acknowledged_until),
    }


def _note(
    connection: Connection,
    request: Request,
    incidents: Sequence[IncidentForDecision],
    audit_sequence: int,
) -> None:
    """Keep the decision in the evidence of the incidents."""
    facts: dict[str, Any] = {"by": request.actor}
    if "until" in request.params:
        facts["until"] = exact(_until(request))
    seen = Observation(f"{request.action.short_name}d", "operator", facts)
    transitions.note(
        connection,
        [
            NewEvidence(each.id, each.episode, request.now, seen, audit_sequence)
            for each in incidents
        ],
    )


# --- acknowledge


def _read_until(request: Request) -> dict[str, Any]:
    return {"until": read_until(request.params["until"], LONGEST)}


def _until(request: Request) -> datetime:
    return find_until(request.params["until"], request.now)


def _decide_acknowledge(incident: IncidentForDecision, request: Request) -> Item | Skip:
    until = _until(request)
    if not request.now < until <= request.now + LONGEST:
        when = moment_in_words(until)
        return cannot(
            incident, request, f"{when} is not within the next {LONGEST.days} days", "until"
        )
    before = None
    if incident.acknowledged_until is not None:
        before = (
            f"until {moment_in_words(incident.acknowledged_until)}, by {incident.acknowledged_by}"
        )
    worse = [] if incident.severity == "critical" else ["until it turns critical"]
    worse += [f"or until it affects {2 * max(incident.affected, 1):,}"]
    return make_item(
        incident,
        Change("acknowledged", before, f"until {moment_in_words(until)}"),
        note=", ".join(["it stays open and calls nobody until then", *worse]),
    )


def _apply_acknowledge(
    connection: Connection, request: Request, incidents: Sequence[IncidentForDecision]
) -> list[Effect | Item]:
    until, ids = _until(request), [incident.id for incident in incidents]
    transitions.acknowledge(connection, ids, until, request.actor, request.reason, request.now)
    return []


# --- unacknowledge


def _decide_unacknowledge(incident: IncidentForDecision, _request: Request) -> Item | Skip:
    return make_item(incident, Change("state", "acknowledged", "open"))


def _apply_unacknowledge(
    connection: Connection, _request: Request, incidents: Sequence[IncidentForDecision]
) -> list[Effect | Item]:
    transitions.unacknowledge(connection, [incident.id for incident in incidents])
    return []


# --- resolve


def _decide_resolve(incident: IncidentForDecision, request: Request) -> Item | Skip:
    if incident.is_still_true:
        why = f"it is still true, as of {moment_in_words(incident.seen_at)}; acknowledge it instead"
        return cannot(incident, request, why, "still_true")
    return make_item(incident, Change("state", incident.state, "resolved"))


def _apply_resolve(
    connection: Connection, request: Request, incidents: Sequence[IncidentForDecision]
) -> list[Effect | Item]:
    transitions.resolve(connection, [incident.id for incident in incidents], request.now)
    return [AnnounceResolved(tuple(incident.id for incident in incidents))]


# In the order of their buttons.
ACTIONS: tuple[Action[IncidentForDecision], ...] = (
    Action(
        name="incident.acknowledge",
        title="Acknowledge",
        sources=ACTIVE,
        risk="It stays open, shows no badge and calls nobody, until the time or until it gets worse.",
        params=("until",),
        read_params=_read_until,
        decide=_decide_acknowledge,
        apply=_apply_acknowledge,
        note=_note,
    ),
    Action(
        name="incident.unacknowledge",
        title="Unacknowledge",
        phrase="take the acknowledgement of {} back",
        permission_name="incident.acknowledge",
        sources=("acknowledged",),
        risk="It shows its badge again.",
        decide=_decide_unacknowledge,
        apply=_apply_unacknowledge,
        note=_note,
    ),
    Action(
        name="incident.resolve",
        title="Resolve",
        sources=ACTIVE,
        risk="It counts as over. The same finding opens it again.",
        decide=_decide_resolve,
        apply=_apply_resolve,
        note=_note,
    ),
)
