"""Remembers in a host's session which jobs it enqueued, and acts once after its transaction."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

_log = logging.getLogger("flask_opsjobs")
_AFTER_COMMIT = "flask_opsjobs.commit_notes"
_COMMITTED = "flask_opsjobs.committed"
_AFTER_ROLLBACK_TOO = "flask_opsjobs.after_rollback_too"

Act = Callable[[list[Any]], None]


def after_commit(session: Session, act: Act, note: Any) -> None:
    """Remember `note`, and call `act([notes…])` once the session's root transaction has been committed.

    Not at savepoints, since others see nothing yet; not inside the commit, since a full pool or an exception there
    would make the host's `commit()` raise although its data is safe. `act` may raise: it is logged.
    """
    _listen(session)
    session.info.setdefault(_AFTER_COMMIT, {}).setdefault(act, []).append(note)


def after_rollback_too(session: Session, act: Act, note: Any) -> None:
    """As `after_commit`, but also when the root transaction is rolled back: for evidence of what the host was told."""
    _listen(session)
    session.info.setdefault(_AFTER_ROLLBACK_TOO, {}).setdefault(act, []).append(note)


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
    of_commit = session.info.pop(_AFTER_COMMIT, {})
    of_either = session.info.pop(_AFTER_ROLLBACK_TOO, {})
    if session.info.pop(_COMMITTED, False):
        _act(of_commit, "jobs are enqueued but could not be dispatched now; the dispatch loop will")
    _act(of_either, "the evidence of what was rejected could not be kept")


def _act(acts: dict[Act, list[Any]], otherwise: str) -> None:
    for act, notes in acts.items():
        try:
            act(notes)
        except Exception:
            _log.exception(otherwise)
