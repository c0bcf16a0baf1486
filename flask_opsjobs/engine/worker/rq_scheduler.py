"""Runs RQ's scheduler beside a worker. It puts plain RQ jobs into their queues when they are due."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
from collections.abc import Sequence
from typing import Any

from redis import Redis, RedisError
from rq import Queue
from rq.job import Job as RQJob
from rq.registry import ScheduledJobRegistry
from rq.scheduler import RQScheduler
from rq.serializers import Serializer
from rq.utils import current_timestamp
from typing_extensions import override

from ...core.outage import Backoff
from ..redis.connections import descriptors_of_pool
from .forking import die_with
from .rq_jobs import fail_unreadable

_log = logging.getLogger("flask_opsjobs.worker")


class OpsScheduler(RQScheduler):
    """RQ's scheduler, but it survives an outage of Redis and unreadable jobs, and it ends with its worker.

    It takes RQ's lock of each queue that no other RQ scheduler holds, and schedules the jobs of those queues.
    """

    @override
    def start(self) -> Any:
        """Start the process. The caller holds `fork_lock`, so that it inherits no lock of another thread."""
        self._worker_pid = os.getpid()
        # RQ forgets this client and leaves its socket open: each later child would inherit it.
        self.connection.connection_pool.disconnect()
        return super().start()

    def descriptors(self) -> list[int]:
        """Return the descriptors of its connections, which another child must let go."""
        return [] if self._connection is None else descriptors_of_pool(self._connection)

    @property
    def is_running(self) -> bool:
        """Return whether its process runs."""
        return self._process is not None and self._process.is_alive()

    def end(self, timeout: float) -> None:
        """Ask its process to stop, and wait for that; kill it after `timeout` seconds."""
        if self._process is None:
            return
        self._process.terminate()
        self._process.join(timeout)
        self._process.kill()

    def schedule_once(self) -> None:
        """Put due jobs into their queues once, in this process, and release the locks."""
        if not self.acquired_locks:
            return
        try:
            self.register_birth()
            self.enqueue_scheduled_jobs()
        finally:
            self.release_locks()
            self.register_death()

    @override
    def work(self) -> None:
        """Schedule until asked to stop, and then stop at once.

        RQ's own loop would first finish its one-second sleep.
        """
        die_with(self._worker_pid)
        self._install_signal_handlers()
        self._signals, written = socket.socketpair()
        written.setblocking(False)
        signal.set_wakeup_fd(written.fileno())
        while not self._stop_requested:
            try:
                self._schedule_until_stopped()
            except RedisError as error:
                self._wait_for_redis(error)

    def _schedule_until_stopped(self) -> None:
        self.register_birth()
        while not self._stop_requested:
            if self.should_reacquire_locks:
                self.acquire_locks()
            self.heartbeat()
            self.enqueue_scheduled_jobs()
            self._wait(self.interval)
        self.stop()

    def _wait(self, seconds: float) -> None:
        """Wait for `seconds`, or until a signal comes."""
        if select.select([self._signals], [], [], seconds)[0]:
            self._signals.recv(1024)

    @override
    def enqueue_scheduled_jobs(self) -> None:
        """Put due jobs into their queues. A job that cannot be read fails, and does not block the others."""
        try:
            super().enqueue_scheduled_jobs()
        except RedisError:
            raise
        except Exception:
            if not self._fail_unreadable():
                raise

    def _fail_unreadable(self) -> bool:
        """Fail the due jobs that cannot be read; return whether there were any."""
        unreadable = [
            self._fail_if_unreadable(rq_id, registry)
            for registry in self._scheduled_job_registries
            for rq_id in registry.get_jobs_to_schedule(current_timestamp())
        ]
        return any(unreadable)

    def _fail_if_unreadable(self, rq_id: str, registry: ScheduledJobRegistry) -> bool:
        try:
            RQJob.fetch_many([rq_id], connection=self.connection, serializer=self.serializer)
            return False
        except RedisError:
            raise
        except Exception as error:
            queue = Queue(registry.name, connection=self.connection, serializer=self.serializer)
            fail_unreadable(rq_id, queue, error)
            registry.connection.zrem(registry.key, rq_id)
            return True

    def _wait_for_redis(self, error: RedisError) -> None:
        if self._stop_requested:
            return
        _log.warning(
            "RQ's scheduler waits for Redis (%s); plain RQ jobs that are due must wait",
            type(error).__name__,
        )
        backoff = Backoff(longest=2.0)
        while not self._stop_requested:
            self._wait(backoff.next_seconds())
            with contextlib.suppress(RedisError):
                self.connection.ping()
                return


def make_scheduler(
    queues: Sequence[Queue], redis: Redis, serializer: Serializer | None
) -> OpsScheduler:
    """Return a scheduler of these queues. Nothing is sent to Redis yet."""
    level = logging.getLogger("rq.worker").level
    return OpsScheduler(queues, connection=redis, logging_level=level, serializer=serializer)
