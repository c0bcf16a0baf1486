"""Remembers in a host's session which jobs it enqueued, and acts once after its transaction."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

_log = logging.getLogger("flask_opsjobs")
_KEY = "flask_opsjobs.touched"
_COMMITTED = "flask_opsjobs.committed"
_WITNESSED = "flask_opsjobs.witnessed"

Acted = Callable[[list[Any]], None]


def touch(session: Session, act: Acted, note: Any) -> None:
    """Remember `note`, and call `act([notes…])` once the session's root transaction has been committed.

    Not at savepoints, since others see nothing yet; not inside the commit, since a full pool or an exception there
    would make the host's `commit()` raise although its data is safe. `act` may raise: it is logged.
    """
    _listen(session)
    session.info.setdefault(_KEY, {}).setdefault(act, []).append(note)


def witness(session: Session, act: Acted, note: Any) -> None:
    """As `touch`, but also when the root transaction is rolled back: evidence of what the host was told."""
    _listen(session)
    session.info.setdefault(_WITNESSED, {}).setdefault(act, []).append(note)


def _listen(session: Session) -> None:
    if not event.contains(session, "after_transaction_end", _after_transaction_end):
        event.listen(session, "after_commit", _after_commit)
        event.listen(session, "after_transaction_end", _after_transaction_end)


def _after_commit(session: Session) -> None:
    # Fires at the release of a savepoint too; only the root's counts.
    if not session.in_nested_transaction():
        session.info[_COMMITTED] = True


def _after_transaction_end(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is not None:
        return
    touched = session.info.pop(_KEY, {})
    witnessed = session.info.pop(_WITNESSED, {})
    if session.info.pop(_COMMITTED, False):
        _act(touched, "jobs are enqueued but could not be handed out now; the dispatch loop will")
    _act(witnessed, "the evidence of what was rejected could not be kept")


def _act(acts: dict[Acted, list[Any]], otherwise: str) -> None:
    for act, notes in acts.items():
        try:
            act(notes)
        except Exception:
            _log.exception(otherwise)
