"""Extends RQ's worker loop: claims each managed job before it runs, and records its outcome after."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

import psycopg
from redis import Redis, RedisError
from redis.client import Pipeline, PubSub, PubSubWorkerThread
from rq import Queue
from rq.defaults import DEFAULT_LOGGING_DATE_FORMAT, DEFAULT_LOGGING_FORMAT
from rq.job import Job as RQJob
from rq.logutils import blue, green
from rq.utils import now
from rq.worker import SimpleWorker, Worker, WorkerStatus
from rq.worker.base import BaseWorker
from typing_extensions import override

from ...core.db import is_away
from ...core.outage import Backoff
from ...core.visible_text import on_one_line
from ...jobs.perform.current import Claimed, Stopped
from ...jobs.perform.outcomes import Outcome
from ..redis.broker import is_heartbeat_request, parse_rq_id
from .child import forget_connections, fork_lock, set_group
from .claim import NotClaimed, claim
from .performer import ForkingPerformer, InProcessPerformer, Performer
from .rq_bookkeeping import RQBookkeeping, make_job, pop
from .rq_scheduler import OpsScheduler
from .runtime import WorkerRuntime

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from flask import Flask
    from rq.executions import Execution

_log = logging.getLogger("flask_opsjobs.worker")
_REFRESH_SECONDS = 1.0
_LOOK_SECONDS = 0.5
_THREAD = "claim"


class OpsWorkerLoop(BaseWorker):
    """Shared by both kinds of OpsWorker: takes, claims, performs and records jobs.

    An error of Redis or Postgres must not end RQ's loop, so it is caught here.
    """

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

        `tell_ready` is called when the signal handlers are installed, right before the first job is taken.
        """
        self.app = app
        self.runtime = runtime
        self.performer = performer
        self._tell_ready = tell_ready
        self.bookkeeping = RQBookkeeping(self)
        self._sent_state: str | None = None
        self._suspension_read_at = 0.0
        self._takes_jobs = True
        self._failures = Backoff()
        self._scheduler_asked_at = time.monotonic()
        self.performed = 0
        self._plain_job: RQJob | None = None
        self._is_forced = False

    @override
    def _install_signal_handlers(self) -> None:
        """Install RQ's handlers, then call `tell_ready`: before this, a signal just ends the process."""
        super()._install_signal_handlers()
        self._tell_ready()

    def has_failed(self, burst: bool, max_jobs: int | None) -> bool:
        """Return whether an exception ended the loop: it ends RQ's `work` without an error."""
        is_through = max_jobs is not None and self.performed >= max_jobs
        return not (self._stop_requested or burst or is_through)

    # --- taking ---

    @override
    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[RQJob, Queue] | None:
        """Return the next job.

        Blocks for one second at a time, so that a stop happens between two pops and loses no job.
        """
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
                    # Busy from here on, in memory, so that a stop cannot come between the pop and the claim.
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
        """Return whether this worker may take a job.

        It may not while its outcomes or its heartbeat are late (backpressure). Deliveries then stay in Redis
        for other workers.
        """
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
        """Log that a job was taken, as RQ does.

        Of our own delivery only the id is logged, because its RQ job has not been read.
        """
        where = green(queue.name)
        if self.log_job_description and parse_rq_id(job.id) is None:
            call = blue(on_one_line(str(job.description)))
            self.log.info("Worker %s: %s: %s (%s)", self.name, where, call, job.id)
        else:
            self.log.info("Worker %s: %s: %s", self.name, where, job.id)

    @override
    def execute_job(self, job: RQJob, queue: Queue) -> None:
        """Perform a delivery of ours; leave any other job to RQ."""
        self._state = WorkerStatus.BUSY
        self.performed += 1
        delivery = parse_rq_id(job.id)
        if delivery is None:
            with _redis_may_be_away():
                super().execute_job(job, queue)
            self._sent_state = None
            return
        try:
            self._execute_managed(job, queue, delivery)
            self._failures.reset()
        except Exception:
            with fork_lock:
                _log.exception(
                    "the delivery %s was not performed; "
                    "the watch loop rescues its job, or the recall loop recalls it",
                    job.id,
                )
            self.runtime.heartbeat.release(*delivery)
            self._wait(self._failures.next_seconds())
        self._state = WorkerStatus.IDLE

    @override
    def perform_job(self, job: RQJob, queue: Queue, execution: Execution) -> bool:
        """Perform a plain RQ job in an app context of its own: `db.session` and `g` end with the job."""
        context = self.app.app_context()
        context.push()
        # Clears the value of an earlier execution. RQ sets it again when the function has ended.
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
                self.bookkeeping.end(job, queue, None, is_success=False)
            return
        runtime.heartbeat.own(*delivery)
        # Heartbeats go on during this sleep: another thread sends them.
        time.sleep(claimed.wait_seconds)
        execution = self.bookkeeping.begin(job, queue)
        began = time.monotonic()
        try:
            outcome = self.performer.perform(claimed, lambda: self.bookkeeping.keep(job, execution))
        except Exception as error:
            _log.exception("job %d could not be started", claimed.id)
            why = f"the worker could not start it: {type(error).__name__}"
            outcome = Outcome(
                kind="died",
                error=why,
                cause_of_death=why,
                delay_seconds=self.performer.backoff_seconds(claimed),
            )
        if outcome.kind == "lost":
            _log.warning("job %d does not run here any more: %s", claimed.id, outcome.error)
        if outcome.kind != "not_run":
            # This takes no time. If it counted, the prefetch would grow with jobs that cannot run here.
            runtime.heartbeat.note_run(time.monotonic() - began)
        runtime.submit(claimed, outcome)
        self.bookkeeping.end(job, queue, execution, is_success=outcome.kind == "returned")

    def _claim(self, delivery: tuple[int, int]) -> Claimed | NotClaimed | None:
        """Return the claimed job, or why not; None when the worker shall stop while Postgres is away."""
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
        """Wait for `seconds`, sending RQ's heartbeat; return False as soon as the worker shall stop."""
        until = time.monotonic() + seconds
        while not self._stop_requested and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK_SECONDS))
            self.heartbeat()
        return not self._stop_requested

    @override
    def _set_connection(self, connection: Redis) -> Redis:
        # RQ sets the time-out to 415 s, because its pop blocks for 405 s. Our pop blocks for 1 s, so its
        # time-out stays 5 s.
        return connection

    # --- fewer round trips; a time-out of Redis does not end RQ's loop ---

    @override
    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Send RQ's heartbeat in one pipeline, at most once a second unless the caller gives its pipeline."""
        if pipeline is not None:
            super().heartbeat(timeout, pipeline)
            return
        last = self.last_heartbeat
        if last is not None and (_age(last)).total_seconds() < _REFRESH_SECONDS:
            return
        with _redis_may_be_away(), self.connection.pipeline(transaction=False) as pipe:
            super().heartbeat(timeout, pipe)
            pipe.execute()

    @override
    def set_state(self, state: str, pipeline: Pipeline | None = None) -> None:
        """Write the worker's state to Redis, for RQ's tools, when it has changed."""
        if pipeline is None and state == self._sent_state:
            self._state = state
            return
        with _redis_may_be_away():
            super().set_state(state, pipeline)
            self._sent_state = state

    @override
    def check_for_suspension(self, burst: bool) -> None:
        """Check RQ's suspension flag, at most once a second."""
        moment = time.monotonic()
        if moment - self._suspension_read_at >= _REFRESH_SECONDS:
            self._suspension_read_at = moment
            with _redis_may_be_away():
                super().check_for_suspension(burst)

    @override
    def run_maintenance_tasks(self) -> None:
        """Run RQ's maintenance. It reads jobs of the host, and an unreadable one must not end the worker."""
        try:
            with _redis_may_be_away():
                super().run_maintenance_tasks()
        except Exception:
            _log.exception("RQ's maintenance failed; it is tried again in ten minutes")
        self.last_cleaned_at = now()  # type: ignore[assignment]

    # --- RQ's scheduler ---

    @override
    def _start_scheduler(
        self,
        burst: bool = False,
        logging_level: str | None = None,
        date_format: str = DEFAULT_LOGGING_DATE_FORMAT,
        log_format: str = DEFAULT_LOGGING_FORMAT,
    ) -> None:
        """Start RQ's scheduler for each queue that has no other; in a burst, schedule only once."""
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
        """Once a minute, take over when no RQ scheduler holds the locks. RQ itself waits ten minutes."""
        moment = time.monotonic()
        if self.scheduler is None or moment - self._scheduler_asked_at < self.scheduler_seconds:
            return
        self._scheduler_asked_at = moment
        process = self.scheduler._process
        if process is None or not process.is_alive():
            self.scheduler.acquire_locks(auto_start=True)

    # --- stopping ---

    @override
    def _shutdown(self) -> None:
        # RQ would raise StopRequested here when idle, which loses a delivery between its pop and its claim.
        self._stop_requested = True
        if self.get_state() == WorkerStatus.BUSY:
            # Logs nothing, because this is a signal handler and the main thread may be logging.
            with contextlib.suppress(RedisError):
                self.set_shutdown_requested_date()
        self.runtime.wake()

    @override
    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:
        """Kill the running job after a second signal.

        That counts as a failed attempt, and RQ may retry a plain job.
        """
        if (
            self._shutdown_requested_date is not None
            and _age(self._shutdown_requested_date).total_seconds() < 1
        ):
            return
        self._stop_requested = True
        self._is_forced = True
        # Comes first, because the calls after it may raise.
        self.runtime.wake()
        self.stop_plain_job()
        self.performer.stop_now("stopped with its worker")

    def stop_plain_job(self) -> None:
        """End the plain RQ job that is running, if there is one."""
        raise NotImplementedError

    @override
    def handle_payload(self, message: dict[str, bytes]) -> None:
        """Run a command from RQ's channel. It runs in another thread, which no error may end."""
        with fork_lock:
            try:
                if is_heartbeat_request(message):
                    self.runtime.recorder.beat_now()
                else:
                    super().handle_payload(message)
            except Exception:
                _log.exception("a command from RQ's channel failed")

    @override
    def _pubsub_exception_handler(
        self, exc: Exception, pubsub: PubSub, pubsub_thread: PubSubWorkerThread
    ) -> None:
        with fork_lock:
            _log.warning("RQ's command channel: %s", type(exc).__name__)
        time.sleep(2.0)

    @override
    def teardown(self) -> None:
        """Remove the worker from RQ. An outage of Redis must not hide that the worker has stopped."""
        try:
            super().teardown()
        except RedisError as error:
            _log.warning(
                "the worker stays in RQ's list until its key expires: %s", type(error).__name__
            )


class OpsWorker(OpsWorkerLoop, Worker):
    """The forking worker: one child process per job, so a job that leaks, crashes or hangs harms no other."""

    performer: ForkingPerformer

    @override
    def main_work_horse(self, job: RQJob, queue: Queue) -> None:
        """Run a plain RQ job in its work horse, after dropping the connections inherited from the parent."""
        forget_connections(self.app)
        super().main_work_horse(job, queue)

    @override
    def fork_work_horse(self, job: RQJob, queue: Queue) -> None:
        """Fork for a plain RQ job, while no other thread holds a lock that the child would wait for."""
        with fork_lock:
            super().fork_work_horse(job, queue)
        set_group(self.horse_pid)
        if self._is_forced:
            # The signal came before there was a work horse to kill.
            self.kill_horse()

    @override
    def kill_horse(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """Kill RQ's work horse, but only when it has a process group of its own."""
        with contextlib.suppress(ProcessLookupError):
            if self.horse_pid > 1 and os.getpgid(self.horse_pid) != os.getpgrp():
                super().kill_horse(sig)

    @override
    def stop_plain_job(self) -> None:
        """Kill RQ's work horse.

        `monitor_work_horse` then retries the job when it has retries left, or fails it.
        """
        self.kill_horse()


class OpsSimpleWorker(OpsWorkerLoop, SimpleWorker):
    """The simple worker: performs jobs in its own process.

    It is three times faster than the forking worker, but a job that crashes ends the worker.
    """

    performer: InProcessPerformer

    @override
    def stop_plain_job(self) -> None:
        """Raise `Stopped` in the function. RQ then retries the job when it has retries left, or fails it."""
        if self._plain_job is not None and self._plain_job.ended_at is None:
            raise Stopped("stopped with its worker")


def _age(moment: datetime) -> timedelta:
    return now() - moment


@contextlib.contextmanager
def _redis_may_be_away() -> Iterator[None]:
    try:
        yield
    except RedisError as error:
        with fork_lock:
            _log.warning("Redis is away (%s)", type(error).__name__)
