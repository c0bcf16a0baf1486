"""What pages read about queues: which there are, and what an operator decided about them."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from .. import sql
from .models import Queue

_MOST = 200


def list_queue_names(session: Session) -> list[str]:
    """The queues that any job names, at most 200, in order."""
    rows = session.connection().exec_driver_sql(sql.load("list_queue_names"), {"limit": _MOST})
    return list(rows.scalars())


def list_paused_queues(session: Session) -> list[str]:
    """The queues from which nothing is handed out until somebody resumes them, at most 200, in order."""
    paused = select(Queue.name).where(Queue.is_paused).order_by(Queue.name).limit(_MOST)
    return list(session.scalars(paused))
