"""Writes an operator's decisions about runs and their steps: cancel, reopen. `endings` skips a step.

Every function runs in the caller's transaction. Call `lock` first: then nobody advances the runs until the
commit. After it the caller has them advanced.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg.rows import class_row, dict_row, namedtuple_row

from ..core import sql
from ..core.db import Connection
from ..jobs.record.unique_locks import Takers
from .lifecycle import sources_of


def lock(connection: Connection, runs: Iterable[int]) -> list[int]:
    """Lock these runs in id order, before any job; returns those that exist."""
    rows = connection.execute(sql.load("lock_workflows"), {"ids": list(runs)})
    return [run for (run,) in rows]


@dataclass(frozen=True)
class RunForDecision:
    """The columns of a run that a decision needs.

    `unfinished` is the number of its steps that failed or were canceled. `open_rival` is the other open run
    with the same name and unique key.
    """

    id: int
    name: str
    state: str
    end_no: int
    cancel_requested_at: datetime | None
    unfinished: int
    unique_key: str | None
    open_rival: int | None


@dataclass(frozen=True)
class StepForDecision:
    """The columns of a step and its job that a decision needs.

    `is_released`: its job was released, so that a retry makes it available. A wait opens again instead.
    """

    id: int
    name: str
    kind: str
    is_released: bool
    opened_at: datetime | None
    signals: list[str] | None
    key: str
    state: str
    ended_by: str | None
    dispatch_no: int
    lane: str
    queue: str


@dataclass(frozen=True)
class SignalForDecision:
    """The columns of a signal that a decision needs. `payload` is JSON text, None without a payload."""

    id: int
    name: str
    key: str
    run: int | None
    outcome: str
    payload: str | None
    taken_by: int | None


# An action on a run names at most this many of its steps.
_MOST_STEPS = 50_000


def look(connection: Connection, runs: Iterable[int]) -> list[RunForDecision]:
    """Those of these runs that exist, in id order. Locks nothing."""
    with connection.cursor(row_factory=class_row(RunForDecision)) as cursor:
        return cursor.execute(sql.load("look_at_workflows"), {"ids": list(runs)}).fetchall()


def look_at_steps(connection: Connection, run: int, name: str | None) -> list[StepForDecision]:
    """The step of that name; without a name all that failed or were canceled by themselves. Locks nothing."""
    values = {"run": run, "name": name, "limit": _MOST_STEPS}
    with connection.cursor(row_factory=class_row(StepForDecision)) as cursor:
        return cursor.execute(sql.load("look_at_steps"), values).fetchall()


def lock_signal(connection: Connection, signal: int) -> None:
    """Lock a signal, after the runs and before any job."""
    connection.execute(sql.load("lock_signal"), {"id": signal})


def look_at_signal(connection: Connection, signal: int) -> SignalForDecision | None:
    """The signal, or None when there is none with this id. Locks nothing."""
    with connection.cursor(row_factory=class_row(SignalForDecision)) as cursor:
        return cursor.execute(sql.load("look_at_signal"), {"id": signal}).fetchone()


def find_doomed_by(connection: Connection, steps: Collection[int]) -> list[int]:
    """The ids of the steps that were canceled only because one of these did not finish. Locks nothing."""
    rows = connection.execute(sql.load("find_steps_to_reopen"), {"ids": list(steps)})
    return [id for (id,) in rows]


def find_culprits(connection: Connection, steps: Collection[int]) -> dict[int, list[str]]:
    """The names of the steps because of which these were canceled, at most five each. Locks nothing."""
    rows = connection.execute(sql.load("find_culprits"), {"ids": list(steps)})
    return dict(rows.fetchall())


@dataclass(frozen=True)
class StepWithLock:
    """A step, and the key of the unique lock that it needs, if it needs one, with the job that has it."""

    id: int
    name: str
    key: bytes | None
    holder: int | None


def list_doomed(
    connection: Connection, steps: Collection[int], now: datetime
) -> Sequence[StepWithLock]:
    """The steps that `find_doomed_by` finds, in id order, with their unique locks. Locks nothing."""
    return _list_with_locks(connection, "list_doomed_steps", steps, now)


def list_unique(
    connection: Connection, steps: Collection[int], now: datetime
) -> Sequence[StepWithLock]:
    """Those of these steps that need a unique lock, in id order. Locks nothing."""
    return _list_with_locks(connection, "list_unique_locks_of_steps", steps, now)


def _list_with_locks(
    connection: Connection, statement: str, steps: Collection[int], now: datetime
) -> Sequence[StepWithLock]:
    if not steps:
        return []
    with connection.cursor(row_factory=class_row(StepWithLock)) as cursor:
        return cursor.execute(sql.load(statement), {"ids": list(steps), "now": now}).fetchall()


@dataclass(frozen=True)
class LockRival:
    """A step that does not get its unique lock, because the job `holder` has it or takes it first."""

    id: int
    name: str
    holder: int


def find_lock_rivals(steps: Iterable[StepWithLock], takers: Takers) -> Sequence[LockRival]:
    """Those of these steps that do not get their unique locks."""
    return [
        LockRival(step.id, step.name, rival)
        for step in steps
        if step.key is not None
        and (rival := takers.find_rival(step.id, step.key, step.holder)) is not None
    ]


def list_unique_until_ended(connection: Connection, ids: Sequence[int]) -> list[int]:
    """Those of these jobs that hold a unique lock until they end. Locks nothing."""
    rows = connection.execute(sql.load("list_unique_until_ended"), {"ids": list(ids)})
    return [id for (id,) in rows]


def run_sql(connection: Connection, statement: str, values: Mapping[str, Any]) -> Sequence[Any]:
    """Run a statement of a folder `sql` in the caller's transaction; returns its rows, columns by name."""
    with connection.cursor(row_factory=namedtuple_row) as cursor:
        cursor.execute(sql.load(statement), values)
        return cursor.fetchall() if cursor.description else ()


def find_runs_of_signal(connection: Connection, signal: int, since: timedelta) -> list[int]:
    """The runs whose open waits a committed signal may end, at most 100. Locks nothing.

    When there is none, and a wait for the signal has ended in the last `since`, the signal is late.
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(sql.load("read_signal"), {"id": signal}).fetchone()
    if row is None or row["outcome"] != "early":
        return []
    rows = connection.execute(sql.load("list_runs_of_signal"), {**row, "limit": 100})
    runs = [run for (run,) in rows]
    if not runs:
        connection.execute(sql.load("note_late_signal"), {**row, "id": signal, "since": since})
    return runs


def unmark_late_signals(connection: Connection, since: datetime, most: int) -> None:
    """Make late signals early again for which a wait is left: of the newest `most`, those that came since."""
    connection.execute(sql.load("unmark_late_signals"), {"since": since, "most": most})


def cancel(
    connection: Connection, runs: Collection[int], actor: str, reason: str, now: datetime
) -> None:
    """Cancel running runs. The next `advance` ends their waiting steps, and has started ones stopped."""
    values = {
        "ids": list(runs),
        "sources": list(sources_of("cancel")),
        "actor": actor,
        "reason": reason,
        "now": now,
    }
    connection.execute(sql.load("cancel_workflows"), values)


def list_workers_to_stop(connection: Connection, runs: Collection[int]) -> list[tuple[str, str]]:
    """The workers that run steps of canceled runs, as (queue, name). Locks nothing."""
    rows = connection.execute(sql.load("list_workers_to_stop"), {"ids": list(runs)})
    return [(queue, name) for queue, name in rows]


def reopen(connection: Connection, run: int, steps: Collection[int], now: datetime) -> list[int]:
    """Reopen steps that did not finish, and exactly the steps that were canceled because of them.

    A run that had ended runs again. Returns the ids of all reopened steps. Waits, and steps that were never
    released, wait again; the caller decides what happens to the jobs of the others.
    """
    ids = sorted({*steps, *find_doomed_by(connection, steps)})
    connection.execute(sql.load("reopen_steps"), {"run": run, "ids": ids, "now": now})
    connection.execute(sql.load("defer_jobs_again"), {"ids": ids})
    connection.execute(sql.load("count_pending"), {"ids": ids})
    connection.execute(sql.load("append_hints_of_sources"), {"run": run, "ids": ids})
    return ids
