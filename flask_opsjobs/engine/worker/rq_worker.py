"""Extends RQ's worker loop: claims each managed job before it runs, and records its outcome after."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import psycopg
from redis import RedisError
from rq import Queue
from rq.defaults import DEFAULT_LOGGING_DATE_FORMAT, DEFAULT_LOGGING_FORMAT
from rq.job import Job as RQJob
from rq.logutils import blue, green
from rq.utils import now
from rq.worker import SimpleWorker, Worker, WorkerStatus
from rq.worker.base import BaseWorker

from ...core.db import is_away
from ...core.visible_text import on_one_line
from ...jobs.perform.claimed import Claimed
from ...jobs.perform.current import Stopped
from ...jobs.perform.outcomes import Outcome
from ..reconcile.rq_bookkeeping import RQBooks
from ..redis.command import is_beat_request
from ..redis.delivery import parse
from .child import forget_connections, fork_lock, set_group
from .claim import NotClaimed, claim
from .dequeue import make_job, pop
from .forking_performer import ForkingPerformer
from .in_process_performer import InProcessPerformer
from .outage import Backoff
from .performer import Performer
from .rq_scheduler import OpsScheduler
from .runtime import WorkerRuntime

if TYPE_CHECKING:
    from datetime import timedelta

    from flask import Flask
    from rq.executions import Execution

_log = logging.getLogger("flask_opsjobs.worker")
_REFRESH_SECONDS = 1.0
_LOOK_SECONDS = 0.5
_THREAD = "claim"


class OpsWorkerLoop(BaseWorker):
    """What both kinds of OpsWorker share: how they take, claim, perform and record. Nothing here raises into RQ."""

    max_connection_wait_time = 4.0
    scheduler_seconds = 60.0
    runtime: WorkerRuntime
    performer: Performer

    def attach(
        self,
        app: Flask,
        runtime: WorkerRuntime,
        performer: Performer,
        tell_ready: Callable[[], None],
    ) -> None:
        """Give the worker its app, its runtime (connections, recorder, heartbeat) and its performer.

        `tell_ready` is called once it heeds signals, right before it takes its first job.
        """
        self.app = app
        self.runtime = runtime
        self.performer = performer
        self._tell_ready = tell_ready
        self.books = RQBooks(self)
        self._state_told: str | None = None
        self._suspension_read_at = 0.0
        self._takes_jobs = True
        self._failures = Backoff()
        self._scheduler_asked_at = time.monotonic()
        self.performed = 0
        self._plain_job: RQJob | None = None
        self._is_forced = False

    def _install_signal_handlers(self) -> None:
        """RQ's own; before this a signal ends the process as it would any other, so nobody is told that it listens."""
        super()._install_signal_handlers()
        self._tell_ready()

    def has_failed(self, burst: bool, max_jobs: int | None) -> bool:
        """Whether the loop ended although nobody asked for it: RQ's `work` ends without a word on an exception."""
        is_through = max_jobs is not None and self.performed >= max_jobs
        return not (self._stop_requested or burst or is_through)

    # --- taking -------------------------------------------------------------------------------------------------

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[RQJob, Queue] | None:
        """The next job. Blocks a second at a time, so that a stop is seen between pops and never loses one."""
        idle_since = time.monotonic()
        wait = 0.5
        while not self._stop_requested:
            try:
                self.set_state(WorkerStatus.IDLE)
                self.heartbeat()
                if self.should_run_maintenance_tasks:
                    self.run_maintenance_tasks()
                self._keep_scheduler()
                if not self._may_take():
                    continue
                popped = pop(self._ordered_queues, self.connection, block=timeout is not None)
                if popped is None and timeout is None:
                    break
                if popped is not None:
                    # Busy from here on, in memory: a stop must not break in between the pop and the claim.
                    self._state = WorkerStatus.BUSY
                    rq_id, queue = popped
                    if (job := make_job(rq_id, queue, self)) is not None:
                        self.reorder_queues(reference_queue=queue)
                        self._log_taken(job, queue)
                        return job, queue
                wait = 0.5
            except RedisError as error:
                _log.warning("Redis is away (%s); asking again in %g s", type(error).__name__, wait)
                time.sleep(wait)
                wait = min(wait * 2, self.max_connection_wait_time)
            if max_idle_time is not None and time.monotonic() - idle_since >= max_idle_time:
                break
        return None

    def _may_take(self) -> bool:
        """Whether what this worker has to write is written: else the deliveries stay in Redis, for others too."""
        may_take = self.runtime.recorder.keeps_up(_LOOK_SECONDS)
        if may_take is not self._takes_jobs:
            self._takes_jobs = may_take
            with fork_lock:
                _log.warning(
                    "this worker takes jobs again: its outcomes and its heartbeat are written"
                    if may_take
                    else "this worker takes no more jobs until its outcomes and its heartbeat are written"
                )
        return may_take

    def _log_taken(self, job: RQJob, queue: Queue) -> None:
        """RQ's line about a job that it takes. One of ours was not read, so nothing but its id is known."""
        where = green(queue.name)
        if self.log_job_description and parse(job.id) is None:
            said = blue(on_one_line(str(job.description)))
            self.log.info("Worker %s: %s: %s (%s)", self.name, where, said, job.id)
        else:
            self.log.info("Worker %s: %s: %s", self.name, where, job.id)

    def execute_job(self, job: RQJob, queue: Queue) -> None:
        """Perform one of ours; leave any other to RQ."""
        self._state = WorkerStatus.BUSY
        self.performed += 1
        delivery = parse(job.id)
        if delivery is None:
            with _redis_may_be_away():
                super().execute_job(job, queue)
            self._state_told = None
            return
        try:
            self._execute_managed(job, queue, delivery)
            self._failures.reset()
        except Exception:
            with fork_lock:
                _log.exception("the delivery %s was not performed and goes back", job.id)
            self.runtime.heartbeat.release(*delivery)
            self._wait(self._failures.next_seconds())
        self._state = WorkerStatus.IDLE

    def perform_job(self, job: RQJob, queue: Queue, execution: Execution) -> bool:
        """Perform a plain RQ job, in an app context of its own: `db.session` and `g` end with it."""
        context = self.app.app_context()
        context.push()
        # What an earlier execution left: RQ sets it anew as soon as the function has ended.
        job.ended_at = None
        self._plain_job = job
        try:
            return super().perform_job(job, queue, execution)
        finally:
            self._plain_job = None
            try:
                context.pop()
            except Exception:
                _log.exception("RQ job %s: a teardown function of the app raised", job.id)

    def _execute_managed(self, job: RQJob, queue: Queue, delivery: tuple[int, int]) -> None:
        runtime = self.runtime
        runtime.heartbeat.reserve(*delivery)
        claimed = self._claim(delivery)
        if not isinstance(claimed, Claimed):
            runtime.heartbeat.release(*delivery)
            if claimed is not None:
                runtime.heartbeat.count(claimed.reason)
                self.books.end(job, queue, None, is_success=False)
            return
        runtime.heartbeat.own(*delivery)
        # Heartbeats go on meanwhile: another thread sends them.
        time.sleep(claimed.wait_seconds)
        execution = self.books.begin(job, queue)
        began = time.monotonic()
        try:
            outcome = self.performer.perform(claimed, lambda: self.books.keep(job, execution))
        except Exception as error:
            _log.exception("job %d could not be started", claimed.id)
            why = f"the worker could not start it: {type(error).__name__}"
            outcome = Outcome(
                kind="died",
                error=why,
                cause=why,
                delay_seconds=self.performer.backoff_seconds(claimed),
            )
        if outcome.kind == "lost":
            _log.warning("job %d does not run here any more: %s", claimed.id, outcome.error)
        if outcome.kind != "refused":
            # A refusal is fast: counted as a run it would give this worker a high prefetch of what it cannot run.
            runtime.heartbeat.note_run(time.monotonic() - began)
        runtime.submit(claimed, outcome)
        self.books.end(job, queue, execution, is_success=outcome.kind == "returned")

    def _claim(self, delivery: tuple[int, int]) -> Claimed | NotClaimed | None:
        """The claimed job; why not; None when the worker shall stop while Postgres is away (the delivery stays)."""
        runtime, backoff, is_retry = self.runtime, Backoff(), False
        while True:
            asked_at = time.monotonic()
            try:
                connection = runtime.claim_connection()
                claimed = claim(connection, delivery, runtime.id, runtime.name, is_retry=is_retry)
                runtime.outage.end(_THREAD)
                return claimed
            except psycopg.Error as error:
                runtime.drop_claim_connection()
                if is_away(error):
                    runtime.outage.begin(_THREAD, error, asked_at)
                elif not isinstance(error, psycopg.OperationalError):
                    raise
                elif not is_retry:
                    with fork_lock:
                        _log.warning(
                            "job %d is claimed again: %s", delivery[0], type(error).__name__
                        )
            is_retry = True
            if not self._wait(backoff.next_seconds()):
                return None

    def _wait(self, seconds: float) -> bool:
        """Let so much time pass, with RQ's heartbeat; False as soon as the worker shall stop."""
        until = time.monotonic() + seconds
        while not self._stop_requested and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK_SECONDS))
            self.heartbeat()
        return not self._stop_requested

    def _set_connection(self, connection: Any) -> Any:
        # RQ would allow a silent server 415 s, since it pops for 405; ours pops for one, and keeps its 5 s.
        return connection

    # --- fewer round trips, and none that ends RQ's loop: it quits on a time-out ---------------------------------

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """RQ's heartbeat, in one pipeline and at most once a second unless it is sent in the caller's pipeline."""
        if pipeline is not None:
            super().heartbeat(timeout, pipeline)
            return
        last = self.last_heartbeat
        if last is not None and (_age(last)).total_seconds() < _REFRESH_SECONDS:
            return
        with _redis_may_be_away(), self.connection.pipeline(transaction=False) as pipe:
            super().heartbeat(timeout, pipe)
            pipe.execute()

    def set_state(self, state: str, pipeline: Any = None) -> None:
        """Tell RQ's tools a state that it was not told yet."""
        if pipeline is None and state == self._state_told:
            self._state = state
            return
        with _redis_may_be_away():
            super().set_state(state, pipeline)
            self._state_told = state

    def check_for_suspension(self, burst: bool) -> None:
        """RQ's suspension flag, read once a second."""
        moment = time.monotonic()
        if moment - self._suspension_read_at >= _REFRESH_SECONDS:
            self._suspension_read_at = moment
            with _redis_may_be_away():
                super().check_for_suspension(burst)

    def run_maintenance_tasks(self) -> None:
        """RQ's maintenance reads jobs of the host; one that cannot be read must not end the worker."""
        try:
            with _redis_may_be_away():
                super().run_maintenance_tasks()
        except Exception:
            _log.exception("RQ's maintenance failed; it is tried again in ten minutes")
        self.last_cleaned_at = now()  # type: ignore[assignment]

    # --- RQ's scheduler -----------------------------------------------------------------------------------------

    def _start_scheduler(
        self,
        burst: bool = False,
        logging_level: str | None = None,
        date_format: str = DEFAULT_LOGGING_DATE_FORMAT,
        log_format: str = DEFAULT_LOGGING_FORMAT,
    ) -> None:
        """Schedule the plain RQ jobs of each queue for which no other scheduler of RQ does; in a burst, once."""
        self.scheduler = scheduler = OpsScheduler(
            self.queues,
            connection=self.connection,
            logging_level=logging_level or self.log.level,
            date_format=date_format,
            log_format=log_format,
            serializer=self.serializer,
        )
        with _redis_may_be_away():
            scheduler.acquire_locks(auto_start=not burst)
            if burst:
                scheduler.schedule_once()

    def _keep_scheduler(self) -> None:
        """Once a minute: when none of RQ's schedulers has the locks any more, schedule here. RQ waits ten minutes."""
        moment = time.monotonic()
        if self.scheduler is None or moment - self._scheduler_asked_at < self.scheduler_seconds:
            return
        self._scheduler_asked_at = moment
        process = self.scheduler._process
        if process is None or not process.is_alive():
            self.scheduler.acquire_locks(auto_start=True)

    # --- stopping -----------------------------------------------------------------------------------------------

    def _shutdown(self) -> None:
        # RQ would raise StopRequested here when idle, and lose a delivery between its pop and its claim.
        self._stop_requested = True
        if self.get_state() == WorkerStatus.BUSY:
            # No log line here, in the signal's handler: the main thread may be in the middle of one.
            with contextlib.suppress(RedisError):
                self.set_shutdown_requested_date()
        self.runtime.wake()

    def request_force_stop(self, signum: int, frame: Any) -> None:
        """A second signal: the job at hand is killed. One of ours is requeued; a plain one fails, as RQ fails it."""
        if (
            self._shutdown_requested_date is not None
            and _age(self._shutdown_requested_date).total_seconds() < 1
        ):
            return
        self._stop_requested = True
        self._is_forced = True
        # Before what may raise.
        self.runtime.wake()
        self.stop_plain_job()
        self.performer.stop_now("stopped with its worker")

    def stop_plain_job(self) -> None:
        """End a plain RQ job that is being performed, if there is one."""
        raise NotImplementedError

    def handle_payload(self, message: Any) -> None:
        """Commands over RQ's channel run in another thread; what they raise must not end it."""
        with fork_lock:
            try:
                if is_beat_request(message):
                    self.runtime.recorder.beat_now()
                else:
                    super().handle_payload(message)
            except Exception:
                _log.exception("a command of RQ was not understood")

    def _pubsub_exception_handler(self, exc: Exception, pubsub: Any, pubsub_thread: Any) -> None:
        with fork_lock:
            _log.warning("RQ's command channel: %s", type(exc).__name__)
        time.sleep(2.0)

    def teardown(self) -> None:
        """Leave RQ's books; Redis being away must not hide the worker's own farewell."""
        try:
            super().teardown()
        except RedisError as error:
            _log.warning("RQ was not told of the end: %s", type(error).__name__)


class OpsWorker(OpsWorkerLoop, Worker):
    """The forking kind: one child process per job, so a job that leaks, crashes or hangs takes nothing with it."""

    performer: ForkingPerformer

    def main_work_horse(self, job: RQJob, queue: Queue) -> None:
        """Run a plain RQ job in its work horse, with connections of its own: all work horses share their parent's."""
        forget_connections(self.app)
        super().main_work_horse(job, queue)

    def fork_work_horse(self, job: RQJob, queue: Queue) -> None:
        """Fork for a job of the host's own, while no other thread holds a lock that the child would wait for."""
        with fork_lock:
            super().fork_work_horse(job, queue)
        set_group(self.horse_pid)
        if self._is_forced:
            # The signal came before there was a work horse to kill.
            self.kill_horse()

    def kill_horse(self, sig: Any = signal.SIGKILL) -> None:
        """Kill a work horse of RQ's, only ever by the pid of another process group."""
        with contextlib.suppress(ProcessLookupError):
            if self.horse_pid > 1 and os.getpgid(self.horse_pid) != os.getpgrp():
                super().kill_horse(sig)

    def stop_plain_job(self) -> None:
        """Kill RQ's work horse. `monitor_work_horse` then fails the job, or retries it if it is to be retried."""
        self.kill_horse()


class OpsSimpleWorker(OpsWorkerLoop, SimpleWorker):
    """The simple kind: performs in its own process. Three times faster, and a job that crashes takes it along."""

    performer: InProcessPerformer

    def stop_plain_job(self) -> None:
        """Raise in the function. RQ then fails the job, or retries it if it is to be retried."""
        if self._plain_job is not None and self._plain_job.ended_at is None:
            raise Stopped("stopped with its worker")


def _age(moment: Any) -> timedelta:
    age: timedelta = now() - moment
    return age


@contextlib.contextmanager
def _redis_may_be_away() -> Iterator[None]:
    try:
        yield
    except RedisError as error:
        with fork_lock:
            _log.warning("Redis is away (%s)", type(error).__name__)
