"""Shows one incident: diagnosis, episodes, what changed before, evidence, affected jobs, and repairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Response
from markupsafe import Markup

from ...actions.registry import ACTIONS
from ...audit.queries import list_events_of
from ...audit.verify import find_chain_fault
from ...core.reading import Reading
from ...core.round_trips import start_reading
from ...escalations.queries import list_escalations
from ...jobs.queries import list_rows
from ...lifeline import actions as incident_actions
from ...lifeline import queries
from ...lifeline.detectors import DETECTORS, detector_of
from ...lifeline.queries import IncidentRow
from ...notes.queries import list_notes
from ..app import access, links, pages, problems
from ..app.host import reading
from ..notes.view import form_of
from .episodes_svg import draw_episodes
from .steps import steps_of

_MOST_SHOWN = 20
_MORNING = 8


def incident_page(incident_id: str) -> Response:
    """The document."""
    with reading() as read:
        row = _find(read, incident_id)
        made = _part(read, row)
    return pages.page(
        "incident/page.html",
        "lifeline",
        f"Incident {row.id}",
        read.now,
        live=made,
        row=row,
        detector=detector_of(row.class_),
        is_declared=row.class_ in DETECTORS,
        acknowledge=ACTIONS["incident.acknowledge"],
        morning=_next_morning(read.now),
        **form_of(f"incident/{row.id}"),
    )


def incident_live(incident_id: str) -> Response:
    """The fragment that refreshes."""
    with reading() as read:
        made = _part(read, _find(read, incident_id))
    return pages.fragment(made)


def _next_morning(now: datetime) -> datetime:
    """The next time that it is 8 o'clock in UTC, at least an hour from now."""
    morning = now.astimezone(UTC).replace(hour=_MORNING, minute=0, second=0, microsecond=0)
    return morning if morning - now >= timedelta(hours=1) else morning + timedelta(days=1)


def _find(read: Reading, incident_id: str) -> IncidentRow:
    target = incident_actions.read_target(f"incident/{incident_id}")
    row = None
    if target is not None:
        row = queries.find_incident(read.session, int(target.removeprefix("incident/")))
    if row is None:
        raise problems.no_such_row("incident", incident_id)
    return row


def _part(read: Reading, row: IncidentRow) -> Markup:
    may_audit, may_jobs = access.may("audit.view"), access.may("jobs.view")
    known = [int(job) for job in row.facts.get("jobs") or ()]
    more: dict[str, Any] = {
        "notes": start_reading(read.session, list_notes, f"incident/{row.id}"),
        "escalations": start_reading(read.session, list_escalations, row.id),
        "evidence": start_reading(read.session, queries.list_evidence, row.id, row.episode),
        "jobs": start_reading(read.session, list_rows, known[:_MOST_SHOWN])
        if known and may_jobs
        else (),
        "cause": start_reading(read.session, queries.find_incident, row.because_of)
        if row.because_of
        else None,
        "followers": start_reading(read.session, queries.list_followers, row.id),
        "chain_fault": start_reading(read.session, find_chain_fault) if may_audit else None,
    }
    listing = start_reading(read.session, queries.list_episodes, row)
    deciding = (
        start_reading(read.session, list_events_of, f"incident/{row.id}") if may_audit else None
    )
    changes = [
        change
        for change in queries.list_changes_before(read.session, row)
        if may_audit or change.kind != "decision"
    ]
    events, episodes = deciding.value if deciding else None, listing.value
    decided = [change.at for change in changes if change.kind == "decision"]
    decided += [event.at for event in events or ()]
    is_whole = max(1, row.affected, len(known)) == len(known) <= _MOST_SHOWN
    return pages.part(
        "incident/_live.html",
        read.now,
        row=row,
        detector=detector_of(row.class_),
        runbook=links.runbook_of(f"incident/{row.id}", [row.class_]),
        steps=steps_of(row),
        acknowledge=ACTIONS["incident.acknowledge"],
        unacknowledge=ACTIONS["incident.unacknowledge"],
        resolve=ACTIONS["incident.resolve"],
        to_action=links.to_action,
        target=f"incident/{row.id}",
        episodes=episodes,
        drawn=draw_episodes(episodes, decided, read.now) if episodes else "",
        changes=changes,
        many_jobs=None if is_whole else max(row.affected, len(known)),
        search=_search(row.facts) if may_jobs and not is_whole else None,
        places=list(_places(row.facts)),
        events=events,
        **more,
    )


@dataclass(frozen=True)
class SearchOfJobs:
    """A search for the jobs of an incident whose page does not list all: whose they are, and its fields."""

    whose: str
    query: Mapping[str, Any]


def _search(facts: Mapping[str, Any]) -> SearchOfJobs | None:
    """The search that finds the jobs; None when what is known of them is no search."""
    for names in (("failure",), ("batch",), ("worker",), ("workflow",), ("task", "queue")):
        if query := {name: facts[name] for name in names if facts.get(name)}:
            return SearchOfJobs(" in ".join(f"this {name}" for name in query), query)
    return None


# The facts that have a page: how each is called, what it is, and the permission to see it.
_PLACES = {
    "failure": ("Failure", "failure", "lifeline.view"),
    "parent": ("Waits for", "job", "jobs.view"),
    "queue": ("Queue", "queue", "queues.view"),
    "worker": ("Worker", "worker", "workers.view"),
    "cron": ("Cron", "cron", "cron.view"),
    "limiter": ("Limiter", "limiter", "limiters.view"),
    "workflow": ("Workflow", "workflow", "workflows.view"),
    "batch": ("Batch", "batch", "batches.view"),
    "operation": ("Operation", "operation", "operations.view"),
}


def _places(facts: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What the incident is about: how that is called, its name, and the address of its page."""
    for name, (called, domain, permission) in _PLACES.items():
        if facts.get(name) and access.may(permission):
            yield called, str(facts[name]), links.to_target(f"{domain}/{facts[name]}")
