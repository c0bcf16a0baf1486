"""Holds the resources of one worker process: two connections, its recorder and its heartbeat.

Before them, the process records which limiters its tasks declare.
"""

from __future__ import annotations

import logging
import os
import socket
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version

from ...core.db import Connection, connect_apart
from ...core.outage import Outage
from ...core.reading import read_clock
from ...endings import EndedAttempt
from ...host import Host
from ...jobs.perform.current import Claimed
from ...jobs.perform.outcomes import Outcome
from ...limits import transitions as limit_transitions
from ...workers import transitions as workers
from .child import fork_lock
from .heartbeat import Heartbeat, Progress
from .recorder import Recorder

_log = logging.getLogger("flask_opsjobs.worker")


def process_name() -> str:
    """Return the name of this process, among all processes of all machines that run now."""
    return f"{socket.gethostname()}-{os.getpid()}"


class WorkerRuntime:
    """The resources of an `OpsWorker`.

    Making it registers the worker in the table `workers`; `close` ends it.
    """

    def __init__(self, host: Host, kind: str, queues: Sequence[str]) -> None:
        # A new suffix at each start, because RQ blocks the name of a killed worker for minutes.
        self.name = f"{process_name()}-{uuid.uuid4().hex[:6]}"
        self.host = host
        self._claim: Connection | None = connect_apart(host.engine)
        self.id = workers.register(
            self._claim,
            workers.WorkerProcess(
                name=self.name,
                kind=kind,
                host=socket.gethostname(),
                pid=os.getpid(),
                version=version("flask-opsjobs"),
                queues=list(queues),
            ),
            read_clock(self._claim),
        )
        self._wake_read, self._wake_write = os.pipe()
        for fd in (self._wake_read, self._wake_write):
            os.set_blocking(fd, False)
        self.also_wake: Callable[[], None] | None = None
        self.heartbeat = Heartbeat(self.id, host.settings.heartbeat_seconds)
        self.outage = Outage(_log, "deliveries and outcomes are kept", log_lock=fork_lock)
        self.recorder = Recorder(host, self.heartbeat, self.outage, self.wake)
        self.recorder.start()

    @property
    def wake_fd(self) -> int:
        """A file descriptor, readable when the main thread shall check whether its job shall stop."""
        return self._wake_read

    def wake(self) -> None:
        """Wake the main thread from its poll. Safe in a signal handler and in any thread."""
        with suppress(BlockingIOError):  # the pipe is full of wake-ups already
            os.write(self._wake_write, b"!")
        if self.also_wake is not None:
            self.also_wake()

    def claim_connection(self) -> Connection:
        """Return the main thread's connection. Raises what the driver raises when Postgres is away."""
        if self._claim is None or self._claim.closed:
            with fork_lock:
                self._claim = connect_apart(self.host.engine)
        return self._claim

    def drop_claim_connection(self) -> None:
        """Close and forget the main thread's connection."""
        if self._claim is not None:
            self._claim.close()
            self._claim = None

    def submit(self, claimed: Claimed, outcome: Outcome) -> None:
        """Give an outcome to the recorder."""
        self.recorder.submit(
            EndedAttempt(claimed.id, claimed.dispatch_no, self.id, self.name, outcome)
        )

    def tell_progress(
        self, claimed: Claimed, done: int | None, total: int | None, note: str | None
    ) -> None:
        """Give progress to the recorder."""
        self.recorder.tell(Progress(claimed.id, claimed.dispatch_no, done, total, note))

    def close(self, timeout: float = 10.0) -> bool:
        """Write what is left and record the stop; False when that took longer than `timeout` seconds."""
        is_done = self.recorder.stop(timeout)
        self.drop_claim_connection()
        return is_done


def declare_limiters(host: Host, process: str) -> None:
    """Record the limiters of the app's tasks, before this process claims or dispatches a job. Commits.

    When processes run different code, the declaration of the one that started last holds.
    """
    limits = [each.declared.limit for each in host.tasks.values() if each.declared.limit]
    if not limits:
        return
    connection: Connection = connect_apart(host.engine)
    try:
        now = read_clock(connection)
        for name in limit_transitions.declare(connection, host.secrets, limits, process, now):
            _log.warning("limiter %s is declared differently than by the processes before", name)
    finally:
        connection.close()
