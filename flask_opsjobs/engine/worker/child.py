"""Runs a child of a worker: it performs one job after the other, until it is not fit for the next one."""

from __future__ import annotations

import contextlib
import contextvars
import gc
import logging
import os
import resource
import signal
import socket
import sys
import time

# As in `recycling`: without an enum for each number, which a new process would make anew.
from _signal import SIG_DFL, SIG_IGN  # type: ignore[import-not-found]
from _signal import signal as set_handler
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from ... import signals
from ...core.steady_clock import steady_seconds
from ...host import Host
from ...jobs.perform.outcomes import Outcome
from ...jobs.perform.perform import Report, perform
from ...policy import describe_failure
from ..redis.broker import broker_of
from .forking import ChildPools, die_with
from .frames import (
    ChildChannel,
    ChildWord,
    JobOrder,
    Key,
    Order,
    PlainDeath,
    PlainRun,
    RQMaintenance,
    RQSchedule,
    RQWork,
    read_job_order,
    read_rq_order,
)
from .hygiene import ConnectionHygiene
from .left_children import LeaveReason
from .page import Page
from .plain_runs import PlainRunRecord
from .recycling import Recycling, RecyclingRules
from .rq_slots import SlotWorker, slot_name
from .work_socket import WorkSocket

if TYPE_CHECKING:
    from flask import Flask

_log = logging.getLogger("flask_opsjobs.worker")


_INTERRUPTED = LeaveReason("timed_out", "interrupted a job that reached its time limit")
# Linux, short of memory, kills a child rather than its parent.
_OOM_SCORE = b"500"
# What a job must add to the memory of its process to be told, and what it at least needs for that.
_MUCH_KB = 8 * 1024
_MUCH_SECONDS = 0.0001


@dataclass(frozen=True)
class ChildSetup:
    """What all children of a worker have in common: the app, when they leave, and who they work for."""

    app: Flask
    host: Host
    rules: RecyclingRules
    queues: Sequence[str]
    worker: str
    pools: ChildPools
    # A fresh process per job uses its connections for one job.
    hygiene: ConnectionHygiene | None
    # How long a thread may run before another one may, as the host has it.
    switch_seconds: float = field(default_factory=sys.getswitchinterval)


@dataclass(frozen=True)
class ChildLine:
    """What connects a child with its parent: what it says, its orders, and the page that both see."""

    words: socket.socket
    orders: WorkSocket
    page: Page


def run_child(
    setup: ChildSetup, number: int, line: ChildLine, parent_pid: int, of_parent: Iterable[int]
) -> None:
    """Perform jobs until the parent ends the orders, or until this process is not fit for another job.

    Called right after the fork; the process must exit when it returns or raises. `number` is the child's
    place, and `of_parent` are the descriptors that belong to the parent.
    """
    try:
        _become_child(parent_pid, setup, of_parent)
        line.orders.leave_to_parent()
        _Child(setup, number, line).run()
    except BaseException:
        _log.exception("a child of the worker broke off")
    finally:
        _flush_streams()


class _Child:
    def __init__(self, setup: ChildSetup, number: int, line: ChildLine) -> None:
        self._setup = setup
        self._number = number
        self._slots: dict[int, SlotWorker] = {}
        self._app = setup.app
        self._host = setup.host
        self._tasks = setup.host.performable
        self._channel = ChildChannel(line.words)
        self._orders = line.orders
        self._page = line.page
        self._pid = os.getpid()
        self._peak_kb = _peak_kb()
        # Why it is not fit for another job, as far as the job's outcome says so.
        self._unfit: LeaveReason | None = None

    def run(self) -> None:
        try:
            self._run()
        finally:
            self._host.telemetry.finish()

    def _run(self) -> None:
        hooks = self._host.child_hooks
        if hooks.started is not None and not self._start(hooks.started):
            return
        # After the hook: what it said to trackers holds for every job.
        self._host.telemetry.watch_jobs_only()
        # After the hook: what it started may stay.
        recycling = Recycling(self._setup.rules, self._setup.hygiene)
        self._channel.say(ChildWord.READY)
        # The next order is received only here, so the child never has two: all others may be taken back.
        while (order := self._orders.receive()) is not None:
            if order[0] == Order.PING:
                self._channel.say(ChildWord.HERE)
                continue
            # Each job has a copy of the context variables, so the next one sees none that it set.
            task = contextvars.copy_context().run(self._perform, *order)
            reasons = [*self._clean_up(task), *recycling.find_reasons(task or None)]
            self._page.end()
            if reasons:
                self._channel.leaving(reasons)
                break
        if hooks.leaving is not None:
            hooks.leaving()

    def _start(self, hook: Callable[[], object]) -> bool:
        """Let the host prepare this process; False, and say so, when it fails."""
        try:
            hook()
        except BaseException:  # it may call `sys.exit`
            _log.exception("the hook child_started raised")
            self._channel.leaving(
                [LeaveReason("hook", "could not start: the hook child_started raised")]
            )
            return False
        return True

    def _clean_up(self, task: str | None) -> Iterator[LeaveReason]:
        """Let the host clean up after a job. Yield why the process is not fit for another one."""
        if self._unfit is not None:
            yield self._unfit
        hook = self._host.child_hooks.after_each_job
        if hook is None or task is None:
            return
        try:
            hook()
        except BaseException as error:  # it may call `sys.exit`
            _log.error("the hook after_each_job raised (%s)", describe_failure(error))
            yield LeaveReason(
                "hook", "could not clean up: the hook after_each_job raised", task or None
            )

    def _perform(self, kind: int, key: Key, body: bytes) -> str | None:
        """Perform a job, or do other work of RQ.

        Return the task of the job, "" for a plain RQ job, and None when no job ran.
        """
        if kind == Order.JOB:
            order = read_job_order(body)
            self._perform_job(order)
            return order.task
        work = read_rq_order(body)
        self._page.begin(key, steady_seconds())
        run = None
        try:
            run = self._work_for_rq(work)
        except Exception as error:  # such as an outage of Redis
            _log.error("%s failed (%s)", work, describe_failure(error))
        self._leave_if_forked()
        self._channel.done(run)
        if not isinstance(work, PlainRun):
            return None
        self._slot(self._number).rest()
        return ""

    def _with_peak(self, outcome: Outcome, seconds: float) -> Outcome:
        """The outcome, with the most memory that this process has had when this job raised it by much.

        Of a job that needs less than one before it nothing is known. Most outcomes stay plain. The shortest
        jobs are not asked about: the kernel accounts for the time of a process that asks, and often preempts
        it then.
        """
        if seconds < _MUCH_SECONDS:
            return outcome
        peak = _peak_kb()
        if peak < self._peak_kb + max(_MUCH_KB, self._peak_kb // 10):
            return outcome
        self._peak_kb = peak
        return replace(outcome, max_rss_kb=peak)

    def _leave_if_forked(self) -> None:
        """End a process that a function forked and that has come out of it. The job is not its own."""
        if os.getpid() != self._pid:
            os._exit(0)

    def _work_for_rq(self, work: RQWork) -> PlainRunRecord | None:
        """Do it; return how a plain job ended that was part of it."""
        match work:
            case PlainRun():
                run = self._slot(self._number).run_job(work, self._page)
                if run is not None and run.outcome == "timed_out":
                    self._unfit = _INTERRUPTED
                return run
            case PlainDeath(place=place):
                return self._slot(place).settle_death(work)
            case RQMaintenance():
                self._slot(self._number).maintain()
            case RQSchedule():
                self._slot(self._number).schedule_once()
        return None

    def _slot(self, number: int) -> SlotWorker:
        """Return what the child at a place is for RQ. It is made when it is needed first."""
        if number not in self._slots:
            setup = self._setup
            wire = broker_of(self._host).connections.wire(setup.queues[0])
            name = slot_name(setup.worker, number)
            self._slots[number] = SlotWorker(setup.app, setup.queues, name, wire)
        return self._slots[number]

    def _perform_job(self, order: JobOrder) -> None:
        """Perform a managed job and send its outcome, unless its reservation has ended."""
        if (wait := order.begin_after - steady_seconds()) > 0:
            time.sleep(wait)
        if steady_seconds() > order.begin_before:
            self._channel.late(order.key)
            return
        report = Report(
            self._page.ring,
            self._host.settings.max_output_bytes,
            partial(self._channel.progress, order.key),
            self._host.spare.one,
            self._host,
        )
        began = steady_seconds()
        self._page.begin(order.key, began)
        context = self._app.app_context()
        claimed = order.claimed()
        with self._host.telemetry.attempt(claimed, self._setup.worker) as watched:
            context.push()
            outcome = perform(self._tasks, claimed, report)
            ended = steady_seconds()
            self._leave_if_forked()
            # Past its run time: with longer run times the worker takes fewer jobs at once.
            outcome = self._with_peak(outcome, ended - began)
            # Sent inside the context: if a host's teardown raises or hangs, the outcome is already sent.
            self._channel.outcome(order.key, began, ended, outcome)
            watched.tell(outcome.kind, report.take_error(), report.connect)
        self._unfit = _why_unfit(order.task, outcome)
        try:
            context.pop()
        except BaseException as error:
            why = describe_failure(error)
            _log.error("job %d: a teardown function of the app raised (%s)", order.id, why)


def _peak_kb() -> int:
    """The most memory that this process has had, in kB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _why_unfit(task: str, outcome: Outcome) -> LeaveReason | None:
    """Return why the process is not fit for another job after this outcome; None when it is."""
    if outcome.kind == "timed_out":
        return replace(_INTERRUPTED, task=task)
    if outcome.error is not None and outcome.error.startswith("MemoryError"):
        return LeaveReason("memory", "ran out of memory", task)
    return None


def _become_child(parent_pid: int, setup: ChildSetup, of_parent: Iterable[int]) -> None:
    os.setpgid(0, 0)
    die_with(parent_pid)
    signal.set_wakeup_fd(-1)
    # Ctrl-C in a terminal reaches all processes. The child ignores it and finishes its job.
    set_handler(signal.SIGINT, SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGUSR1, signal.SIGHUP, signal.SIGCHLD):
        set_handler(number, SIG_DFL)
    _let_go(of_parent)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
        file.write(_OOM_SCORE)
    # What the parent has made stays shared: the collector writes into none of it.
    gc.freeze()
    sys.setswitchinterval(setup.switch_seconds)
    # Another thread of the parent may have held the locks of these.
    setup.pools.take()
    if setup.hygiene is not None:
        setup.hygiene.forget()
    setup.host.spare.forget()
    signals.call_directly()
    broker_of(setup.host).connections.forget()


def _let_go(descriptors: Iterable[int]) -> None:
    """Put nothing in the place of the parent's descriptors, without closing what they lead to.

    Their objects are still here. One that is finalized later then writes into nothing, and not into a file
    that got its number.
    """
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.dup2(nothing, descriptor, inheritable=False)
    os.close(nothing)


def _flush_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
