"""Is a child of a worker for RQ: runs plain RQ jobs by RQ's own code, and keeps RQ's records of the child."""

from __future__ import annotations

import logging
import os
import socket
import uuid
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from redis import RedisError
from redis.client import Pipeline
from rq import Queue
from rq.callbacks import execute_stopped_callback
from rq.executions import Execution, ExecutionRegistry
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.logutils import blue, green
from rq.utils import as_text, now, utcformat
from rq.worker import BaseWorker, SimpleWorker, WorkerStatus
from rq.worker_registration import register
from typing_extensions import override

from ...core.display import Display
from ...core.visible_text import on_one_line
from ...policy import describe_failure
from ..redis.broker import WORKER_FIELD, Delivery, make_hash
from ..redis.broker import rq_id as make_rq_id
from .frames import JobOrder, PlainDeath, PlainRun
from .plain_runs import PlainRunRecord
from .rq_jobs import fetch_job
from .rq_scheduler import make_scheduler
from .run_notes import RunNotes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flask import Flask
    from redis import Redis

    from ..redis.connections import Wire
    from .page import Page

_log = logging.getLogger("flask_opsjobs.worker")
# RQ's tools show a worker until its key expires. It is written at each heartbeat.
_TTL_SECONDS = 90
# RQ kills a job that does not heed its time limit so much later.
_OVERDUE_SECONDS = 60.0


def slot_name(worker: str, slot: int) -> str:
    """Return RQ's name of a child's place. A child that replaces another keeps it."""
    return f"{worker}.{slot}"


class _PoppedJobs(IntermediateQueue):
    """The jobs that were popped from a queue and are in no worker's record yet."""

    @override
    def set_first_seen(self, job_id: str) -> bool:
        """Note when maintenance saw a job here first, but leave no note of a job that has left meanwhile."""
        is_first = super().set_first_seen(job_id)
        if is_first and self.connection.lpos(self.key, job_id) is None:
            self.connection.delete(self.get_first_seen_key(job_id))
        return is_first


class _Queue(Queue):
    """A queue as maintenance reads it."""

    @property
    @override
    def intermediate_queue(self) -> IntermediateQueue:
        """Return the jobs that were popped from it."""
        return _PoppedJobs(self.key, connection=self.connection)


class SlotWorker(SimpleWorker):
    """RQ's view of one place for a child.

    A child has one to run plain RQ jobs; the parent has one for each place, to keep the records. Making it
    sends nothing to Redis.
    """

    queue_class = _Queue
    # Of the plain job that runs here now.
    _notes: RunNotes | None = None

    def __init__(
        self,
        app: Flask,
        queues: Sequence[str],
        name: str,
        wire: Wire,
    ) -> None:
        super().__init__(
            list(queues),
            name=name,
            connection=wire.redis,
            serializer=wire.serializer,
            prepare_for_work=False,
        )
        self._app = app
        self.hostname, self.pid = socket.gethostname(), os.getpid()
        self.birth_date = self.last_heartbeat = now()
        # The managed jobs that RQ's record counts.
        self._counted = [0, 0]

    @override
    def _set_connection(self, connection: Redis) -> Redis:
        # RQ sets the time-out to 415 s, because its own pop blocks for 405 s.
        return connection

    @override
    def get_heartbeat_ttl(self, job: RQJob, working_time: float = 0.0) -> int:
        """Return how long a job is not called abandoned: as for a worker that forks, since it is renewed."""
        return BaseWorker.get_heartbeat_ttl(self, job, working_time)

    @override
    def serialize(self) -> dict[Any, Any]:
        """Return RQ's record of the place. It also says that this is no plain worker of RQ."""
        return {**super().serialize(), WORKER_FIELD: self.name.rpartition(".")[0]}

    @override
    def procline(self, message: str) -> None:
        """Leave the name of the process alone: a child performs other jobs too."""

    # --- in the parent ---

    def keep_record(self, pipe: Pipeline, *, is_busy: bool) -> None:
        """Write the whole record of the place: nobody tells a worker that Redis was flushed."""
        self.last_heartbeat = now()
        state = WorkerStatus.BUSY if is_busy else WorkerStatus.IDLE
        pipe.hset(self.key, mapping=self.serialize() | {"state": state.value})
        pipe.expire(self.key, _TTL_SECONDS)
        pipe.expire(self.executions_key, _TTL_SECONDS)
        register(self, pipe)

    def count_managed(self, finished: int, failed: int) -> None:
        """Count the managed jobs that have ended at this place. RQ counts its own."""
        names = ("successful_job_count", "failed_job_count")
        for at, (name, number) in enumerate(zip(names, (finished, failed), strict=True)):
            if number != self._counted[at]:
                self.connection.hincrby(self.key, name, number - self._counted[at])
                self._counted[at] = number

    def begin_managed(self, order: JobOrder) -> Execution:
        """Return RQ's execution of a managed job that the child runs. `keep_managed` records it."""
        rq_id = make_rq_id(order.id, order.dispatch_no)
        return Execution(uuid.uuid4().hex, rq_id, self.connection, worker_name=self.name)

    def keep_managed(self, pipe: Pipeline, order: JobOrder, execution: Execution) -> None:
        """Write all that RQ's tools show of a running managed job. It expires when nobody writes it again."""
        job, ttl = self._job(execution.job_id, order.queue), _TTL_SECONDS
        delivery = Delivery(
            order.id, order.dispatch_no, order.queue, order.task, 0, order.timeout_seconds
        )
        created_at = utcformat(datetime.fromtimestamp(order.created_at, UTC))
        fields = make_hash(delivery, self.serializer) | {
            "status": JobStatus.STARTED.value,
            "worker_name": self.name,
            "created_at": created_at,
            "enqueued_at": created_at,
            "started_at": utcformat(execution.created_at),
        }
        pipe.hset(job.key, mapping=fields)
        pipe.expire(job.key, ttl)
        execution.save(ttl, pipe)
        ExecutionRegistry(job.id, self.connection).add(execution, ttl, pipe)
        job.started_job_registry.add_execution(execution, pipe, ttl)
        pipe.sadd(self.executions_key, execution.composite_key)
        pipe.expire(self.executions_key, ttl)

    def end_managed(self, pipe: Pipeline, order: JobOrder, execution: Execution) -> None:
        """Remove what RQ's tools show of a managed job."""
        job = self._job(execution.job_id, order.queue)
        execution.delete(job, pipe)
        pipe.delete(job.key)

    def runs(self, job_id: str, execution_id: str) -> bool:
        """Return whether the child runs this execution now."""
        key = f"{job_id}:{execution_id}"
        return bool(self.connection.sismember(self.executions_key, key))

    def announce_stop(self) -> None:
        """Record that the worker stops after its jobs."""
        self._shutdown_requested_date = now()
        self.set_shutdown_requested_date()

    def keep_execution(self, plain: PlainRun) -> None:
        """Keep RQ from calling the running plain job abandoned."""
        job = self._job(plain.rq_id, plain.queue)
        for execution in self._running(plain.rq_id):
            self.maintain_heartbeats(job, execution)

    def _job(self, rq_id: str, queue: str) -> RQJob:
        """Return RQ's job without reading it."""
        job = RQJob(id=rq_id, connection=self.connection, serializer=self.serializer)
        job.origin = queue
        return job

    def _running(self, rq_id: str) -> list[Execution]:
        keys = self.connection.smembers(self.executions_key)
        found = [Execution.from_composite_key(as_text(key), self.connection) for key in keys]
        for execution in found:
            execution.worker_name = self.name
        return [execution for execution in found if execution.job_id == rq_id]

    # --- in a child ---

    def run_job(self, plain: PlainRun, page: Page) -> PlainRunRecord | None:
        """Run a plain RQ job as RQ does; return how that ended, None when RQ has no such job.

        `page` gets the job's log lines, and the seconds after which RQ would kill it.
        """
        queue = self._queue(plain.queue)
        job = fetch_job(plain.rq_id, queue, self)
        if job is None:
            return None
        if self.log.isEnabledFor(logging.INFO):
            call = blue(on_one_line(self._display().clean(str(job.description))))
            self.log.info("Worker %s: %s: %s (%s)", self.name, green(queue.name), call, job.id)
        os.environ["RQ_WORKER_ID"], os.environ["RQ_JOB_ID"] = self.name, job.id
        timeout = job.timeout or Queue.DEFAULT_TIMEOUT
        if timeout > 0:
            page.limit(timeout + _OVERDUE_SECONDS)
        notes = self._notes = RunNotes(job, page.ring)
        try:
            self._execute(job, queue, notes)
            return notes.record(page.log_tail(), self._hides)
        finally:
            # What the function raised holds on to what the function had, such as its connections.
            self._notes = notes.error = None

    def _execute(self, job: RQJob, queue: Queue, notes: RunNotes) -> None:
        """Execute a job. When RQ's own code breaks off, such as without Redis, let RQ fail the job."""
        try:
            self.execute_job(job, queue)
        except Exception as error:
            _log.error("RQ did not end its job %s (%s)", job.id, describe_failure(error))
            notes.error, notes.is_told = notes.error or error, False
            words = f"RQ did not end it: {type(error).__name__}"
            try:
                self._settle(
                    job, PlainDeath(PlainRun(job.id, queue.name), 0, words, was_stopped=False)
                )
                notes.is_told = True
            except RedisError as failed:
                why = describe_failure(failed)
                _log.error("RQ does not know that its job %s has ended (%s)", job.id, why)

    def rest(self) -> None:
        """Record that the child is idle, after a plain job."""
        try:
            self.set_state(WorkerStatus.IDLE)
        except RedisError as error:  # the next heartbeat records it
            _log.warning("RQ's record of %s says busy: %s", self.name, type(error).__name__)

    @override
    def execute_job(self, job: RQJob, queue: Queue) -> None:
        """Execute a plain job as SimpleWorker does, but for the state "idle": `rest` records it."""
        execution = self.prepare_execution(job)
        if self._notes is not None:
            self._notes.execution_id = execution.id
        self.perform_job(job, queue, execution)

    @override
    def handle_execution_ended(self, job: RQJob, queue: Queue, heartbeat_ttl: int) -> None:
        """Note when the function ended. Its success is written at once, with this heartbeat in it."""
        has_failed = job.get_status(refresh=False) is JobStatus.FAILED
        if has_failed or job._success_callback_name:
            super().handle_execution_ended(job, queue, heartbeat_ttl)
        else:
            job.ended_at = job.last_heartbeat = now()

    @override
    def handle_exception(self, job: RQJob, *exc_info: Any) -> None:
        """Handle an exception of the job, or of its callback, and note it for the record of the run."""
        if self._notes is not None:
            self._notes.error = exc_info[1]
        super().handle_exception(job, *exc_info)

    def settle_death(self, death: PlainDeath) -> PlainRunRecord | None:
        """Do what RQ does after the process of a plain job died: retry or fail it, tell callbacks.

        Return how the run ended; None when RQ has no such job, or knows its end.
        """
        job = fetch_job(death.job.rq_id, self._queue(death.job.queue), self)
        if job is None:
            return None
        execution = next(iter(self._running(job.id)), None)
        notes = RunNotes(job)
        notes.execution_id = None if execution is None else execution.id
        with self._app.app_context():
            self._settle(job, death)
        return notes.record_death(death)

    def _settle(self, job: RQJob, death: PlainDeath) -> None:
        self.set_state(WorkerStatus.IDLE)
        if job.get_status() in (JobStatus.FINISHED, JobStatus.FAILED, JobStatus.STOPPED):
            return
        job.ended_at = now()
        if not death.may_call_host:
            job.webhooks = []
        words = death.words
        if death.was_stopped:
            self._stopped_job_id = job.id
            words = "Job stopped by user, its process was killed."
            if death.may_call_host:
                self._tell_stop(job)
        queue, execution = self._queue(death.job.queue), next(iter(self._running(job.id)), None)
        self.handle_job_failure(job, queue=queue, exc_string=words, execution=execution)

    def _hides(self, key: str) -> str | None:
        """Return what is stored in place of the value of a key that the host hides."""
        return self._display().hides(key)

    def _display(self) -> Display:
        return Display(self._app.extensions["opsjobs"].display, may_see=True)

    def maintain(self) -> None:
        """Do RQ's maintenance. It may run code of the host, and reads jobs that may be unreadable."""
        try:
            self.clean_registries()
            self.clean_group_registries()
        except Exception as error:
            why = describe_failure(error)
            _log.error("RQ's maintenance failed (%s); it is tried again in ten minutes", why)

    def schedule_once(self) -> None:
        """Put plain jobs that are due into their queues, unless another RQ scheduler holds the locks."""
        scheduler = make_scheduler(self.queues, self.connection, self.serializer)
        scheduler.acquire_locks()
        scheduler.schedule_once()

    def _tell_stop(self, job: RQJob) -> None:
        try:
            execute_stopped_callback(job, self.death_penalty_class)
        except Exception as error:
            why = describe_failure(error)
            _log.error("the callback of the stopped RQ job %s raised (%s)", job.id, why)

    def _queue(self, name: str) -> Queue:
        return next(queue for queue in self.queues if queue.name == name)

    @override
    def perform_job(self, job: RQJob, queue: Queue, execution: Execution) -> bool:
        """Perform a plain RQ job in an app context of its own: `db.session` and `g` end with the job."""
        context = self._app.app_context()
        context.push()
        # Clears the value of an earlier execution. RQ sets it again when the function has ended.
        job.ended_at = None
        if self._notes is not None:
            perform = partial(self._notes.perform, job.perform)
            job.perform = perform  # type: ignore[method-assign]
        try:
            return super().perform_job(job, queue, execution)
        finally:
            # Without the circle, the job and its arguments are gone at once.
            vars(job).pop("perform", None)
            try:
                context.pop()
            except BaseException as error:
                why = describe_failure(error)
                _log.error("RQ job %s: a teardown function of the app raised (%s)", job.id, why)
