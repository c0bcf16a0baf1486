"""Lists what may be done next, in order: audited actions, the RQ bridge, follow-ups of the host."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

from ..actions.domain import Action, Request, name_in, say_target
from ..actions.planning import make_plan
from ..actions.registry import ACTIONS, DOMAINS, actions_of
from ..core.round_trips import StartedRead, start_reading, value_of
from ..core.words import moment
from ..escalations.queries import EscalationRow, find_last_escalations
from ..lifeline.queries import IncidentRow
from ..lifeline.repairs import Repair
from ..workflows.actions import actions_of_run
from ..workflows.queries import find_run_row
from .bundle import OWNERS, Inquiry, Late, Path, Told

# Actions are listed for so many targets of one subject, and of one repair.
_MOST_TARGETS = 3


def list_paths(
    inquiry: Inquiry, told: Told | None, incidents: StartedRead[Sequence[IncidentRow]]
) -> Sequence[Path]:
    """The paths of a subject, those of one owner together, in the order of `OWNERS`."""
    lists: list[Late[Sequence[Path]]] = []
    if told is not None and not told.is_gone:
        targets = (inquiry.subject, *told.targets)[:_MOST_TARGETS]
        lists += [told.repairs]
        for target in targets:
            if (offered := told.offered.get(target)) is None:
                lists += [inquiry.start(list_legal_actions, inquiry, target)]
            else:
                lists += [[make_path(inquiry, name, target) for name in offered]]
        lists += [told.paths]
    lists += [list(list_follow_ups(inquiry, incidents.value))]
    found = [path for each in lists for path in value_of(each)]
    order = list(OWNERS)
    return sorted(found, key=lambda path: order.index(path.kind))


def list_legal_actions(inquiry: Inquiry, target: str) -> Iterator[Path]:
    """The audited actions that the state of the target allows now, in the order of their buttons.

    The function that plans actions decides, without a lock. A repair is left out when it would do nothing.
    """
    domain = target.partition("/")[0]
    if domain not in DOMAINS or DOMAINS[domain].read_target(target) is None:
        return
    refusals = [
        (action, start_reading(inquiry, _find_refusal, action, target))
        for action in actions_of(domain)
    ]
    for action, refusal in refusals:
        if refusal.value is None:
            yield make_path(inquiry, action.name, target)


def list_repairs(inquiry: Inquiry, repairs: Sequence[Repair]) -> Iterator[Path]:
    """The repairs of an incident that can be done now, for its first targets."""
    judging = [
        (repair.action, target, start_reading(inquiry, _can_repair, repair.action, target))
        for repair in repairs
        if repair.action in ACTIONS
        for target in repair.targets[:_MOST_TARGETS]
    ]
    for name, target, can_repair in judging:
        if can_repair.value:
            yield make_path(inquiry, name, target)


def _can_repair(inquiry: Inquiry, name: str, target: str) -> bool:
    """Whether a repair can be done now; of a run, whether its page offers it: a plan reads all steps."""
    action = ACTIONS[name]
    if action.domain != "workflow":
        return _find_refusal(inquiry, action, target) is None
    run = find_run_row(inquiry.session, int(name_in(target)))
    return run is not None and action in actions_of_run(run)


def _find_refusal(inquiry: Inquiry, action: Action[Any], target: str) -> str | None:
    connection: Any = inquiry.session.connection().connection.driver_connection
    request = Request(
        inquiry.host,
        action,
        (target,),
        {},
        "forensics",
        "page",
        is_trusted=True,
        now=inquiry.now,
    )
    if not action.params:
        skipped = make_plan(connection, request).skipped
        return skipped[0].says if skipped else None
    # Without its values only the state can be judged.
    domain = DOMAINS[action.domain]
    row = domain.find_rows(connection, request, [target]).get(target)
    if row is None:
        return domain.say_unknown(target)
    skip = domain.forbid(row, request)
    return skip.says if skip else None


def make_path(inquiry: Inquiry, name: str, target: str, title: str | None = None) -> Path:
    """The path of an audited action that is legal now."""
    action = ACTIONS[name]
    is_allowed = inquiry.may(action.permission)
    says = action.on(say_target(target))
    return Path(
        kind="action",
        title=title or f"{says[:1].upper()}{says[1:]}",
        says=action.risk,
        action=action.name,
        target=target,
        refusal=None if is_allowed else f"it needs {action.permission}",
    )


def list_follow_ups(inquiry: Inquiry, incidents: Sequence[IncidentRow]) -> Iterator[Path]:
    """What the host does about each incident that is active, with what is known of the call to it."""
    active = [incident for incident in incidents if incident.is_active]
    episodes = {incident.id: incident.episode for incident in active}
    escalations = find_last_escalations(inquiry.session, episodes)
    for incident in active:
        status, says = _say_escalation(inquiry, escalations.get(incident.id))
        yield Path(
            kind="follow_up",
            title=f"Tell the people who are on call for incident {incident.id}",
            says=says,
            target=f"incident/{incident.id}",
            status=status,
        )


def _say_escalation(inquiry: Inquiry, row: EscalationRow | None) -> tuple[str | None, str]:
    """One of `STATUSES` and a sentence; None while nothing is known of a call."""
    if row is None and inquiry.host.escalation is None:
        return "unconfigured", "The application has no escalation policy."
    if row is None:
        return None, "Nobody was called: no call is due. The guide says what is told."
    if row.state == "pending":
        return None, f"The policy is to be called, or is being called, since {moment(row.at)}."
    if row.state == "invoked":
        reference = f", reference {row.reference}" if row.reference else ""
        return "invoked", f"Called at {moment(row.at)}{reference}."
    if row.state == "failed":
        return "failed", f"The call failed at {moment(row.at)}: {row.why}"
    return "unconfigured", "The application has no escalation policy."


def bridge(inquiry: Inquiry, place: str, rq_id: str, says: str = "") -> Path:
    """The look at a delivery, or at a plain RQ job, in RQ's own view, by the name of its Redis."""
    refusal = None if inquiry.may("bridge.view") else "it needs bridge.view"
    if not inquiry.host.bridge.is_mounted:
        refusal = inquiry.host.bridge.says.removesuffix(".").replace("The", "the", 1)
    return Path(
        kind="bridge",
        title=f"Look at {rq_id} in RQ",
        says=says,
        # A place has slashes, as an address of Redis does, and an id may have some too.
        target=f"rq/{place}/{quote(rq_id, safe='')}",
        refusal=refusal,
    )
