"""Writes an operator's decisions about runs and their steps: cancel, reopen, skip.

Every function runs in the caller's transaction. Call `lock` first: then nobody advances the runs until the
commit. After it the caller has them advanced.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta

from psycopg.rows import dict_row

from ..core import sql
from ..core.db import Connection
from ..jobs.lifecycle import sources_of as sources_of_job
from .lifecycle import sources_of


def lock(connection: Connection, runs: Iterable[int]) -> list[int]:
    """Lock these runs in id order, before any job; returns those that exist."""
    rows = connection.execute(sql.load("lock_workflows"), {"ids": list(runs)})
    return [run for (run,) in rows]


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


def reopen(connection: Connection, run: int, steps: Collection[int], now: datetime) -> list[int]:
    """Reopen steps that did not finish, and exactly the steps that were canceled because of them.

    A run that had ended runs again. Returns the ids of all reopened steps. Those that were never released
    wait again; the caller decides what happens to the jobs of the others.
    """
    rows = connection.execute(sql.load("find_steps_to_reopen"), {"ids": list(steps)})
    ids = sorted({*steps, *(id for (id,) in rows)})
    connection.execute(sql.load("reopen_steps"), {"run": run, "ids": ids, "now": now})
    connection.execute(sql.load("defer_jobs_again"), {"ids": ids})
    connection.execute(sql.load("count_pending"), {"ids": ids})
    return ids


def skip(
    connection: Connection, run: int, step: int, result: str, reason: str, now: datetime
) -> None:
    """End a step as finished with `result`, a JSON text, and reopen what was canceled because of it."""
    reopen(connection, run, [step], now)
    values = {
        "ids": [step],
        "sources": list(sources_of_job("skip")),
        "result": result,
        "reason": reason,
        "now": now,
    }
    connection.execute(sql.load("skip_steps"), values)
