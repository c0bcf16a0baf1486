"""Starts a worker: registers it, makes its threads, runs its main thread, and ends them in order."""

from __future__ import annotations

import gc
import logging
import os
import socket
import sys
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

from ... import signals
from ...core.db import Connection, connect_apart
from ...core.outage import Outage
from ...core.reading import read_clock
from ...failures import deploys
from ...host import TELEMETRY_THREAD, Host
from ...limits import transitions as limit_transitions
from ...workers import transitions as workers
from ...workers.process_identity import identify
from ..adopted.places import name_place
from ..redis.broker import broker_of
from .child import ChildSetup
from .event_thread import EventThread
from .forking import ChildPools, close_idle_connections, fork_lock, use_large_pages
from .heartbeat import Heartbeat
from .hygiene import ConnectionHygiene
from .loops_watch import LoopsWatch
from .mailbox import Mailbox
from .parent import FreePlaces, News, Parent, Threads, WorkerOptions
from .plain_runs import PlainRuns
from .recorder import Recorder
from .recycling import RecyclingRules
from .rq_link import Command, Popped, RQLink, StartScheduler
from .rq_scheduler import make_scheduler
from .rq_slots import SlotWorker, slot_name
from .taker import Taker

if TYPE_CHECKING:
    from flask import Flask

_log = logging.getLogger("flask_opsjobs.worker")
# How long each thread gets to end.
_END_SECONDS = 10.0
# How long the worker's last events may take.
_EVENTS_SECONDS = 2.0
# The main thread waits at most so long for the interpreter while another thread reads rows. Python's default
# is 5 ms, in which a child could perform a hundred short jobs.
_SWITCH_SECONDS = 0.0005


def process_name() -> str:
    """Return the name of this process, among all processes of all machines that run now."""
    return f"{socket.gethostname()}-{os.getpid()}"


class WorkerRuntime:
    """A worker of this process: `run` performs jobs until it is stopped, and then ends the worker.

    Making it registers the worker in the table `workers`.
    """

    def __init__(self, app: Flask, queues: Sequence[str], options: WorkerOptions) -> None:
        self._app = app
        self._options = options
        self._queues = queues
        host: Host = app.extensions["opsjobs"]
        # A new suffix at each start, because RQ blocks the name of a killed worker for minutes.
        self.name = f"{process_name()}-{uuid.uuid4().hex[:6]}"
        worker_id = register(host, self.name, queues, options.processes)
        mailbox: Mailbox[News] = Mailbox()
        self._outage = Outage(_log, "jobs and outcomes are kept", log_lock=fork_lock)
        watch = LoopsWatch(host, self.name)
        self._events = EventThread()
        heartbeat = Heartbeat(worker_id, host.settings.heartbeat_seconds, watch.look)
        self._recorder = Recorder(
            host,
            heartbeat,
            self._outage,
            mailbox.wake,
            offer=lambda lanes: mailbox.tell(FreePlaces(lanes)),
            plain_runs=PlainRuns(name_place(host, queues[0]), self.name, worker_id)
            if host.settings.adopt
            else None,
        )
        self._taker = Taker(
            host,
            self.name,
            queues,
            heartbeat,
            self._outage,
            mailbox.tell,
            self._recorder,
        )
        connections = broker_of(host).connections
        connections.connect_with(fork_lock)
        wire = connections.make_wire(queues[0])
        slots = [
            SlotWorker(app, queues, slot_name(self.name, number), wire)
            for number in range(1, options.places + 1)
        ]

        # A burst schedules once, by an errand.
        has_scheduler = options.with_scheduler and not options.burst
        self._scheduler = (
            make_scheduler(slots[0].queues, wire.redis, wire.serializer) if has_scheduler else None
        )
        self._link = RQLink(
            wire,
            queues,
            slots,
            partial(tell_of_redis, mailbox, self._taker),
            self._scheduler,
            host.settings.heartbeat_seconds,
            mailbox.wake,
        )
        rules = RecyclingRules(
            options.jobs_per_process,
            options.max_memory_mb,
            (*host.settings.may_stay, TELEMETRY_THREAD),
        )
        self._hygiene = ConnectionHygiene() if options.jobs_per_process != 1 else None
        self._parent = Parent(
            self.name,
            ChildSetup(app, host, rules, queues, self.name, ChildPools(app), self._hygiene),
            options,
            mailbox,
            Threads(heartbeat, self._recorder, self._taker, self._link, self._events),
        )

    @property
    def wants_restart(self) -> bool:
        """Return whether SIGHUP asked for a new start, with the code that is there now."""
        return self._parent.wants_restart

    def run(self, tell_ready: Callable[[], None]) -> bool:
        """Perform jobs until stopped; return whether everything was recorded in time.

        `tell_ready` is called when a signal stops the worker and no longer ends the process.
        """
        close_idle_connections(self._app)
        host: Host = self._app.extensions["opsjobs"]
        with (
            signals.handed_over(self._events.put, host),
            self._hygiene.watching() if self._hygiene is not None else nullcontext(),
        ):
            return self._run(tell_ready)

    def _run(self, tell_ready: Callable[[], None]) -> bool:
        # The collector writes into each object that it looks at, and copies the page that children share. It
        # does not run before: children would first write into the memory that it had freed.
        gc.freeze()
        if self._options.jobs_per_process == 1:
            use_large_pages()
        # The first children are forked while there is no other thread.
        self._parent.fill_places()
        for thread in (self._events, self._recorder, self._taker, self._link):
            thread.start()
        signals.send(
            signals.worker_started,
            worker=self.name,
            kind="pool",
            queues=tuple(self._queues),
            processes=self._options.processes,
        )
        interval = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_SECONDS)
        try:
            self._parent.run(tell_ready)
        finally:
            sys.setswitchinterval(interval)
            gc.unfreeze()
            # What the link has popped, the taker gives back. Then the recorder says that the worker stopped.
            has_ended = [
                thread.stop(_END_SECONDS) for thread in (self._link, self._taker, self._recorder)
            ]
            if self._scheduler is not None:
                self._scheduler.end(_END_SECONDS)
            self._events.stop(_EVENTS_SECONDS)
        return has_ended[1] and has_ended[2]


def tell_of_redis(
    mailbox: Mailbox[News], taker: Taker, news: Popped | Command | StartScheduler
) -> None:
    """Tell the main thread what came from Redis, and let the taker reserve the jobs of deliveries."""
    if isinstance(news, Popped) and taker.accept(news.deliveries) and news.plain is None:
        # The taker wakes the main thread when it has reserved them.
        mailbox.leave(news)
    else:
        mailbox.tell(news)


def register(
    host: Host, name: str, queues: Sequence[str], processes: int = 1, kind: str = "pool"
) -> int:
    """Register this process as a worker; return its id. Commits."""
    identity = identify(os.getpid())
    with closing(connect_apart(host.engine)) as connection:
        now = read_clock(connection)
        process = workers.WorkerProcess(
            name=name,
            host=socket.gethostname(),
            pid=identity.pid,
            version=version("flask-opsjobs"),
            deploy_version=host.settings.version,
            deploy_id=deploys.find_or_mark(connection, host.settings.version, now),
            queues=list(queues),
            processes=processes,
            boot_id=identity.boot_id,
            pid_namespace=identity.pid_namespace,
            pid_started_at=identity.started_at,
            kind=kind,
        )
        return workers.register(connection, process, now)


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
