"""Finds the host's runbook for a subject, and says what it needs first."""

from __future__ import annotations

from collections.abc import Sequence

from ..lifeline.queries import IncidentRow
from .bundle import Inquiry, Runbook


def find_runbook(inquiry: Inquiry, incidents: Sequence[IncidentRow]) -> Runbook | None:
    """The runbook for the class of the newest active incident about the subject that has one."""
    for incident in incidents:
        url = inquiry.host.settings.runbooks.get(incident.class_)
        if incident.is_active and url is not None:
            return Runbook(incident.class_, url)
    return None
