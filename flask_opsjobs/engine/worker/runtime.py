"""Keeps what one worker process of ours needs: two connections, its recorder, its heartbeat."""

from __future__ import annotations

import logging
import os
import socket
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version

from ...core.db import Connection, connect_apart
from ...endings import Ending
from ...host import Host
from ...jobs.perform.claimed import Claimed
from ...jobs.perform.outcomes import Outcome
from ...workers import transitions as workers
from ..dispatch.dispatch import read_clock
from .child import fork_lock
from .heartbeat import Heartbeat, Progress
from .outage import Outage
from .recorder import Recorder

_log = logging.getLogger("flask_opsjobs.worker")


class WorkerRuntime:
    """What an `OpsWorker` works with. It writes the row of the table `workers` when it is made; `close` ends it."""

    def __init__(self, host: Host, kind: str, queues: Sequence[str]) -> None:
        # A suffix per start: RQ blocks the name of a killed worker for minutes.
        self.name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self.host = host
        self._claim: Connection | None = connect_apart(host.engine)
        self.id = workers.register(
            self._claim,
            name=self.name,
            kind=kind,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=version("flask-opsjobs"),
            queues=list(queues),
            now=read_clock(self._claim),
        )
        self._wake_read, self._wake_write = os.pipe()
        for fd in (self._wake_read, self._wake_write):
            os.set_blocking(fd, False)
        self.also_wake: Callable[[], None] | None = None
        self.heartbeat = Heartbeat(self.id, host.settings.heartbeat_seconds)
        self.outage = Outage(_log, "deliveries and outcomes are kept")
        self.recorder = Recorder(host, self.heartbeat, self.outage, self.wake)
        self.recorder.start()

    @property
    def wake_fd(self) -> int:
        """Readable when the main thread shall look whether a job of its shall stop."""
        return self._wake_read

    def wake(self) -> None:
        """Wake the main thread out of its poll. Safe in a signal handler and in any thread."""
        with suppress(BlockingIOError):  # then it is full of wake-ups already
            os.write(self._wake_write, b"!")
        if self.also_wake is not None:
            self.also_wake()

    def claim_connection(self) -> Connection:
        """The main thread's connection. Raises what the driver raises when Postgres is away."""
        if self._claim is None or self._claim.closed:
            with fork_lock:
                self._claim = connect_apart(self.host.engine)
        return self._claim

    def drop_claim_connection(self) -> None:
        """Forget a connection that broke."""
        if self._claim is not None:
            self._claim.close()
            self._claim = None

    def submit(self, claimed: Claimed, outcome: Outcome) -> None:
        """Hand an outcome to the recorder."""
        self.recorder.submit(Ending(claimed.id, claimed.dispatch_no, self.id, self.name, outcome))

    def tell_progress(
        self, claimed: Claimed, done: int | None, total: int | None, note: str | None
    ) -> None:
        """Hand progress to the recorder."""
        self.recorder.tell(Progress(claimed.id, claimed.dispatch_no, done, total, note))

    def close(self, timeout: float = 10.0) -> bool:
        """Write what is left and leave; False when Postgres did not let us within `timeout` seconds."""
        is_done = self.recorder.stop(timeout)
        self.drop_claim_connection()
        return is_done
