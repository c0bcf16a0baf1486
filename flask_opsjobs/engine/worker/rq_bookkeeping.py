"""Writes RQ's own records of a managed job from the worker's parent: one MULTI before it and one after."""

from __future__ import annotations

import logging
from typing import Any

from redis import RedisError
from rq import Queue
from rq.executions import Execution
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.worker import WorkerStatus

_log = logging.getLogger("flask_opsjobs.worker")


class RQBooks:
    """RQ's records of a worker that performs our jobs, for RQ's tools.

    Without Redis a record is lost, never a job.
    """

    def __init__(self, worker: Any) -> None:
        self._worker = worker

    def begin(self, job: RQJob, queue: Queue) -> Execution | None:
        """Record the start: add the execution, set the worker to busy, leave the intermediate list.

        Returns None when Redis did not answer.
        """
        worker = self._worker
        try:
            with worker.connection.pipeline() as pipe:
                ttl = worker.job_monitoring_interval + 60
                execution = Execution.create(job, ttl, pipeline=pipe, worker_name=worker.name)
                worker.executions[execution.id] = execution
                pipe.hset(
                    job.key, mapping={"status": JobStatus.STARTED.value, "worker_name": worker.name}
                )
                pipe.lrem(queue.intermediate_queue_key, 1, job.id)
                pipe.hset(worker.key, "state", WorkerStatus.BUSY.value)
                pipe.execute()
            return execution
        except RedisError as error:
            _log.warning("RQ has no record of the start of %s: %s", job.id, type(error).__name__)
            return None

    def keep(self, job: RQJob, execution: Execution | None) -> None:
        """Extend the expiry of the execution while the job runs."""
        if execution is None:
            return
        try:
            self._worker.maintain_heartbeats(job, execution)
        except RedisError as error:
            _log.warning("RQ has no record of a heartbeat of %s: %s", job.id, type(error).__name__)

    def end(
        self, job: RQJob, queue: Queue, execution: Execution | None, *, is_success: bool
    ) -> None:
        """Record the end: remove the delivery and its execution from RQ, count it, set the worker to idle."""
        worker = self._worker
        try:
            with worker.connection.pipeline() as pipe:
                if execution is not None:
                    execution.delete(job=job, pipeline=pipe)
                # Repeated here, because `begin` may have failed.
                pipe.lrem(queue.intermediate_queue_key, 1, job.id)
                pipe.delete(job.key)
                pipe.hincrby(
                    worker.key, "successful_job_count" if is_success else "failed_job_count", 1
                )
                pipe.hset(worker.key, "state", WorkerStatus.IDLE.value)
                worker.heartbeat(pipeline=pipe)
                pipe.execute()
        except RedisError as error:
            _log.warning("RQ has no record of the end of %s: %s", job.id, type(error).__name__)
        finally:
            if execution is not None:
                worker.executions.pop(execution.id, None)
