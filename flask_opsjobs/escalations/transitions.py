"""Writes escalations: begins those that the quiet rules ask for, with their jobs, and ends them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from ..core import sql
from ..core.db import Connection
from ..host import Host, Sending
from ..jobs.record.enqueue import load_for
from ..lifeline.lifecycle import SEVERITIES
from ..lifeline.repairs import repairs_of
from .decide import FLAP_WITHIN, REMIND_AFTER, IncidentToEscalate, choose_event
from .lifecycle import QUEUE, TASK

# A call is given up after so long.
CALL_SECONDS = 30
MOST_ATTEMPTS = 5
# The waits before the next attempt. A person waits for it, so the first ones are short.
_BACKOFF_SECONDS = (10.0, 30.0, 120.0, 600.0)
_MOST_INCIDENTS = 500


@dataclass(frozen=True)
class EndedEscalation:
    """An escalation whose state was written: what was told, of what."""

    incident: int
    episode: int
    event: str


def backoff_seconds(attempt: int) -> float:
    """The seconds to wait after this attempt, from 1, failed."""
    return _BACKOFF_SECONDS[min(attempt, len(_BACKOFF_SECONDS)) - 1]


def begin(connection: Connection, host: Host, now: datetime) -> list[int]:
    """Begin what is to be told now, each event once; return the ids of the new escalations.

    With a policy, each has a job on the queue `opsjobs`. Commits unless the caller has a transaction.
    """
    escalate_from, is_configured = host.settings.escalate_from, host.escalation is not None
    rows = _list_incidents(connection, escalate_from, now)
    wanted = [(row, event) for row in rows if (event := choose_event(row[1], escalate_from, now))]
    if not wanted:
        return []
    values = {
        "incidents": [found["id"] for (found, _, _), _ in wanted],
        "episodes": [found["episode"] for (found, _, _), _ in wanted],
        "events": [event for _, event in wanted],
        "repairs": [
            Jsonb(repair) if event == "repaired" else None for (_, _, repair), event in wanted
        ],
        "is_configured": is_configured,
        "max_attempts": MOST_ATTEMPTS,
        "timeout_seconds": CALL_SECONDS,
        "now": now,
    }
    sending = host.telemetry.sending(TASK, QUEUE) if is_configured else nullcontext(Sending())
    with sending as sent:
        values |= sent.columns
        begun = connection.execute(load_for("open_escalations", values), values).fetchall()
        sent.count = len(begun)
        sent.because_of += [(trace[0], trace[1]) for _, *trace in begun if any(trace)]
    return [id for id, *_ in begun]


_Found = tuple[dict[str, Any], IncidentToEscalate, dict[str, Any] | None]


def _list_incidents(connection: Connection, escalate_from: str, now: datetime) -> list[_Found]:
    severe = SEVERITIES[: SEVERITIES.index(escalate_from) + 1]
    values = {
        "severities": list(severe),
        "remind_after": REMIND_AFTER.total_seconds(),
        "flap_within": FLAP_WITHIN.total_seconds(),
        "now": now,
        "limit": _MOST_INCIDENTS,
    }
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(sql.load("list_incidents_to_escalate"), values).fetchall()
    found = []
    for row in rows:
        repair = _find_repair(connection, row) if row["state"] == "resolved" else None
        incident = IncidentToEscalate(
            class_=row["class"],
            severity=row["severity"],
            state=row["state"],
            has_cause=row["has_cause"],
            told=row["told"],
            told_at=row["told_at"],
            episodes=row["episodes"],
            flapped_at=row["flapped_at"],
            is_repaired=repair is not None,
        )
        found.append((row, incident, repair))
    return found


def _find_repair(connection: Connection, row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The action that repaired the incident, and who did it; None when none is known."""
    repairs = repairs_of(row["class"], row["facts"])
    if not repairs:
        return None
    # A decision names the incidents that it answers. Their facts change with it: jobs that were rescued are
    # not in them any more.
    names = (f"incident/{row['id']}", row["subject"])
    values = {
        "actions": [repair.action for repair in repairs],
        "targets": [*names, *(each for repair in repairs for each in repair.targets)],
        "worker": row["facts"].get("worker", ""),
        "opened_at": row["opened_at"],
        "resolved_at": row["resolved_at"],
    }
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(sql.load("find_repair"), values).fetchone()


def read(connection: Connection, escalation: int) -> dict[str, Any] | None:
    """The escalation with its incident, as its facts are made of it; None when it was removed."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(sql.load("read_escalation"), {"id": escalation}).fetchone()


def end(
    connection: Connection,
    escalation: int,
    state: str,
    now: datetime,
    *,
    reference: str | None = None,
    why: str | None = None,
) -> EndedEscalation | None:
    """Write what came of the last attempt: `invoked`, `failed`, or `pending` when it is tried again.

    None when it had been invoked before, or was removed. Commits unless the caller has a transaction.
    """
    values = {"id": escalation, "state": state, "reference": reference, "why": why, "now": now}
    row = connection.execute(sql.load("end_escalation"), values).fetchone()
    return None if row is None else EndedEscalation(*row)


def settle(connection: Connection, now: datetime) -> list[EndedEscalation]:
    """End as failed what waits for a job that has ended without a call. Commits."""
    rows = connection.execute(sql.load("settle_escalations"), {"now": now}).fetchall()
    return [EndedEscalation(*row) for row in rows]
