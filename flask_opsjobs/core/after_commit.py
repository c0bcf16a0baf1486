"""Collects notes in a host's session, such as enqueued jobs, and acts on them after its transaction."""

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

    `act` is not called when a savepoint is released: other connections see nothing of it yet. It is not
    called inside the commit: a full pool or an exception would make the host's `commit()` raise although its
    data is safe. An exception that `act` raises is logged.
    """
    _listen(session)
    session.info.setdefault(_AFTER_COMMIT, {}).setdefault(act, []).append(note)


def after_rollback_too(session: Session, act: Act, note: Any) -> None:
    """Do what `after_commit` does, also when the root transaction is rolled back.

    It is for evidence that must outlive a rollback, such as a rejected enqueue.
    """
    _listen(session)
    session.info.setdefault(_AFTER_ROLLBACK_TOO, {}).setdefault(act, []).append(note)


def _listen(session: Session) -> None:
    if not event.contains(session, "after_transaction_end", _after_transaction_end):
        event.listen(session, "after_commit", _after_commit)
        event.listen(session, "after_transaction_end", _after_transaction_end)


def _after_commit(session: Session) -> None:
    # SQLAlchemy also sends this event when a savepoint is released. Only the root transaction counts.
    if not session.in_nested_transaction():
        session.info[_COMMITTED] = True


def _after_transaction_end(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is not None:
        return
    of_commit = session.info.pop(_AFTER_COMMIT, {})
    of_either = session.info.pop(_AFTER_ROLLBACK_TOO, {})
    if session.info.pop(_COMMITTED, False):
        _act(of_commit, "jobs are enqueued but could not be dispatched now; the dispatch loop will")
    _act(of_either, "the evidence of rejected jobs could not be stored")


def _act(acts: dict[Act, list[Any]], otherwise: str) -> None:
    for act, notes in acts.items():
        try:
            act(notes)
        except Exception:
            _log.exception(otherwise)
