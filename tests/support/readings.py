"""Makes a reading of a session at any time, as a test chooses it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from flask_opsjobs.core.reading import Reading
from flask_opsjobs.core.round_trips import StartedRead


def reading_at(session: Session, now: datetime) -> Reading:
    """A reading whose clock says this."""
    return Reading(session, StartedRead(None, lambda: now))
