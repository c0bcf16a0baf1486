"""Writes an operator's decisions about incidents: acknowledge, take that back, and resolve.

Every function runs in the caller's transaction. Call `lock` first: then no pass of a detector decides about
the incidents until the commit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import class_row

from ..core import sql
from ..core.db import Connection
from .detectors import DETECTORS
from .incidents import IncidentNews, NewEvidence, keep_evidence, words_of
from .repairs import repairs_of

# So many active incidents are read to find those that an action answers.
_MOST_READ = 1_000


@dataclass(frozen=True)
class IncidentForDecision:
    """The columns of an incident that a decision needs."""

    id: int
    class_: str
    subject: str
    severity: str
    state: str
    episode: int
    opened_at: datetime
    seen_at: datetime
    missed_passes: int
    affected: int
    facts: Mapping[str, Any]
    acknowledged_by: str | None
    acknowledged_until: datetime | None

    @property
    def target(self) -> str:
        """The incident as the target of an action: `incident/7`."""
        return f"incident/{self.id}"

    @property
    def label(self) -> str:
        """The incident for people: its title."""
        return words_of(self.class_, self.facts).title

    @property
    def is_still_true(self) -> bool:
        """Whether the last complete pass that looked for it found it. Nobody looks for an unknown class."""
        return self.class_ in DETECTORS and self.missed_passes == 0

    @property
    def news(self) -> IncidentNews:
        """What its end tells the log and receivers of signals."""
        return IncidentNews(
            self.id, self.class_, self.subject, self.severity, self.episode, self.label
        )


def find_answered(connection: Connection, repair: str, targets: Collection[str]) -> list[str]:
    """The active incidents that list this repair for one of these targets, the oldest first.

    The repair of a whole failure has the failure as its target. Locks nothing.
    """
    classes = [name for name, detector in DETECTORS.items() if repair in detector.repairs]
    if not classes:
        return []
    values = {"classes": classes, "limit": _MOST_READ}
    rows = connection.execute(sql.load("list_active_incidents"), values)
    wanted = set(targets)
    return [
        f"incident/{id_}"
        for id_, class_, facts in rows
        if not wanted.isdisjoint(_targets_of(class_, facts, repair))
    ]


def _targets_of(class_: str, facts: Mapping[str, Any], repair: str) -> Collection[str]:
    found = {each for of in repairs_of(class_, facts) if of.action == repair for each in of.targets}
    return found | {f"failure/{facts['failure']}"} if facts.get("failure") else found


def lock(connection: Connection, incidents: Iterable[int]) -> None:
    """Lock these incidents, by fingerprint, as passes do: after jobs, before the head of the audit."""
    connection.execute(sql.load("lock_incidents"), {"ids": list(incidents)})


def look(connection: Connection, incidents: Iterable[int]) -> list[IncidentForDecision]:
    """Those of these incidents that exist, in id order. Locks nothing."""
    with connection.cursor(row_factory=class_row(IncidentForDecision)) as cursor:
        found = cursor.execute(sql.load("look_at_incidents"), {"ids": list(incidents)})
        return found.fetchall()


def acknowledge(
    connection: Connection,
    incidents: Sequence[int],
    until: datetime,
    actor: str,
    reason: str,
    now: datetime,
) -> None:
    """Acknowledge incidents until a time, as severe as they are now and with as many affected."""
    values = {"ids": incidents, "until": until, "actor": actor, "reason": reason, "now": now}
    connection.execute(sql.load("acknowledge_incidents"), values)


def unacknowledge(connection: Connection, incidents: Sequence[int]) -> None:
    """Take acknowledgements back."""
    connection.execute(sql.load("lapse_acknowledgements"), {"ids": incidents})


def resolve(connection: Connection, incidents: Sequence[int], now: datetime) -> None:
    """End incidents by a person's decision."""
    values = {"ids": incidents, "bys": ["operator"] * len(incidents), "now": now}
    connection.execute(sql.load("resolve_incidents"), values)


def note(connection: Connection, evidence: Sequence[NewEvidence]) -> None:
    """Keep in the evidence what a person decided."""
    keep_evidence(connection, evidence)
