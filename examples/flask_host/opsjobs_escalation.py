"""Tells the people on call of incidents: it writes a ticket. See docs/escalation.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.dialects.postgresql import insert


class HostEscalation:
    """Writes one ticket for each episode of an incident, and notes on it what came later."""

    def escalate(self, facts: Mapping[str, Any]) -> str | None:
        """Write the ticket, or change it; return its number as the reference.

        A second call for the same event writes the same again, so it does no harm.
        """
        # `extensions` imports this module.
        from .extensions import db
        from .models import Ticket

        if facts["is_test"]:
            return "no ticket: this is a test"
        now = {name: facts[name] for name in ("event", "title", "why", "state", "path")}
        ticket = insert(Ticket).values(incident=facts["incident"], episode=facts["episode"], **now)
        written = ticket.on_conflict_do_update(constraint="ticket_of_episode", set_=now)
        number = db.session.scalar(written.returning(Ticket.id))
        db.session.commit()
        return f"ticket {number}"
