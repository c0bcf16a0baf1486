"""Is a child of a worker for RQ: runs plain RQ jobs by RQ's own code, and keeps RQ's records of the child."""

from __future__ import annotations

import logging
import os
import socket
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from redis.client import Pipeline
from rq import Queue
from rq.callbacks import execute_stopped_callback
from rq.executions import Execution, ExecutionRegistry
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.logutils import blue, green
from rq.timeouts import JobTimeoutException
from rq.utils import as_text, now, utcformat
from rq.worker import BaseWorker, SimpleWorker, WorkerStatus
from rq.worker_registration import register
from typing_extensions import override

from ...core.visible_text import on_one_line
from ..redis.broker import WORKER_FIELD, Delivery, make_hash
from ..redis.broker import rq_id as make_rq_id
from .frames import JobOrder, PlainDeath, PlainRun
from .rq_jobs import fetch_job
from .rq_scheduler import make_scheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flask import Flask
    from redis import Redis

    from ..redis.connections import Wire

_log = logging.getLogger("flask_opsjobs.worker")
# RQ's tools show a worker until its key expires. It is written at each heartbeat.
_TTL_SECONDS = 90
# RQ kills a job that does not heed its time limit so much later.
_OVERDUE_SECONDS = 60.0


def slot_name(worker: str, slot: int) -> str:
    """Return RQ's name of a child's place. A child that replaces another keeps it."""
    return f"{worker}.{slot}"


class SlotWorker(SimpleWorker):
    """RQ's view of one place for a child.

    A child has one to run plain RQ jobs; the parent has one for each place, to keep the records. Making it
    sends nothing to Redis.
    """

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
        self._was_interrupted = False

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

    def run_job(self, plain: PlainRun, tell_limit: Callable[[float], None]) -> bool:
        """Run a plain RQ job as RQ does; return whether its time limit interrupted it.

        `tell_limit` gets the seconds after which RQ would kill it.
        """
        queue = self._queue(plain.queue)
        job = fetch_job(plain.rq_id, queue, self)
        if job is None:
            return False
        self._was_interrupted = False
        call = blue(on_one_line(str(job.description)))
        self.log.info("Worker %s: %s: %s (%s)", self.name, green(queue.name), call, job.id)
        os.environ["RQ_WORKER_ID"], os.environ["RQ_JOB_ID"] = self.name, job.id
        timeout = job.timeout or Queue.DEFAULT_TIMEOUT
        if timeout > 0:
            tell_limit(timeout + _OVERDUE_SECONDS)
        try:
            self.execute_job(job, queue)
        except Exception as error:
            _log.exception("RQ did not end its job %s", job.id)
            words = f"RQ did not end it: {type(error).__name__}"
            self._settle(job, PlainDeath(plain, 0, words, was_stopped=False))
        return self._was_interrupted

    @override
    def handle_exception(self, job: RQJob, *exc_info: Any) -> None:
        """Handle an exception of the job, and note whether it was its time limit."""
        self._was_interrupted = isinstance(exc_info[1], JobTimeoutException)
        super().handle_exception(job, *exc_info)

    def settle_death(self, death: PlainDeath) -> None:
        """Do what RQ does after the process of a plain job died: retry or fail it, tell callbacks."""
        job = fetch_job(death.job.rq_id, self._queue(death.job.queue), self)
        if job is not None:
            with self._app.app_context():
                self._settle(job, death)

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

    def maintain(self) -> None:
        """Do RQ's maintenance. It may run code of the host, and reads jobs that may be unreadable."""
        try:
            self.clean_registries()
            self.clean_group_registries()
        except Exception:
            _log.exception("RQ's maintenance failed; it is tried again in ten minutes")

    def schedule_once(self) -> None:
        """Put plain jobs that are due into their queues, unless another RQ scheduler holds the locks."""
        scheduler = make_scheduler(self.queues, self.connection, self.serializer)
        scheduler.acquire_locks()
        scheduler.schedule_once()

    def _tell_stop(self, job: RQJob) -> None:
        try:
            execute_stopped_callback(job, self.death_penalty_class)
        except Exception:
            _log.exception("the callback of the stopped RQ job %s raised", job.id)

    def _queue(self, name: str) -> Queue:
        return next(queue for queue in self.queues if queue.name == name)

    @override
    def perform_job(self, job: RQJob, queue: Queue, execution: Execution) -> bool:
        """Perform a plain RQ job in an app context of its own: `db.session` and `g` end with the job."""
        context = self._app.app_context()
        context.push()
        # Clears the value of an earlier execution. RQ sets it again when the function has ended.
        job.ended_at = None
        try:
            return super().perform_job(job, queue, execution)
        finally:
            try:
                context.pop()
            except Exception:
                _log.exception("RQ job %s: a teardown function of the app raised", job.id)
