"""Performs due jobs at once for a host's tests: the real statements on one connection, no Redis, no fork."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row, scalar_row

from .. import endings, signals
from ..core import sql
from ..core.db import Connection
from ..core.reading import read_clock
from ..endings import EndedAttempt
from ..endings.advance import advance, list_runs_to_advance
from ..endings.fold import fold, list_batches_to_fold
from ..errors import OpsJobsError
from ..host import Host
from ..jobs.perform.current import Claimed
from ..jobs.perform.log_tail import Ring
from ..jobs.perform.perform import Report, perform
from ..jobs.record.declaration import TaskDeclaration
from .dispatch.dispatch import Dispatcher, KeptDeliveries, recall, stage
from .redis.broker import Delivery
from .worker.claim import claim

# Stops jobs that become due again whenever they end. A round takes milliseconds, so this is a few seconds.
MOST_ROUNDS = 1_000
_PREFETCH = 1_000_000
_WORKER = (0, "inline")


class InlineWorker:
    """Performs due jobs until none is left: at most `limit` calls, each in the context `surround`.

    An error of the kinds `through` ends the run. Attempts get the id and name of `worker`. Afterwards `ids`
    holds the jobs that were touched, in order, and `errors` the last error that each job's function raised.
    """

    def __init__(
        self,
        host: Host,
        connection: Connection,
        surround: Callable[[], AbstractContextManager[object]],
        limit: int | None = None,
        through: tuple[type[BaseException], ...] = (KeyboardInterrupt,),
        worker: tuple[int, str] = _WORKER,
    ) -> None:
        self._host = host
        self._connection = connection
        self._surround = surround
        self._limit = limit
        self._through = through
        self._worker = worker
        self._ahead = timedelta(0)
        self._tasks = {name: self._watched(task) for name, task in host.performable.items()}
        self.calls = 0
        self.ids: dict[int, None] = {}
        self.errors: dict[int, BaseException] = {}

    def run(self, until: datetime | None = None) -> None:
        """Perform due jobs until none is left; with `until`, as if the time up to then had passed.

        Raises `OpsJobsError` when jobs are still due after 1,000 rounds. Commits nothing when the caller has
        a transaction.
        """
        with signals.sent_by(self._host):
            self._run(until)

    def _run(self, until: datetime | None) -> None:
        rounds = 0
        while self._limit is None or self.calls < self._limit:
            now = self._now()
            has_expired = self._expire(now)
            stage(self._connection, now)
            if self._advance(now) or has_expired:
                continue
            if deliveries := self._dispatch(now):
                rounds += 1
                if self._limit is None and rounds > MOST_ROUNDS:
                    raise self._endless(deliveries)
                self._perform_all(deliveries)
            elif not self._jump(until):
                return

    def _now(self) -> datetime:
        return read_clock(self._connection) + self._ahead

    def _expire(self, now: datetime) -> bool:
        """End jobs and cancel runs whose deadline has passed; return whether there were any."""
        expired = endings.expire(self._connection, now)
        self.ids |= dict.fromkeys(job.id for job in expired)
        canceled = self._connection.execute(sql.load("expire_workflows"), {"now": now}).rowcount
        return bool(expired or canceled)

    def _advance(self, now: datetime) -> bool:
        """Advance runs whose steps ended, and fold batches; return whether anything was written."""
        most = self._host.settings.max_args_bytes
        # A cancel may have committed since `now` was read. So the clock is read under the lock, as in the
        # loops, unless the time was moved on.
        under_lock = now if self._ahead else None
        runs = list_runs_to_advance(self._connection)
        done = [advance(self._connection, run, most, under_lock) for run in runs]
        done += [
            fold(self._connection, batch, under_lock)
            for batch in list_batches_to_fold(self._connection)
        ]
        return any(one is not None and not one.is_idle for one in done)

    def _jump(self, until: datetime | None) -> bool:
        """Move the time on to the next due time or deadline, at most to `until`; False if it is not ahead."""
        if until is None:
            return False
        with self._connection.cursor(row_factory=scalar_row) as cursor:
            due: datetime | None = cursor.execute(sql.load("find_next_due")).fetchone()
        ahead = min(due or until, until) - self._now()
        if ahead <= timedelta(0):
            return False
        self._ahead += ahead
        return True

    def _dispatch(self, now: datetime) -> list[Delivery]:
        kept = KeptDeliveries()
        settings = replace(self._host.settings, prefetch=_PREFETCH)
        try:
            # Limits are ignored in a test: due jobs are performed one after the other.
            Dispatcher(self._connection, kept, settings, ignore_limits=True).dispatch_all(now)
        except BaseException:
            self._recall(kept.deliveries)
            raise
        return kept.deliveries

    def _perform_all(self, deliveries: Sequence[Delivery]) -> None:
        left = list(deliveries)
        try:
            while left and (self._limit is None or self.calls < self._limit):
                self._perform(left.pop(0))
        finally:
            self._recall(left)

    def _recall(self, deliveries: Sequence[Delivery]) -> None:
        if deliveries and self._connection.info.transaction_status != TransactionStatus.INERROR:
            recall(self._connection, [(each.id, each.dispatch_no) for each in deliveries])

    def _perform(self, delivery: Delivery) -> None:
        job_id, dispatch_no = delivery.id, delivery.dispatch_no
        claimed = claim(self._connection, (job_id, dispatch_no), *self._worker, ignore_limits=True)
        self.ids[job_id] = None
        if not isinstance(claimed, Claimed):
            return
        self.calls += 1
        self.errors.pop(job_id, None)
        size = self._host.settings.log_tail_bytes
        log_tail = Ring(memoryview(bytearray(size + Ring.HEAD_BYTES))) if size else None
        with self._host.telemetry.attempt(claimed, self._worker[1]) as watched:
            with _shared(self._connection, claimed), self._surround():
                most = self._host.settings.max_output_bytes
                report = Report(
                    log_tail, most, connect=lambda: nullcontext(self._connection), sender=self._host
                )
                outcome = perform(self._tasks, claimed, report)
            attempt = claimed.attempt
            ending = EndedAttempt(job_id, dispatch_no, *self._worker, outcome, attempt=attempt)
            # `hand_back_for` is 0, because no worker with other code will come: a test sees the failure at
            # once.
            endings.write_outcomes(
                self._connection, [ending], self._now(), hand_back_for=timedelta(0)
            )
            watched.tell(outcome.kind, report.take_error(), report.connect)
        self._host.telemetry.finish()
        error = self.errors.get(job_id)
        if isinstance(error, self._through):
            raise error

    def _watched(self, task: TaskDeclaration) -> TaskDeclaration:
        """Return a copy of the task whose failure hook also keeps the error that its function raised."""
        hook = task.on_failure
        watched = copy.copy(task)

        def keep(job: Any, error: BaseException) -> None:
            self.errors[job.id] = error
            if hook is not None:
                hook(job, error)

        watched.on_failure = keep
        return watched

    def _endless(self, deliveries: Sequence[Delivery]) -> OpsJobsError:
        self._recall(deliveries)
        job = deliveries[0]
        return OpsJobsError(
            f"after {MOST_ROUNDS} rounds there are still due jobs, such as job {job.id} of task {job.task}: "
            "it comes back, or enqueues itself, whenever it ends; pass limit= to stop earlier"
        )


@contextmanager
def _shared(connection: Connection, claimed: Claimed) -> Iterator[None]:
    """Keep the caller's transaction usable, if there is one, when the function in this block breaks it."""
    if connection.autocommit:
        yield
        return
    connection.execute("SAVEPOINT opsjobs_inline")
    yield
    try:
        if connection.info.transaction_status == TransactionStatus.INERROR:
            connection.execute("ROLLBACK TO SAVEPOINT opsjobs_inline")
        connection.execute("RELEASE SAVEPOINT opsjobs_inline")
    except psycopg.Error:
        raise OpsJobsError(
            f"job {claimed.id} of task {claimed.task} ended the transaction "
            "that the test had begun around it: "
            "make the test's sessions with join_transaction_mode='create_savepoint'"
        ) from None


def has_written(connection: Connection) -> bool:
    """Return whether the open transaction of the connection has written or locked a row."""
    if connection.info.transaction_status == TransactionStatus.IDLE:
        return False
    with connection.cursor(row_factory=scalar_row) as cursor:
        row = cursor.execute("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")
        return bool(row.fetchone())


def list_stored(
    connection: Connection, *, ids: Sequence[int] | None = None, task: str | None = None
) -> list[dict[str, Any]]:
    """Return the jobs that this connection sees, oldest first, with the columns of `list_stored_jobs.sql`."""
    with connection.cursor(row_factory=dict_row) as cursor:
        parameters = {"ids": None if ids is None else list(ids), "task": task}
        return cursor.execute(sql.load("list_stored_jobs"), parameters).fetchall()


def move_back(connection: Connection, by: timedelta) -> None:
    """Let the time `by` pass for jobs, steps, workflows and unique locks: all their times move back by it."""
    connection.execute(sql.load("move_times_back"), {"by": by})
