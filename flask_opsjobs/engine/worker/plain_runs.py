"""Keeps how runs of plain RQ jobs ended, and writes it to Postgres after the fact.

Neither the jobs nor the outcomes of managed jobs wait for it. What cannot be written is tried again for a
while, and the oldest is given up first: the adopting loop reads from RQ what RQ keeps.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from ...core import sql
from ...core.db import Connection, is_away, say_without_values
from ...core.words import counted
from .forking import fork_lock

_log = logging.getLogger("flask_opsjobs.worker")
# Runs are collected for this long, so that most of them are written in batches.
_LINGER_SECONDS = 0.2
_PAUSE_SECONDS = 5.0
_MOST_AT_ONCE = 200
# A record has about 500 bytes, and up to 150 kB with a long log and a long traceback.
_MOST_BYTES = 16 << 20
# The adopting loop may be inserting the same job. Outcomes of managed jobs wait no longer than this.
_PATIENCE = "500ms"
# Before the worker ends, so long for rows that somebody has locked.
_LAST_SECONDS = 0.5
_Row = dict[str, Any]
_Job = tuple[str, str]


@dataclass(frozen=True)
class PlainRunRecord:
    """How one run of a plain job ended, as the process that ran it saw it.

    Times are ISO 8601 by the clock of the worker's machine, as RQ's own. `status` is RQ's word for the job
    after the run, and `execution_id` RQ's name of the run. `arguments` is JSON text, given only when RQ
    deletes the job soon.
    """

    rq_id: str
    queue: str
    function: str
    created_at: str
    enqueued_at: str | None
    execution_id: str
    started_at: str
    ended_at: str
    status: str
    outcome: str
    pid: int
    timeout_seconds: float | None = None
    error: str | None = None
    traceback: str | None = None
    log_tail: str | None = None
    cause_of_death: str | None = None
    death: str | None = None
    death_facts: dict[str, Any] | None = None
    failure_key: str | None = None
    arguments: str | None = None

    def to_json(self) -> bytes:
        """Return the record as it is sent and kept."""
        return json.dumps(self.__dict__).encode()


class PlainRuns:
    """The records that are not written yet. The main thread adds them, and the recorder writes them."""

    def __init__(
        self, place: str, worker: str, worker_id: int, most_bytes: int = _MOST_BYTES
    ) -> None:
        """`most_bytes` are kept at most while nothing can be written."""
        self._place, self._worker, self._worker_id = place, worker, worker_id
        self._most_bytes = most_bytes
        self._changing = threading.Lock()
        self._kept: deque[bytes] = deque()
        self._bytes = self._given_up = 0
        self._write_at = 0.0
        self._last_failure: type[Exception] | None = None

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, record: bytes) -> bool:
        """Keep a record; return whether it is the first that waits."""
        with self._changing:
            is_first = not self._kept
            if is_first:
                self._write_at = max(self._write_at, time.monotonic() + _LINGER_SECONDS)
            self._kept.append(record)
            self._bytes += len(record)
            self._give_up_oldest()
        return is_first

    def _give_up_oldest(self) -> None:
        while self._bytes > self._most_bytes:
            self._bytes -= len(self._kept.popleft())
            self._given_up += 1

    def due_in(self) -> float:
        """Return the seconds until records are to be written."""
        return max(0.0, self._write_at - time.monotonic()) if self._kept else math.inf

    def write_all(self, connection: Connection) -> None:
        """Write what waits before the worker ends. What cannot be written now is lost."""
        until = time.monotonic() + _LAST_SECONDS
        while self._kept and (self.write(connection) or time.monotonic() < until):
            pass

    def write(self, connection: Connection) -> bool:
        """Write the first records that wait, and commit; return whether all of them are written.

        Those whose rows are locked wait, and are due again soon. When an error is about others too, all wait
        for a while. Raises what Postgres raises when it is away.
        """
        batch = self._take()
        try:
            left = self._write_batch(connection, [json.loads(record) for record in batch])
        except psycopg.Error as error:
            self._put_back(batch, _PAUSE_SECONDS)
            if is_away(error):
                raise
            if type(error) is not self._last_failure:
                self._say("runs of plain RQ jobs are not written now, and are kept", error)
            self._last_failure = type(error)
            return False
        self._put_back([json.dumps(row).encode() for row in left], _LINGER_SECONDS)
        with self._changing:
            self._last_failure = None
            given_up, self._given_up = self._given_up, 0
        if given_up:
            with fork_lock:
                _log.warning(
                    "%s of plain RQ jobs not recorded: too many waited", counted(given_up, "run")
                )
        return not left

    def _take(self) -> list[bytes]:
        with self._changing:
            batch = [self._kept.popleft() for _ in range(min(len(self._kept), _MOST_AT_ONCE))]
            self._bytes -= sum(map(len, batch))
        return batch

    def _put_back(self, batch: Sequence[bytes], seconds: float) -> None:
        with self._changing:
            self._kept.extendleft(reversed(batch))
            self._bytes += sum(map(len, batch))
            self._give_up_oldest()
            self._write_at = time.monotonic() + seconds

    def _write_batch(self, connection: Connection, batch: list[_Row]) -> list[_Row]:
        """Return the runs that are left, in order: those of jobs whose rows somebody has locked."""
        left: list[_Row] = []
        while batch:
            # Each job once: a later run of a job gets the next number.
            together = {_job_of(row): row for row in reversed(batch)}
            locked = self._write_together(connection, list(together.values()))
            left += [row for row in batch if _job_of(row) in locked]
            later = [row for row in batch if together[_job_of(row)] is not row]
            batch = [row for row in later if _job_of(row) not in locked]
        return left

    def _write_together(self, connection: Connection, rows: Sequence[_Row]) -> set[_Job]:
        try:
            return self._write_rows(connection, rows)
        except (psycopg.DataError, psycopg.IntegrityError):
            # One of them cannot be stored. The others shall be.
            locked: set[_Job] = set()
            for row in rows:
                try:
                    locked |= self._write_rows(connection, [row])
                except (psycopg.DataError, psycopg.IntegrityError) as error:
                    self._say("the run of a plain RQ job cannot be stored and is left out", error)
            return locked

    def _write_rows(self, connection: Connection, rows: Sequence[_Row]) -> set[_Job]:
        """Write runs of different jobs; return the jobs whose rows are locked."""
        parameters: dict[str, Any] = {
            "rows": json.dumps(rows),
            "place": self._place,
            "worker": self._worker,
            "worker_id": self._worker_id,
        }
        with connection.transaction():
            connection.execute(sql.load("limit_lock_wait"), {"wait": _PATIENCE})
            connection.execute(sql.load("insert_jobs_of_runs"), parameters)
            free = set(connection.execute(sql.load("lock_jobs_of_runs"), parameters).fetchall())
            parameters["rows"] = json.dumps([row for row in rows if _job_of(row) in free])
            connection.execute(sql.load("record_runs_of_plain_jobs"), parameters)
        return {_job_of(row) for row in rows} - free

    @staticmethod
    def _say(message: str, error: psycopg.Error) -> None:
        with fork_lock:
            _log.warning("%s: %s", message, say_without_values(error))


def _job_of(row: _Row) -> _Job:
    """Return RQ's id of the job, and when RQ created it: an id is used again."""
    return row["rq_id"], row["created_at"]
