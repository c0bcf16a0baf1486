"""Reads what a decision's page shows: its values, its preview, its operation, its incidents and its jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from markupsafe import Markup
from sqlalchemy.orm import Session

from ...actions.domain import name_in, read_id_target
from ...actions.planning import find_preview
from ...actions.registry import ACTIONS, DOMAINS
from ...audit.queries import EventRow
from ...core.round_trips import StartedRead, start_reading
from ...jobs.lifecycle import STATES
from ...jobs.queries import list_states
from ...lifeline.queries import IncidentRow, find_incident
from ...operations.queries import ListedOperation, find_operation, list_handled_jobs
from ..actions.view import PreviewView
from ..app import access, links, pages
from ..app.display import PageDisplay
from ..app.host import host
from .diff import diff

_VIAS = {
    "page": "from the page",
    "cli": "from the command line",
    "python": "from Python",
    "system": "by itself",
}
# So many rows of an operation are looked at, and so many jobs of each state are named.
MOST_JOBS = 1_000
MOST_NAMED = 5


@dataclass(frozen=True)
class JobsSince:
    """What has become of the jobs of a decision: some ids of each state, and how many there are.

    `gone` are no longer stored. `left_out`: of an operation only the first `most` rows were looked at.
    """

    counts: Mapping[str, int]
    named: Mapping[str, Sequence[int]]
    gone: int
    left_out: bool
    most: int

    @property
    def total(self) -> int:
        """How many jobs were looked at."""
        return sum(self.counts.values()) + self.gone


@dataclass(frozen=True)
class Around:
    """What belongs to a decision. A part is empty when there is none, or the actor may not see it.

    `planned` is the preview as HTML; `is_preview_gone`: it was removed since.
    """

    planned: Markup | None
    is_preview_gone: bool
    operations: Sequence[ListedOperation]
    incidents: Sequence[IncidentRow]
    jobs: JobsSince | None


def detail_of(event: EventRow | None, display: PageDisplay) -> Mapping[str, Any]:
    """The template variables for the details of an event."""
    if event is None:
        return {"event": None}
    domain = event.action.partition(".")[0]
    own = [target for target in event.targets if target.partition("/")[0] == domain]
    own = own or list(event.targets)
    request_id = event.request_id
    is_searchable = request_id is not None and display.clean(request_id) == request_id
    return {
        "event": event,
        "via": _VIAS[event.via],
        "diff": diff(event.before, event.after, display, make_sees()),
        "page_url": _page_url,
        # Its own targets, and what it answers or starts.
        "targets": own,
        "related": [target for target in event.targets if target not in own],
        "is_searchable": is_searchable,
    }


def make_sees() -> Callable[[str], bool]:
    """A test whether the actor may see the payload of a target. It asks the policy once per target."""
    who = access.actor()
    assert who is not None  # checked before the view is called

    @cache
    def sees(target: str) -> bool:
        return access.holds(who, access.PAYLOAD, target)

    return sees


def read_around(session: Session, event: EventRow) -> Around:
    """Read what belongs to a decision, as far as it is stored and the actor may see it."""
    planning = start_reading(session, _show_preview, event)
    is_about_incident = event.action.startswith("incident.")
    answered = () if is_about_incident else _ids("incident", event)
    answering = [start_reading(session, find_incident, id_) for id_ in answered]
    own = start_reading(session, list_states, _ids("job", event))
    finding = [start_reading(session, find_operation, id_) for id_ in _ids("operation", event)]
    operations = [found.value for found in finding if found.value]
    jobs = _read_jobs(session, event, own, operations) if access.may("jobs.view") else None
    planned, incidents = planning.value, [found.value for found in answering if found.value]
    return Around(
        planned,
        event.preview_id is not None and planned is None,
        operations if access.may("operations.view") else (),
        incidents if access.may("lifeline.view") else (),
        jobs,
    )


def _show_preview(session: Session, event: EventRow) -> Markup | None:
    """What its actor was shown before: what would change and what is skipped. None when it is not stored."""
    if event.preview_id is None or event.action not in ACTIONS:
        return None
    preview = find_preview(session, host().secrets, event.preview_id, event.actor)
    if preview is None or preview.created_at != event.previewed_at:
        return None
    plan = preview.plan
    return pages.part(
        "audit/_planned.html",
        preview.created_at,
        display=PageDisplay(host().display, may_see=access.may_see_payload(*plan.targets)),
        view=PreviewView(preview, None, "open"),
        plan=plan,
        states=STATES,
        page_url=links.to_target,
    )


def _read_jobs(
    session: Session,
    event: EventRow,
    own: StartedRead[Mapping[int, str]],
    operations: Sequence[ListedOperation],
) -> JobsSince | None:
    """The jobs that a decision changed or made, as they are now; None without any."""
    if event.outcome != "done":
        return None
    listing, left_out = [], False
    for operation in operations:
        low, high = _rows_of(event, operation)
        most = min(high, low + MOST_JOBS - 1)
        listing.append(start_reading(session, list_handled_jobs, operation.id, low, most))
        left_out = left_out or high - low >= MOST_JOBS
    states: dict[int, str | None] = {**dict.fromkeys(_ids("job", event)), **own.value}
    for handled in listing:
        states |= handled.value
    if not states:
        return None
    named: dict[str, list[int]] = {}
    for id_, state in states.items():
        if state is not None:
            named.setdefault(state, []).append(id_)
    ordered = {state: named[state] for state in STATES if state in named}
    return JobsSince(
        {state: len(each) for state, each in ordered.items()},
        {state: each[:MOST_NAMED] for state, each in ordered.items()},
        sum(state is None for state in states.values()),
        left_out,
        MOST_JOBS,
    )


def _rows_of(event: EventRow, operation: ListedOperation) -> tuple[int, int]:
    """The first and last row that a decision is about: those of a stage, else all that were handled."""
    rows = event.after.get("rows") if isinstance(event.after, dict) else None
    if isinstance(rows, list) and len(rows) == 2 and all(isinstance(each, int) for each in rows):
        return rows[0], rows[1]
    return 1, operation.handled


def _ids(domain: str, event: EventRow) -> list[int]:
    targets = (target for target in event.targets if read_id_target(domain, target))
    return [int(name_in(target)) for target in targets]


def _page_url(target: str) -> str | None:
    """The address of a target's page; None when it has no page."""
    return links.to_target(target) if target.partition("/")[0] in DOMAINS else None
