"""Folds batches: adds up the appended counts of their members, and ends them after their last member.

A statement that adds or ends members only appends a row. `fold` comes after its commit, in a transaction of
its own, and reads committed rows only.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from .. import signals
from ..core import sql
from ..core.db import Connection
from . import callbacks
from .transitions import stop
from .turn import Advanced, one, patience_of

# One call folds at most this many appended rows, and stops at most this many members.
MOST_EVENTS = 10_000
MOST_MEMBERS = 1_000
# So many closed batches are looked at in one pass of the loop.
_MOST_LOOKED_AT = 1_000


def fold(connection: Connection, batch: int, now: datetime | None = None) -> Advanced | None:
    """Fold the appended counts of a batch, and end it when its last member has ended, in one transaction.

    Of a canceled batch, first ends members that wait and asks for the started ones to be stopped. `now` is
    Postgres' clock under the lock, unless it is given. Returns None when the batch is gone, or is locked by
    somebody who folds or closes it; never waits for the lock. A host's open transaction that adds members
    does not hinder it, but the batch does not end before that one. Commits unless the caller has a
    transaction. Raises what Postgres raises, `LockNotAvailable` when a member is locked for more than 0.1 s;
    then nothing was written.
    """
    patience = patience_of(connection)
    with signals.once_committed(), connection.transaction():
        found = one(connection, "lock_batch_to_fold", id=batch, now=now, patience=patience)
        if found is None:
            connection.execute(sql.load("forget_batch_end_events"), {"id": batch})
            return None
        return _Turn(connection, batch, found).make()


def list_batches_to_fold(
    connection: Connection, limit: int = 100, after: int = 0, looked_after: int = 0
) -> list[int]:
    """The batches that can be folded, at most `limit` after the batch `after`, in id order. Locks nothing.

    Closed batches for which no row was appended are found among the next 1,000 after `looked_after`.
    """
    values = {"limit": limit, "after": after, "looked_after": looked_after, "most": _MOST_LOOKED_AT}
    return [batch for (batch,) in connection.execute(sql.load("list_batches_to_fold"), values)]


def find_end_of_look(connection: Connection, looked_after: int) -> int:
    """The last of the closed batches that `list_batches_to_fold` looks at; 0 when there are no others."""
    values = {"after": looked_after, "most": _MOST_LOOKED_AT}
    found = connection.execute(sql.load("find_end_of_look_at_batches"), values).fetchone()
    return 0 if found is None else int(found[0])


class _Turn:
    """One call of `fold`, under the batch's lock."""

    def __init__(self, connection: Connection, batch: int, found: dict[str, Any]) -> None:
        self._connection = connection
        self._batch = batch
        self._found = found
        self._now: datetime = found["now"]
        self._has_failed = found["first_failed_at"] is not None
        self._lanes: list[tuple[str, str]] = []

    def make(self) -> Advanced:
        """Make the whole turn."""
        stopped = self._stop_members()
        events = self._add_up()
        has_ended = self._end()
        if self._found["trouble"] is not None:
            self._run_sql("note_trouble_of_batch", trouble=None)
        return Advanced(
            lanes=tuple(self._lanes),
            has_more=stopped == MOST_MEMBERS or events >= MOST_EVENTS,
            is_idle=not (stopped or events or has_ended),
        )

    def _stop_members(self) -> int:
        """End the waiting members of a canceled batch, and ask for the started ones to be stopped."""
        found = self._found
        if found["state"] != "running" or found["cancel_requested_at"] is None:
            return 0
        values = {"id": self._batch, "limit": MOST_MEMBERS}
        states = dict(self._connection.execute(sql.load("list_members_to_stop"), values).fetchall())
        if states:
            actor, reason = found["cancel_requested_by"], found["cancel_reason"]
            stop(self._connection, states, actor, reason, self._now)
        return len(states)

    def _add_up(self) -> int:
        """Fold appended rows, and report a failure among them; returns how many rows there were."""
        folded = self._one("fold_batch_end_events", now=self._now, limit=MOST_EVENTS)
        assert folded is not None
        if folded["has_failed"]:
            self._report_failure(self._found)
        number: int = folded["events"]
        return number

    def _end(self) -> bool:
        """End a closed batch when its last member has ended, and enqueue its callback."""
        if self._found["state"] != "running" or self._one("lock_batch_to_end") is None:
            return False
        ended = self._one("end_batch", now=self._now)
        if ended is None:
            return False
        if ended["state"] == "failed":
            self._report_failure(ended)
        signals.send(
            signals.batch_ended, batch_id=self._batch, name=ended["name"], state=ended["state"]
        )
        self._report("end", ended["on_end"], ended)
        return True

    def _report_failure(self, batch: dict[str, Any]) -> None:
        """Report the first failure, unless it was reported before."""
        if not self._has_failed:
            self._has_failed = True
            self._report("failure", self._found["on_failure"], batch)

    def _report(self, event: str, call: dict[str, Any] | None, batch: dict[str, Any]) -> None:
        if call is None:
            return
        facts = {
            "batch_id": self._batch,
            "name": batch["name"],
            "state": batch["state"],
            "end_no": batch["end_no"],
            "counts": self._one("read_batch_counts"),
            "meta": batch["meta"],
        }
        subject, end_no = ("batch", self._batch), batch["end_no"]
        lane = callbacks.report_end(
            self._connection, call, subject, end_no, event, facts, self._now
        )
        self._lanes += [] if lane is None else [lane]

    def _one(self, statement: str, **values: Any) -> dict[str, Any] | None:
        return one(self._connection, statement, id=self._batch, **values)

    def _run_sql(self, statement: str, **values: Any) -> None:
        self._connection.execute(sql.load(statement), {"id": self._batch, **values})
