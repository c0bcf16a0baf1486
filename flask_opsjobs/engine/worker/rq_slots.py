"""Is a child of a worker for RQ: runs plain RQ jobs by RQ's own code, and keeps RQ's records of the child."""

from __future__ import annotations

import logging
import os
import socket
from typing import TYPE_CHECKING

from redis.client import Pipeline
from rq import Queue
from rq.executions import Execution
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.logutils import blue, green
from rq.utils import as_text, now
from rq.worker import SimpleWorker, WorkerStatus
from rq.worker_registration import register
from typing_extensions import override

from ...core.visible_text import on_one_line
from .frames import PlainDeath, PlainRun
from .rq_bookkeeping import make_job
from .rq_scheduler import make_scheduler

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flask import Flask
    from redis import Redis

    from ..redis.connections import Wire

_log = logging.getLogger("flask_opsjobs.worker")
# RQ's tools show a worker until its key expires. It is written at each heartbeat.
_TTL_SECONDS = 90


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

    @override
    def _set_connection(self, connection: Redis) -> Redis:
        # RQ sets the time-out to 415 s, because its own pop blocks for 405 s.
        return connection

    @override
    def procline(self, message: str) -> None:
        """Leave the name of the process alone: a child performs other jobs too."""

    # --- in the parent ---

    def keep_record(self, pipe: Pipeline, *, is_busy: bool) -> None:
        """Write the whole record of the place: nobody tells a worker that Redis was flushed."""
        self.last_heartbeat = now()
        state = WorkerStatus.BUSY if is_busy else WorkerStatus.IDLE
        pipe.hset(self.key, mapping={**self.serialize(), "state": state.value})
        pipe.expire(self.key, _TTL_SECONDS)
        pipe.expire(self.executions_key, _TTL_SECONDS)
        register(self, pipe)

    def announce_stop(self) -> None:
        """Record that the worker stops after its jobs."""
        self._shutdown_requested_date = now()
        self.set_shutdown_requested_date()

    def keep_execution(self, plain: PlainRun) -> None:
        """Keep RQ from calling the running plain job abandoned."""
        job = RQJob(id=plain.rq_id, connection=self.connection, serializer=self.serializer)
        job.origin = plain.queue
        for execution in self._running(plain.rq_id):
            self.maintain_heartbeats(job, execution)

    def _running(self, rq_id: str) -> list[Execution]:
        keys = self.connection.smembers(self.executions_key)
        found = [Execution.from_composite_key(as_text(key), self.connection) for key in keys]
        for execution in found:
            execution.worker_name = self.name
        return [execution for execution in found if execution.job_id == rq_id]

    # --- in a child ---

    def run_job(self, plain: PlainRun) -> None:
        """Run a plain RQ job as RQ does."""
        queue = self._queue(plain.queue)
        job = make_job(plain.rq_id, queue, self)
        if job is None:
            return
        call = blue(on_one_line(str(job.description)))
        self.log.info("Worker %s: %s: %s (%s)", self.name, green(queue.name), call, job.id)
        os.environ["RQ_WORKER_ID"], os.environ["RQ_JOB_ID"] = self.name, job.id
        self.execute_job(job, queue)

    def settle_death(self, death: PlainDeath) -> None:
        """Do what RQ does after the process of a plain job died: retry or fail it, tell callbacks."""
        rq_id, words = death.job.rq_id, death.words
        queue = self._queue(death.job.queue)
        job = make_job(rq_id, queue, self)
        if job is None or job.get_status() in (JobStatus.FINISHED, JobStatus.FAILED):
            return
        job.ended_at = now()
        execution = next(iter(self._running(rq_id)), None)
        if death.was_stopped:
            self._stopped_job_id = rq_id
            self._settle_stop(job)
            words = "Job stopped by user, its process was killed."
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

    def _settle_stop(self, job: RQJob) -> None:
        from rq.callbacks import execute_stopped_callback

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
