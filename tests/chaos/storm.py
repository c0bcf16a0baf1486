"""Kills and stops the processes and servers of a site while its jobs run, and notes when."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psutil

from flask_opsjobs.actions.operator import Operator
from tests.support.database import Administrator
from tests.support.processes import Child
from tests.support.waiting import wait_until

from .conftest import Site

WHY: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}
# In the place of a pid: each worker.
EVERYBODY = 0
# How long a process stands still, in seconds: for longer than a worker may be silent, or for less.
_SHORT, _LONG = (0.2, 1.0), (0.3, 4.0)
# The prefetch that holds nearly all jobs.
_MOST = 1_000


@dataclass
class Standstill:
    """When a worker could record nothing: it was dead, stood still, or had no Postgres."""

    pid: int
    began: float
    ended: float = math.inf


class Storm:
    """Two workers and the loops of a site, which are struck by one fault after the other.

    With `plain`, workers also listen to the queues of limited and plain jobs, and a worker of RQ's own to
    the latter. `config` is that of the loops.
    """

    def __init__(
        self, site: Site, dice: random.Random, *, plain: str | None = None, **config: Any
    ) -> None:
        self._site, self._dice, self._plain, self._config = site, dice, plain, config
        self._queues = ("default", "limited", plain) if plain else ("default",)
        self.struck: Counter[str] = Counter()
        self.standstills: list[Standstill] = []
        # What stands still, and the earliest moment at which it may go on.
        self._stopped: list[tuple[float, list[psutil.Process]]] = []
        self._size = 0
        self.workers = [self._start_worker(), self._start_worker()]
        self._loops = self._start_loops()
        self._plain_worker = self._start_plain_worker()
        self.kills: tuple[Callable[[], None], ...] = (
            self.kill_child,
            self.kill_worker,
            self.kill_loops,
            self.kill_redis,
            self.kill_postgres,
        )
        self.faults: tuple[Callable[[], None], ...] = (
            *self.kills,
            self.kill_plain_worker,
            self.flush_redis,
            self.restart_redis,
            self.stop_redis,
            self.restart_postgres,
            self.make_postgres_read_only,
            self.stop_worker,
            self.stop_child,
            self.stop_loops,
            self.set_prefetch,
        )

    def strike(self, fault: Callable[[], None]) -> None:
        """Let this fault happen, and count it."""
        fault()
        self.struck[fault.__name__] += 1

    def go_on(self) -> None:
        """Let what has stood still for long enough go on, and start RQ's worker again when it has left.

        Ours must not leave.
        """
        self._resume(until=time.monotonic())
        for child in (*self.workers, self._loops):
            assert child.exit_code is None, f"{child} has left:\n{child.log}"
        if self._plain_worker is not None and self._plain_worker.exit_code is not None:
            self._plain_worker = self._start_plain_worker()

    def end_faults(self) -> None:
        """Let everything go on that stands still."""
        self._resume(until=math.inf)

    def stop(self) -> None:
        """Stop all processes of ours in order. RQ's own may stop much later, after Redis was away."""
        for worker in self.workers:
            assert worker.terminate(30) == 0, worker.log
        if self._plain_worker is not None:
            self._plain_worker.kill_all()
        assert self._loops.terminate(30) == 0, self._loops.log

    def save_redis(self) -> None:
        """Let Redis write its file: after `kill_redis` it is as it is now."""
        with self._site.valkey.client() as redis:
            redis.save()

    # --- kills

    def kill_child(self) -> None:
        if children := self._children():
            with suppress(psutil.NoSuchProcess):
                self._dice.choice(children).kill()

    def kill_worker(self) -> None:
        place = self._dice.randrange(2)
        self.standstills.append(Standstill(self.workers[place].pid, time.time()))
        self.workers[place].kill()
        self.workers[place] = self._start_worker()

    def kill_plain_worker(self) -> None:
        if self._plain_worker is not None:
            self._plain_worker.kill_all()
            self._plain_worker = self._start_plain_worker()

    def kill_loops(self) -> None:
        self._loops.kill()
        self._loops = self._start_loops()

    def kill_redis(self) -> None:
        """It comes back as its file says: empty, or older than it was."""
        self._site.valkey.kill()
        self._site.valkey.start()

    def kill_postgres(self) -> None:
        with self._without_postgres():
            self._site.postgres.kill()
            self._site.postgres.start()

    # --- what an operator or a provider does

    def flush_redis(self) -> None:
        self._site.valkey.flushall()

    def restart_redis(self) -> None:
        self.save_redis()
        self.kill_redis()

    def restart_postgres(self) -> None:
        with self._without_postgres():
            self._site.postgres.stop()
            self._site.postgres.start()

    def make_postgres_read_only(self) -> None:
        """As a failover to a replica does. Then it writes again."""
        with self._without_postgres(), closing(Administrator(self._site.database_url)) as admin:
            admin.fail_over()
            self._let_pass(_SHORT)
            admin.fail_back()

    def set_prefetch(self) -> None:
        """Let Redis hold nearly all jobs of the queue, or one."""
        self._size = 1 if self._size == _MOST else _MOST
        with self._site.app.app_context():
            operator = Operator(self._site.app.extensions["opsjobs"])
            operator.set_prefetch("default", self._size, **WHY)

    # --- SIGSTOP

    def stop_worker(self) -> None:
        """Its main process, or also its children."""
        worker = self._dice.choice(self.workers)
        family = worker.children() if self._dice.random() < 0.5 else []
        self._stop([psutil.Process(worker.pid), *family], _LONG)
        self.standstills.append(Standstill(worker.pid, time.time()))

    def stop_child(self) -> None:
        if children := self._children():
            self._stop([self._dice.choice(children)], _LONG)

    def stop_loops(self) -> None:
        self._stop([psutil.Process(self._loops.pid)], _LONG)

    def stop_redis(self) -> None:
        self._site.valkey.freeze()
        self._let_pass(_SHORT)
        self._site.valkey.thaw()

    def _stop(self, processes: list[psutil.Process], span: tuple[float, float]) -> None:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        self._stopped.append((time.monotonic() + self._dice.uniform(*span), processes))

    def _resume(self, until: float) -> None:
        """Let go on what may go on by then. It may be late: the storm does one thing at a time."""
        resumed = [
            process
            for may_go_on, processes in self._stopped
            if may_go_on <= until
            for process in processes
        ]
        for process in resumed:
            with suppress(psutil.NoSuchProcess):
                process.resume()
                self._note_end(process.pid)
        self._stopped = [each for each in self._stopped if each[0] > until]

    def _note_end(self, pid: int) -> None:
        for standstill in self.standstills:
            if standstill.pid == pid:
                standstill.ended = min(standstill.ended, time.time())

    # ---

    @contextmanager
    def _without_postgres(self) -> Iterator[None]:
        """Note since when and until when nobody can write. Return when somebody can read again."""
        away = Standstill(EVERYBODY, time.time())
        self.standstills.append(away)
        yield
        wait_until(lambda: self._site.rows("SELECT 1"), 30, what="Postgres is back")
        away.ended = time.time()

    def _start_worker(self) -> Child:
        return self._site.worker("--processes", "2", *self._queues)

    def _start_loops(self) -> Child:
        return self._site.loops(**self._config)

    def _start_plain_worker(self) -> Child | None:
        return self._site.plain_worker(self._plain) if self._plain else None

    def _children(self) -> list[psutil.Process]:
        return [child for worker in self.workers for child in worker.job_children()]

    def _let_pass(self, span: tuple[float, float]) -> None:
        until = time.monotonic() + self._dice.uniform(*span)
        wait_until(lambda: time.monotonic() >= until)
