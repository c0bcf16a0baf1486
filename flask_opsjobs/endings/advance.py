"""Advances runs: passes ends of steps on to the steps that wait for them, and ends runs.

An ending statement only appends an end event. `advance` comes after its commit, in a transaction of its own,
and reads committed rows only. Why no release is lost or made twice is proved in docs/workflows-inside.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from .. import signals
from ..core import sql
from ..core.db import Connection
from . import callbacks
from .transitions import cancel_dependents, fail_waiting, receive, stop
from .turn import Advanced, one, patience_of, rows

# One call settles, cancels and releases at most this many steps each. So it holds its locks for a short time,
# whatever the size of the run.
MOST_STEPS = 1_000
# The steps that wait for nothing any more, by what their release needs.
_READY = ("plain", "taking", "waits")
# Who canceled a run whose deadline passed, as stored in workflows.cancel_requested_by.
DEADLINE = "opsjobs: deadline"


def advance(
    connection: Connection,
    run: int,
    max_args_bytes: int,
    now: datetime | None = None,
    most: int = MOST_STEPS,
) -> Advanced | None:
    """Advance one run by at most `most` steps, in one transaction.

    `now` is Postgres' clock under the lock, unless it is given. Returns None when the run is gone, or is
    locked by somebody who will advance it; never waits for the lock. Commits unless the caller has a
    transaction. Raises what Postgres raises, `LockNotAvailable` when a job is locked for more than 0.1 s;
    then nothing was written.
    """
    patience = patience_of(connection)
    with signals.once_committed(), connection.transaction():
        found = one(connection, "lock_workflow", id=run, now=now, patience=patience)
        if found is None:
            connection.execute(sql.load("forget_end_events"), {"id": run})
            return None
        turn = _Turn(connection, run, found["now"], max_args_bytes, most)
        turn.unsettled = found["unsettled"]
        if found["state"] == "canceling":
            turn.stop_steps(found["cancel_requested_by"], found["cancel_reason"])
        settled = turn.settle()
        if found["state"] == "running":
            turn.cancel_behind(settled["unfinished"], settled["causes"])
            turn.release(settled)
        if turn.unsettled == 0:
            turn.end()
        if found["trouble"] is not None:
            connection.execute(sql.load("note_trouble"), {"id": run, "trouble": None})
    return Advanced(tuple(dict.fromkeys(turn.lanes)), turn.has_more, turn.is_idle)


def list_runs_to_advance(connection: Connection, limit: int = 100, after: int = 0) -> list[int]:
    """The runs that can be advanced, at most `limit` after the run `after`, in id order. Locks nothing."""
    found = connection.execute(sql.load("list_runs_to_advance"), {"limit": limit, "after": after})
    return [run for (run,) in found]


def look_for_lost_steps(
    connection: Connection, after: tuple[int, str] = (0, "")
) -> tuple[int, str]:
    """Look at the next 1,000 steps of open runs for steps whose jobs were deleted by SQL.

    Those get an end event, so that they settle as failed. Returns the run and the name of the last step that
    was looked at, after which the next call goes on; `(0, "")` after the last one. Commits unless the caller
    has a transaction.
    """
    run, name = after
    last = one(connection, "append_hints_of_lost_steps", run=run, name=name, limit=MOST_STEPS)
    return (0, "") if last is None else (last["run"], last["name"])


class _Turn:
    """One call of `advance`, under the run's lock. A statement is run only when there is work for it."""

    def __init__(
        self, connection: Connection, run: int, now: datetime, max_args_bytes: int, most: int
    ) -> None:
        self._connection = connection
        self._run = run
        self._now = now
        self._max_args_bytes = max_args_bytes
        self._most = most
        # How many steps of the run have not settled.
        self.unsettled = 0
        self.lanes: list[tuple[str, str]] = []
        self.has_more = False
        self.is_idle = True

    def settle(self) -> dict[str, Any]:
        """Settle the steps that ended; return what settled, and what that says about the rest of the turn."""
        settled = self._one("settle_steps", now=self._now, limit=self._most)
        self.unsettled -= settled["settled"]
        self.is_idle &= settled["events"] == 0
        self.has_more |= settled["has_events_left"] or settled["has_edges_left"]
        return settled

    def cancel_behind(self, unfinished: Sequence[int], causes: Sequence[int]) -> None:
        """Cancel the steps behind those that did not finish.

        Not in a canceled run: there `stop_steps` ends all steps that wait, so a later retry or skip of one of
        them reopens no other, however many turns it took to end them.
        """
        if not unfinished:
            return
        found = rows(
            self._connection,
            "find_doomed_steps",
            unfinished=list(unfinished),
            causes=list(causes),
            limit=self._most,
        )
        # A step may be behind several others that did not finish; the first that is found counts.
        doomed: dict[int, int] = {}
        for row in found:
            doomed.setdefault(row.id, row.cause)
        if not doomed:
            return
        ids = sorted(doomed)
        self._run_sql("note_causes", ids=ids, causes=[doomed[id] for id in ids])
        cancel_dependents(self._connection, ids, self._now)
        self.has_more = True
        # The end events of these steps lead to the steps behind them, but not to others behind the same step.
        if len(found) == self._most and found[-1].is_next:
            self._run_sql("append_hints", id=self._run, ids=list(unfinished))

    def release(self, settled: Mapping[str, Any]) -> None:
        """Release the steps that wait for nothing any more, and open such waits."""
        ready: dict[str, list[int]] = {kind: list(settled[kind]) for kind in _READY}
        if settled["has_steps_to_release"]:
            found = self._one("list_steps_to_release", limit=self._most)
            self.has_more |= found["number"] == self._most
            for kind in _READY:
                ready[kind] += found[kind]
        self.is_idle &= not any(ready.values())
        if waits := ready["waits"]:
            self._run_sql("open_waits", ids=waits, now=self._now)
        if waits or settled["has_open_waits"]:
            self._receive()
        taking = ready["taking"]
        args = self._read_results(taking) if taking else {}
        if ids := ready["plain"] + taking:
            released = rows(
                self._connection,
                "release_steps",
                ids=ids,
                taking=list(args),
                args=list(args.values()),
                now=self._now,
            )
            self.lanes += [(lane, queue) for lane, queue in released]

    def _receive(self) -> None:
        """End open waits whose signal has come.

        A signal for several open waits is given to none of them. A wait that opens now takes the oldest
        signal that came before.
        """
        found = rows(
            self._connection, "match_signals", id=self._run, now=self._now, limit=self._most
        )
        ended: set[int] = set()
        taken: set[int] = set()
        ambiguous: dict[int, None] = {}
        for match in found:
            if match.wait in ended or match.signal in taken:
                continue
            if match.open_waits > 1 and not match.is_new:
                ambiguous[match.signal] = None
                continue
            ambiguous.pop(match.signal, None)
            if receive(self._connection, match.wait, match.signal, self._now):
                ended.add(match.wait)
                taken.add(match.signal)
                self.has_more = True
        if ambiguous:
            self._run_sql("note_ambiguous_signals", ids=list(ambiguous))
        self.is_idle &= not ended

    def _read_results(self, ids: Sequence[int]) -> dict[int, str]:
        """The arguments of these steps with the results that they take. A step without one of them ends."""
        args: dict[int, str] = {}
        unusable: dict[str, list[int]] = defaultdict(list)
        for step in rows(self._connection, "read_results_of_steps", ids=list(ids)):
            if step.missing is not None:
                unusable[step.missing].append(step.id)
            elif step.bytes > self._max_args_bytes:
                reason = (
                    "its arguments with the results that it takes are larger than "
                    f"OPSJOBS_MAX_ARGS_BYTES = {self._max_args_bytes}"
                )
                unusable[reason].append(step.id)
            else:
                args[step.id] = step.args
        for reason, steps in unusable.items():
            fail_waiting(self._connection, steps, self._now, "result_missing", reason)
            self.has_more = True
        return args

    def stop_steps(self, actor: str, reason: str) -> None:
        """End the waiting steps of a canceled run, and ask for the started ones to be stopped."""
        found = rows(self._connection, "list_steps_to_stop", id=self._run, limit=self._most)
        if found:
            states = {step.id: step.state for step in found}
            stop(self._connection, states, actor, reason, self._now)
            self.is_idle = False
            self.has_more = True

    def end(self) -> None:
        """End the run when all its steps have settled, and enqueue its callback."""
        ended = one(
            self._connection, "end_workflow", id=self._run, now=self._now, deadline=DEADLINE
        )
        if ended is None:
            return
        self.is_idle = False
        signals.send(
            signals.workflow_ended,
            workflow_id=ended["id"],
            name=ended["name"],
            state=ended["state"],
        )
        if ended["on_end"] is None:
            return
        facts = {
            "workflow_id": ended["id"],
            "name": ended["name"],
            "state": ended["state"],
            "end_no": ended["end_no"],
            "context": ended["context"],
        }
        subject = ("workflow", ended["id"])
        lane = callbacks.report_end(
            self._connection, ended["on_end"], subject, ended["end_no"], "end", facts, self._now
        )
        self.lanes += [] if lane is None else [lane]

    def _one(self, statement: str, **values: Any) -> dict[str, Any]:
        found = one(self._connection, statement, id=self._run, **values)
        assert found is not None, f"{statement} returns one row"
        return found

    def _run_sql(self, statement: str, **values: Any) -> None:
        self._connection.execute(sql.load(statement), values)
