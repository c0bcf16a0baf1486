"""Runs a worker: its main thread feeds the children, hears them, and stops what must stop.

It waits for nothing but its poll. Other threads take jobs (`taker`), write outcomes and heartbeats
(`recorder`), and talk with Redis (`rq_link`). They tell what they did; this thread reads it between polls.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from ...core.steady_clock import steady_seconds
from ...core.visible_text import on_one_line
from ...endings import EndedAttempt
from ...jobs.perform.outcomes import Outcome
from ..dispatch.dispatch import has_limits
from ..redis import broker
from ..redis.broker import rq_id as make_rq_id
from .child import ChildSetup
from .children import ChildProcess, Death
from .claim import LimitedLane
from .demand import WITHOUT_POSTGRES_SECONDS, WITHOUT_REDIS_SECONDS, Demand, WorkerJobs
from .errands import BY_COMMAND, ERRAND_SECONDS, OVERDUE, Errands
from .event_thread import EventThread
from .forking import fork_lock_if_free
from .frames import (
    ChildWord,
    Key,
    Order,
    PlainRun,
    RQWork,
    make_job_order,
    make_rq_order,
    read_json,
    read_key,
    read_leaving,
    read_outcome,
)
from .heartbeat import CANCELED, LOST, Heartbeat, Progress
from .left_children import JOBS_DONE, LeaveReason
from .listening import Listening
from .mailbox import Mailbox
from .places import ALONE, MOST_AHEAD, SHORT_SECONDS, Place, Sent, outcome_of_death
from .recorder import Recorder
from .reserved import (
    FRESH_SECONDS,
    SHORTEST_SECONDS,
    STUCK_SECONDS,
    ReserveBudget,
    ReservedJob,
    RunTimes,
    WaitingJobs,
)
from .rq_link import Command, Popped, RQLink, StartScheduler
from .rq_scheduler import OpsScheduler
from .systemd import Systemd
from .taker import Begun, ClaimAnswer, LimitedDelivery, Start, Taken, Taker
from .tally import Tally
from .work_socket import LARGE_BYTES

_log = logging.getLogger("flask_opsjobs.worker")

# How often children are looked at: starts are written, and overdue jobs are killed.
_LOOK_SECONDS = 0.02
# The child ends an overdue function itself. If it cannot (a loop in C), it is killed so much later. So is a
# child that does not begin what it was given, or whose host's teardown does not end.
_GRACE_SECONDS = 5.0
# A child that is not ready so long after its fork is killed: it may hang in a lock, or in the host's hook.
_START_SECONDS = 60.0
# RQ sends a second signal that is an echo of the first: one within this time does not count.
_ECHO_SECONDS = 1.0
# RQ's records show a managed job when it has run for so long.
_SHOWN_SECONDS = 1.0
# How long idle children get to end when the worker stops.
_END_SECONDS = 5.0
# A child that needs longer for its order, and longer than expected, is sent nothing more; others get what
# it has not received. It is asked so often.
_SILENT_SECONDS, _LISTEN_SECONDS = 0.01, 0.005
# At most so many orders are sent to one child, its running one included.
_MOST_AHEAD = 50
_NOBODY = (0, 0)
# A fork waits no longer for the record of an end that somebody wished.
_RECORD_SECONDS = 0.1
_STOPPED = "stopped with its worker"
# The report that goes with the heartbeat is made so often.
_REPORT_SECONDS = 1.0


@dataclass(frozen=True)
class FreePlaces:
    """In these lanes a limiter has room again: as often as a lane is named, a job ended there."""

    lanes: Sequence[LimitedLane]


News = Taken | Begun | ClaimAnswer | FreePlaces | Popped | Command | StartScheduler
Special = ReservedJob | LimitedDelivery | LimitedLane | PlainRun


@dataclass(frozen=True)
class WorkerOptions:
    """What the command line says.

    `burst` stops when nothing is due, `max_jobs` after so many jobs. `with_scheduler` also puts plain RQ jobs
    into their queues when they are due.
    """

    processes: int = 1
    jobs_per_process: int = 1000
    max_memory_mb: int | None = None
    burst: bool = False
    max_jobs: int | None = None
    with_scheduler: bool = True

    @property
    def places(self) -> int:
        """Return how many children there are. With a fresh process per job the next one is forked ahead."""
        return self.processes + (self.jobs_per_process == 1)


@dataclass(frozen=True)
class Threads:
    """The threads of a worker, and the heartbeat that all share."""

    heartbeat: Heartbeat
    recorder: Recorder
    taker: Taker
    link: RQLink
    events: EventThread


class Parent:
    """The main thread of a worker."""

    def __init__(
        self,
        name: str,
        setup: ChildSetup,
        options: WorkerOptions,
        mailbox: Mailbox[News],
        threads: Threads,
    ) -> None:
        settings = setup.host.settings
        self._name = name
        self._setup = setup
        self._options = options
        self._mailbox = mailbox
        self._heartbeat, self._recorder = threads.heartbeat, threads.recorder
        self._taker, self._link = threads.taker, threads.link
        self._events = threads.events
        self._tasks = setup.host.performable
        self._has_limits = has_limits(setup.host)
        self._log_tail_bytes = settings.log_tail_bytes
        # After so long without a look this process was frozen, and its jobs may have been rescued.
        self._frozen_seconds = settings.missing_seconds / 12
        self._places = [Place(number) for number in range(1, options.places + 1)]
        self._listening = Listening(mailbox)
        # Reserved jobs that any child may get.
        self._waiting = WaitingJobs()
        self._paused_tasks: set[str] = set()
        # What a child gets by itself: a job that must be claimed first, the next job of a lane, or a plain RQ
        # job.
        self._special: deque[Special] = deque()
        # Lanes in which a limiter got room again while the next job was being claimed.
        self._lanes_again: set[LimitedLane] = set()
        self._errands = Errands(schedules_once=options.burst and options.with_scheduler)
        self._rq_works = 0
        self._scheduler_to_start: OpsScheduler | None = None
        self._is_turn_of_special = True
        self._times = RunTimes()
        self._tally = Tally()
        self._reported_at = 0.0
        self._starts: list[Start] = []
        budget = ReserveBudget(
            options.processes,
            settings.reserve_seconds,
            settings.reserve_most,
            FRESH_SECONDS if options.jobs_per_process == 1 else SHORTEST_SECONDS,
        )
        self._demand = Demand(
            self._taker,
            self._link,
            budget,
            has_limits=self._has_limits,
            may_block=not options.burst,
        )
        self._is_stuck = False
        self._takes_jobs = True
        self._looked_at = self._listened_at = steady_seconds()
        # With a process per job, one that was sent ahead would only be taken back.
        self._most_ahead = min(_MOST_AHEAD, options.jobs_per_process or _MOST_AHEAD)
        # How many signals asked this process to stop, and when the first came.
        self._stops = 0
        self._stopped_at = 0.0
        # Whether it stops because an operator asked for it: the first signal after that changes nothing.
        self._is_drained = False
        # When an operator wants what still runs to be killed.
        self._kill_at = math.inf
        # Whether the process starts anew when its jobs have ended.
        self.wants_restart = False
        self._systemd = Systemd()
        self._has_told_stop = False
        # Jobs that are killed because somebody wished it, and until when a fork waits for the record of each.
        self._wished_ends: dict[Key, float] = {}
        self._given = 0
        # How often the recorder had dispatched at the last look.
        self._dispatches = 0

    # --- running ---

    def run(self, tell_ready: Callable[[], None]) -> None:
        """Perform jobs until a signal, the end of a burst, or the last of `max_jobs`.

        `tell_ready` is called when the signal handlers are installed: before, a signal ends the process.
        """
        with self._signals():
            tell_ready()
            self._systemd.tell_ready()
            try:
                while not self._is_done():
                    self.fill_places()
                    if not self._stops:
                        self._listening.linger(self._places)
                    self._hear_all(self._timeout_ms())
                    for news in self._mailbox.empty():
                        self._read(news)
                    self._look()
                    self._look_for_silence()
                    self._feed()
                    self._ask()
                    self._recorder.submit()
                    self._tell_systemd()
            finally:
                self._tell_systemd()
                self._end_children()
                self._recorder.submit()

    def _timeout_ms(self) -> float:
        if any(place.owes_since and not place.is_silent for place in self._places):
            return _LISTEN_SECONDS * 1000
        if any(place.is_busy or place.child is None for place in self._places):
            return _LOOK_SECONDS * 1000
        seconds = 1.0
        if self._link.is_away:
            seconds = WITHOUT_REDIS_SECONDS
        elif self._is_without_postgres:
            seconds = WITHOUT_POSTGRES_SECONDS
        return min(seconds, self._systemd.feed_seconds) * 1000

    def _tell_systemd(self) -> None:
        if self._stops and not self._has_told_stop:
            self._has_told_stop = True
            if self.wants_restart:
                self._systemd.tell_reloading()
            else:
                self._systemd.tell_stopping()
        self._systemd.feed()

    def _is_done(self) -> bool:
        if any(self._is_awaited(place) for place in self._places):
            return False
        if self._stops:
            return not self._errands or self._stops > 2
        if self._errands:
            return False
        if self._is_spent():
            return True
        is_empty = not self._waiting and not self._special and not self._heartbeat.count_held()
        # In this order: news that come with the end of a job are there before it is released.
        is_empty = is_empty and not self._mailbox.has_news
        if not self._options.burst or not is_empty or self._is_dispatching():
            return False
        return bool(self._link.is_suspended or self._demand.found_nothing())

    def _is_dispatching(self) -> bool:
        """Return whether given back jobs are on their way, or were at the last look: then ask for them."""
        # In this order: when it has just ended, it is counted.
        is_under_way, before = self._recorder.has_to_dispatch, self._dispatches
        self._dispatches = self._recorder.dispatches
        if is_under_way or self._dispatches != before:
            self._demand.renew()
            return True
        return False

    def _is_awaited(self, place: Place) -> bool:
        """Return whether a child's job must end first. A stop does not wait long for one to be claimed."""
        is_late = self._stops and steady_seconds() - self._stopped_at > _GRACE_SECONDS
        return bool(place.sent) or (place.promised is not None and not is_late)

    def _is_spent(self) -> bool:
        if self._options.max_jobs is None:
            return False
        promised = sum(place.promised is not None for place in self._places)
        return self._given + promised >= self._options.max_jobs

    @contextmanager
    def _signals(self) -> Iterator[None]:
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            yield
        finally:
            for number, action in before.items():
                signal.signal(number, action)
            if self.wants_restart:
                # Another one would end the process before the new code is there.
                signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        # A terminal that is closed sends SIGHUP too.
        if number == signal.SIGHUP and not os.isatty(0):
            if not self._stops:
                self.wants_restart = True
                self._stop()
        elif self.wants_restart:
            self.wants_restart = False  # it stops all the same, but for good
        else:
            self._stop()

    def _stop(self) -> None:
        if self._is_drained:
            self._is_drained = False  # it stops already
            return
        now = steady_seconds()
        if self._stops and now - self._stopped_at < _ECHO_SECONDS:
            return
        self._stopped_at = self._stopped_at or now
        self._stops += 1
        self._mailbox.wake()

    # --- children ---

    def fill_places(self) -> None:
        """Fork a child for each place without one, unless another thread holds the fork lock right now.

        A fork holds up the other threads. So the record of an end that somebody wished comes first.
        """
        if self._wished_ends and self._awaits_record():
            return
        wanted = [] if self._stops else self._places
        if self._errands.are_waiting and not self._link.is_away:
            wanted = [*wanted, self._errands.place]
        for place in wanted:
            if place.child is None and place.fork_at <= steady_seconds():
                with fork_lock_if_free() as is_free:
                    if is_free and self._events.lets_fork():
                        self._fork(place)
        if self._scheduler_to_start is not None:
            with fork_lock_if_free() as is_free:
                if is_free and self._events.lets_fork():
                    self._scheduler_to_start.start()
                    self._scheduler_to_start = None

    def _awaits_record(self) -> bool:
        now = steady_seconds()
        self._wished_ends = {
            key: until
            for key, until in self._wished_ends.items()
            if until > now and self._heartbeat.holds(key)
        }
        return bool(self._wished_ends)

    def _fork(self, place: Place) -> None:
        try:
            place.child = ChildProcess(
                self._setup, place.number, self._log_tail_bytes, self._descriptors()
            )
        except OSError as error:
            why = f"cannot be forked: {error}"
            self._heartbeat.left_children.note([LeaveReason("refused", why)])
            self._postpone(place, why)
            return
        self._listening.add(place)

    def _postpone(self, place: Place, why: str) -> None:
        seconds = place.backoff.next_seconds()
        place.fork_at = steady_seconds() + seconds
        self._say(logging.ERROR, "child %d %s; again in %.1f s", place.number, why, seconds)

    def _descriptors(self) -> list[int]:
        """Return the descriptors that a child must let go."""
        places = (*self._places, self._errands.place)
        children = [place.child for place in places if place.child is not None]
        return [
            *self._mailbox.descriptors(),
            *(each for child in children for each in child.descriptors()),
            *self._taker.descriptors(),
            *self._recorder.descriptors(),
            *self._link.descriptors(),
            *broker.broker_of(self._setup.host).connections.descriptors(),
        ]

    def _hear_all(self, timeout_ms: float) -> None:
        for place, descriptor in self._listening.wait(timeout_ms):
            if place.child is None:
                continue
            if descriptor == place.child.pidfd:
                self._bury(place)
            else:
                self._hear(place)

    def _hear(self, place: Place) -> None:
        """Read what a child has said."""
        child = place.child
        assert child is not None
        for word, body in child.hear():
            self._take_word(place, child, word, body)
        if not child.is_open:
            # A closed stream is always readable. The death itself comes through the pidfd.
            self._listening.forget(child.fileno())

    def _take_word(self, place: Place, child: ChildProcess, word: int, body: bytes) -> None:
        match word:
            case ChildWord.RETURNED | ChildWord.OUTCOME:
                self._take_outcome(place, child, word, body)
            case ChildWord.READY | ChildWord.HERE:
                place.is_ready, place.fork_at = True, 0.0
                place.backoff.reset()
                place.hear(steady_seconds())
            case ChildWord.PROGRESS:
                self._take_progress(place, child, body)
            case ChildWord.LATE:
                self._take_late(place, child, read_key(body))
            case ChildWord.DONE:
                self._take_done(place, child, body)
            case ChildWord.LEAVING:
                self._take_leaving(place, child, read_leaving(body))

    def _take_leaving(self, place: Place, child: ChildProcess, reasons: list[LeaveReason]) -> None:
        """Note that the child receives nothing more. What it was sent meanwhile goes to another one."""
        place.leaving, place.leaving_at = reasons, steady_seconds()
        place.is_silent = False
        self._take_back(place, child)

    def _take_outcome(self, place: Place, child: ChildProcess, word: int, body: bytes) -> None:
        found = read_outcome(word, body)
        sent = place.remove(found.key)
        if sent is None or sent.job is None:
            return
        if found.outcome.kind != "not_run":
            # Refusing a job takes no time. If it counted, more of them would be taken ahead.
            order = sent.job.order
            self._times.note(order.task, order.queue, found.ended - found.began)
        place.count(found.outcome)
        self._tally.note(found.outcome, found.ended - found.began)
        is_urgent = sent.is_started and self._has_limits
        self._record(
            sent.job, found.outcome, child.pid, found.began, found.ended, is_urgent=is_urgent
        )
        self._count(child)
        self._go_on(place)

    def _take_done(self, place: Place, child: ChildProcess, plain_run: bytes) -> None:
        if plain_run:
            self._recorder.keep_plain_run(plain_run)
        sent, _ = place.current()
        if sent is not None:
            place.remove(sent.key)
            if sent.plain is not None:
                self._times.note("", sent.plain.queue, steady_seconds() - sent.at)
                self._count(child)
        self._go_on(place, is_of_rq=True)
        if place is self._errands.place and not self._errands.are_waiting:
            child.orders.end()
            place.leaving, place.leaving_at = [], steady_seconds()

    def _record(
        self,
        job: ReservedJob,
        outcome: Outcome,
        pid: int,
        began: float,
        ended: float,
        *,
        is_urgent: bool = False,
    ) -> None:
        worker_id = self._heartbeat.worker_id
        attempt = job.order.attempt
        ending = EndedAttempt(*job.key, worker_id, self._name, outcome, pid, began, ended, attempt)
        self._recorder.collect(ending, is_urgent=is_urgent)

    def _count(self, child: ChildProcess) -> None:
        """Count a job that has ended."""
        child.jobs += 1
        self._tally.ended += 1

    def _go_on(self, place: Place, *, is_of_rq: bool = False) -> None:
        """Note that a child has ended an order."""
        place.ended_at = steady_seconds()
        place.hear(place.ended_at)
        self._is_stuck = False
        self._demand.renew(is_of_rq=is_of_rq)

    def _take_progress(self, place: Place, child: ChildProcess, body: bytes) -> None:
        key = read_key(body)
        if (sent := place.sent.get(key)) is None:
            return
        sent.progress = Progress(*key, *read_json(body, after_key=True))
        if sent.is_started:
            self._recorder.tell(sent.progress)
        else:
            self._write_start(sent, child, place.began(key) or sent.at)

    def _take_late(self, place: Place, child: ChildProcess, key: Key) -> None:
        """Take back a job that was not begun: the child or this process was frozen meanwhile."""
        sent = place.remove(key)
        if sent is not None and sent.job is not None:
            self._say(
                logging.WARNING, "job %d does not run here: its reservation had ended", key[0]
            )
            self._return_unbegun(sent, child, is_fresh=False)
            self._go_on(place)

    def _take_back(self, place: Place, child: ChildProcess) -> None:
        """Take back what a child was sent and has not received."""
        for key in child.orders.take_back():
            if (sent := place.remove(key)) is not None:
                self._return_unbegun(sent, child)
        if place.sent:
            return
        if place.is_silent:
            # It says when it is there again.
            child.orders.send(Order.PING, _NOBODY)
        else:
            place.owes_since = 0.0

    def _return_unbegun(self, sent: Sent, child: ChildProcess, *, is_fresh: bool = True) -> None:
        """Let an order that its child did not begin wait again, or give it back."""
        if sent.plain is not None:
            self._given -= 1
            self._special.appendleft(sent.plain)
        elif sent.errand is not None:
            self._errands.try_again(sent.errand, "", has_begun=False)
        if (job := sent.job) is None:
            return
        self._given -= 1
        if sent.is_written or sent.is_started:
            # Its row says `started`: it is due again at once, and the attempt does not count.
            why = "the function was not called: its process did not begin it in time"
            outcome = Outcome(kind="snoozed", error=why, reason=why)
            self._record(job, outcome, child.pid, sent.at, steady_seconds())
        elif is_fresh and not self._stops and sent.why_killed is None:
            self._waiting.add(job)
        else:
            self._give_back([job])

    def _bury(self, place: Place) -> None:
        """Take leave of a child that has ended. What it said before counts more than its end."""
        child = place.child
        assert child is not None
        self._recall(place, child)
        self._listening.forget(*child.polled())
        # The child has received at most one of those that are left.
        sent, began = place.current()
        death = child.bury()
        if sent is not None:
            place.remove(sent.key)
            self._end_by_death(place, child, sent, began, death)
        elif not place.is_ready and (not self._stops or place is self._errands.place):
            self._postpone(place, f"{death.words}, before it was ready")
        if place is not self._errands.place:
            self._note_leaving(place.leaving or [_death_as_reason(sent if began else None, death)])
        place.forget_child()
        self._is_stuck = False
        self._demand.renew()

    def _end_by_death(
        self, place: Place, child: ChildProcess, sent: Sent, began: float | None, death: Death
    ) -> None:
        """End the order that a child had when it died, or let another child have it."""
        if sent.why_killed == LOST:
            self._say(logging.WARNING, "job %d does not run here any more: %s", sent.key[0], LOST)
        if began is None:
            self._return_unbegun(sent, child)
        elif sent.plain is not None:
            self._errands.settle_death(sent.plain, place, sent, death)
        elif sent.errand is not None:
            self._errands.try_again(sent.errand, death.words, has_begun=True)
        elif sent.job is not None:
            outcome = outcome_of_death(sent, death, child.page.log_tail(), self._tasks)
            place.count(outcome)
            self._tally.note(outcome, steady_seconds() - began)
            is_wished = sent.why_killed == CANCELED
            self._record(sent.job, outcome, child.pid, began, steady_seconds(), is_urgent=is_wished)

    def _note_leaving(self, reasons: list[LeaveReason]) -> None:
        if self._stops:
            return
        self._heartbeat.left_children.note(reasons)
        if unusual := [reason.sentence for reason in reasons if reason.kind != JOBS_DONE]:
            self._say(logging.INFO, "a child has left: it %s", on_one_line("; ".join(unusual)))

    def _recall(self, place: Place, child: ChildProcess) -> None:
        """Take back what a child has not received, and hear it: then it has one order at most.

        In this order. Otherwise the child could receive and end one between the two.
        """
        self._take_back(place, child)
        self._hear(place)

    def _kill(self, place: Place, sent: Sent, why: str) -> None:
        """Kill a child that has this order, unless it has just ended it, or has not received it."""
        if (child := place.child) is None or sent.why_killed is not None:
            return
        self._recall(place, child)
        if place.sent.get(sent.key) is sent:
            sent.why_killed = why
            if why == CANCELED:
                self._wished_ends[sent.key] = steady_seconds() + _RECORD_SECONDS
            child.kill()

    # --- news of the other threads ---

    def _read(self, news: News) -> None:
        match news:
            case Taken():
                self._take_in(news)
            case Begun():
                self._read_begun(news)
            case ClaimAnswer():
                self._read_claim(news)
            case FreePlaces(lanes=lanes):
                self._special.extend(lanes)
            case Popped(plain=plain):
                self._demand.note_pop()
                if plain is not None:
                    self._tally.through_rq += 1
                    self._special.append(plain)
            case Command():
                self._obey(news)
            case StartScheduler(scheduler=scheduler):
                self._scheduler_to_start = scheduler

    def _take_in(self, news: Taken) -> None:
        newly_paused = set(news.paused_tasks) - self._paused_tasks
        if news.is_answer:
            # What is taken from now on is of none of these.
            self._paused_tasks = set(news.paused_tasks)
            self._demand.note_answer(is_empty=not news.jobs)
            self._tally.from_postgres += len(news.jobs)
        else:
            self._tally.through_rq += len(news.jobs) + len(news.limited)
        for job in news.jobs:
            if job.must_be_alone:
                self._special.append(job)
            else:
                self._waiting.add(job)
        self._special.extend(news.limited)
        if self._stops:
            self._give_back_all()
        elif news.paused_queues or newly_paused:
            self._take_back_all()
            self._give_back(self._waiting.take_out_of(news.paused_queues, news.paused_tasks))

    def _read_begun(self, news: Begun) -> None:
        for key in news.asked:
            place = self._find(key)
            if place is None:
                continue
            sent = place.sent[key]
            if key not in news.started:
                # Its row has another owner by now, or the job has just ended.
                self._kill(place, sent, LOST)
                continue
            sent.is_started = True
            if sent.progress is not None:
                self._recorder.tell(sent.progress)

    def _read_claim(self, news: ClaimAnswer) -> None:
        """Send jobs that were claimed to the children that were promised one: as many as were asked for."""
        places = [place for place in self._places if place.promised == news.promise][: news.asked]
        for place in places:
            place.promised = None
        if isinstance(news.promise, LimitedLane):
            self._tally.from_postgres += len(news.jobs)
            if news.has_more or news.promise in self._lanes_again:
                self._lanes_again.discard(news.promise)
                self._special.append(news.promise)
        idle = deque(place for place in places if place.is_idle)
        for job in news.jobs:
            if not idle or not self._send_job(idle.popleft(), job, is_started=True):
                # The child died meanwhile.
                now = steady_seconds()
                why = "the function was not called: its process died before"
                self._record(job, Outcome(kind="snoozed", error=why, reason=why), 0, now, now)

    def _obey(self, command: Command) -> None:
        match command.name:
            case "shutdown":
                self._stop()
            case broker.STOP_WITHIN if command.grace is not None:
                self._kill_at = min(self._kill_at, steady_seconds() + command.grace)
                self._leave()
            case broker.STOP_ANNOUNCED:
                self._recorder.announce_stop()
            case "stop-job" | "stop-execution" | "kill-horse" if command.slot is not None:
                self._stop_by_command(self._places[command.slot - 1], command)

    def _stop_by_command(self, place: Place, command: Command) -> None:
        """Kill the child of a place, when it still has the job that is meant."""
        sent, _ = place.current()
        if command.name == "kill-horse":
            if sent is not None:
                self._kill(place, sent, "killed by a command of RQ")
            return
        for sent in list(place.sent.values()):
            rq_id = sent.plain.rq_id if sent.plain is not None else None
            if sent.job is not None:
                rq_id = make_rq_id(*sent.key)
            if rq_id is not None and command.job_id == rq_id:
                self._kill(place, sent, CANCELED if sent.job is not None else BY_COMMAND)

    def _find(self, key: Key) -> Place | None:
        return next((place for place in self._places if key in place.sent), None)

    # --- looking at what runs ---

    def _look(self) -> None:
        now = steady_seconds()
        gap = now - self._looked_at
        if gap < _LOOK_SECONDS and not self._heartbeat.has_new_stops:
            return
        self._looked_at = now
        if gap > self._frozen_seconds:
            self._recorder.beat_now()  # it finds out which jobs are still ours
        self._note_whether_to_take()
        self._leave_as_told(now)
        self._stop_what_must_stop()
        for place in (*self._places, self._errands.place):
            if place.child is not None:
                self._look_at(place, place.child, now)
        if self._starts:
            self._taker.begin(self._starts)
            self._starts = []
        self._is_stuck = self._is_everyone_stuck(now)
        self._give_back_what_cannot_run()
        if self._stops:
            self._taker.close()
            self._link.announce_stop()
        self._look_at_errands(now)
        # What runs, for RQ's records.
        self._link.show([place.for_rq(now - _SHOWN_SECONDS) for place in self._places])
        if now - self._reported_at >= _REPORT_SECONDS:
            self._report(now)

    def _look_at_errands(self, now: float) -> None:
        if self._stops:
            has_child = not self._link.is_away and self._errands.place.fork_at <= now
            self._errands.keep_deaths(is_possible=has_child)
        elif not self._link.is_away:
            self._errands.maintain_if_due(now)

    def _report(self, now: float) -> None:
        """Let the next heartbeat tell of the children. The first report does not wait for it."""
        is_first = not self._reported_at
        self._reported_at = now
        pool = self._tally.report(self._places, self._count_waiting(), now)
        self._heartbeat.report(pool, self._tally.jobs)
        if is_first:
            self._recorder.beat_now()

    def _count_waiting(self) -> int:
        """Return how many jobs wait in this process for a child."""
        return len(self._waiting) + len(self._special)

    def _look_at(self, place: Place, child: ChildProcess, now: float) -> None:
        if self._why_hung(place, child, now) is not None:
            self._recall(place, child)
            if (why := self._why_hung(place, child, now)) is not None:
                place.leaving, place.leaving_at = [*(place.leaving or ()), why], now
                child.kill()
                return
        sent, began = place.current()
        if sent is None or began is None:
            return
        if self._stops > 1 and place is not self._errands.place:
            self._kill(place, sent, _STOPPED)
        if sent.job is not None:
            self._look_at_job(place, child, sent, began)
        elif now > self._limit_of(place, child, sent, began):
            self._kill(place, sent, OVERDUE)

    def _limit_of(self, place: Place, child: ChildProcess, sent: Sent, began: float) -> float:
        """Return until when work of RQ may run. An errand does not delay a stop for long."""
        until = began + min(sent.limit_seconds, child.page.read_limit())
        if self._stops and place is self._errands.place:
            return min(until, max(began, self._stopped_at) + _GRACE_SECONDS)
        return until

    def _look_at_job(self, place: Place, child: ChildProcess, sent: Sent, began: float) -> None:
        assert sent.job is not None
        seconds = self._looked_at - began
        if seconds > SHORT_SECONDS:
            self._write_start(sent, child, began)
        limit = sent.job.order.timeout_seconds
        if limit is not None and seconds > limit + _GRACE_SECONDS:
            self._kill(place, sent, "timed_out")

    @staticmethod
    def _why_hung(place: Place, child: ChildProcess, now: float) -> LeaveReason | None:
        """Return why a child that runs no job must be killed; None when it need not."""
        if not place.is_ready:
            is_over = place.leaving is None and now - child.forked_at > _START_SECONDS
            why = f"did not become ready within {_START_SECONDS:g} s"
            return LeaveReason("start", why) if is_over else None
        if place.leaving is not None:
            is_over = now - place.leaving_at > _GRACE_SECONDS
            return LeaveReason("end", "did not end by itself") if is_over else None
        if (since := place.in_teardown_since()) is not None:
            is_over = now - since > _GRACE_SECONDS
            return LeaveReason("teardown", "hung after the end of a job") if is_over else None
        is_over = place.owes_since > 0 and now - place.owes_since > _GRACE_SECONDS
        if is_over and child.page.read() is None:
            return LeaveReason("silent", "did not begin the job that it was given")
        return None

    def _write_start(self, sent: Sent, child: ChildProcess, began: float) -> None:
        """Let the row of a running job say so, once."""
        if not sent.is_written and sent.job is not None:
            sent.is_written = True
            self._starts.append(Start(sent.job.key, began, child.pid))

    def _leave_as_told(self, now: float) -> None:
        """Stop when an operator asked for it. After the grace what still runs is killed."""
        if self._heartbeat.is_drained:
            self._leave()
        if now >= self._kill_at:
            self._stops = max(self._stops, 2)

    def _leave(self) -> None:
        """Stop because an operator asked for it, unless it stops already."""
        if not self._stops:
            self._say(logging.INFO, "an operator asked this worker to leave")
            self._stop()
            self._is_drained = True

    def _stop_what_must_stop(self) -> None:
        if not (wanted := self._heartbeat.stops_wanted()):
            return
        for place in self._places:
            if place.child is not None and not wanted.keys().isdisjoint(place.sent):
                self._recall(place, place.child)
        self._give_back(self._waiting.take_out(set(wanted)))
        for key, why in wanted.items():
            if (found := self._find(key)) is not None:
                self._kill(found, found.sent[key], why)

    def _has_no_child(self) -> bool:
        """Return whether each place waits for a child: the last one could not be forked, or died at once."""
        return all(place.fork_at for place in self._places)

    def _is_everyone_stuck(self, now: float) -> bool:
        """Return whether every child runs its job for so long that others should not wait for it."""
        stuck = sum(self._is_over(place, now, STUCK_SECONDS) for place in self._places)
        return stuck >= self._options.processes

    def _is_over(self, place: Place, now: float, least: float) -> bool:
        """Return whether a child needs longer for its order than is expected, and than `least`."""
        if not place.owes_since:
            return False
        sent, began = place.current()
        order = sent.job.order if sent is not None and sent.job is not None else None
        return self._times.is_over(order, now - (began or place.owes_since), least)

    def _look_for_silence(self) -> None:
        """Take back what waits behind an order that takes too long. The child is sent nothing more."""
        now = steady_seconds()
        if now - self._listened_at < _LISTEN_SECONDS:
            return
        self._listened_at = now
        for place in self._places:
            child = place.child
            if child is None or place.is_silent or not self._is_over(place, now, _SILENT_SECONDS):
                continue
            place.is_silent = True
            if not place.has_special:
                self._take_back(place, child)

    # --- feeding ---

    def _feed(self) -> None:
        errands = self._errands
        if errands.are_waiting and errands.place.is_idle and not self._link.is_away:
            self._send_rq_work(errands.place, errands.pop(), ERRAND_SECONDS)
        if not self._may_take:
            self._pass_lanes_on()
        self._feed_children()
        self._pass_lanes_on()

    def _feed_children(self) -> None:
        if self._stops:
            return
        if not self._takes_jobs:
            self._feed_idle(self._feed_plain)
            return
        if any(place.is_alone for place in self._places):
            return
        self._feed_idle(self._feed_one)
        if self._waiting and not self._special and not self._is_stuck and self._most_ahead > 1:
            self._send_ahead()

    def _feed_idle(self, feed: Callable[[Place], bool]) -> None:
        """Give each idle child an order; `feed` returns whether there was one."""
        busy = sum(place.is_busy for place in self._places)
        for place in self._places:
            if busy >= self._options.processes or self._is_spent():
                return
            if place.is_idle and feed(place):
                busy += 1
                if place.is_alone:
                    return

    def _send_ahead(self) -> None:
        """Send jobs ahead: each child gets its share of what waits, in their order."""
        number = len(self._waiting) + sum(len(place.sent) for place in self._places)
        share = min(self._most_ahead, math.ceil(number / self._options.processes))
        for place in self._places:
            while place.takes_more and len(place.sent) < share and not self._is_spent():
                if not self._waiting or not self._send_behind(place):
                    break

    def _send_behind(self, place: Place) -> bool:
        """Send the first job that waits to a child that has others; False when it must wait."""
        cost = self._cost(self._waiting.first)
        if place.load + cost > MOST_AHEAD:
            return False
        job = self._waiting.pop()
        return not self._may_begin(job) or self._send_job(place, job, cost=cost)

    def _cost(self, job: ReservedJob) -> int:
        """Return how long a job is expected to run, in microseconds."""
        expected = self._times.expected(job.order.task, job.order.queue)
        if expected is None or job.must_be_alone or job.size > LARGE_BYTES:
            return ALONE
        return int(expected * 1e6)

    def _feed_one(self, place: Place) -> bool:
        while self._special and (self._is_turn_of_special or not self._waiting):
            what = self._special[0]
            if isinstance(what, ReservedJob):
                if not self._may_begin(what):
                    self._special.popleft()
                    continue
                if not self._is_quiet():
                    return False
            self._is_turn_of_special = False
            self._special.popleft()
            self._feed_special(place, what)
            return True
        self._is_turn_of_special = True
        while self._waiting:
            job = self._waiting.pop()
            if self._may_begin(job):
                return self._send_job(place, job, cost=self._cost(job))
        return False

    def _feed_plain(self, place: Place) -> bool:
        """Send the first plain RQ job that waits: RQ keeps its end, so it needs no Postgres."""
        plain = next((what for what in self._special if isinstance(what, PlainRun)), None)
        if plain is None:
            return False
        self._special.remove(plain)
        self._feed_special(place, plain)
        return True

    def _may_begin(self, job: ReservedJob) -> bool:
        """Give a job back whose deadline has passed, or whose reservation has ended."""
        if job.order.begin_before > steady_seconds():
            return True
        self._give_back([job])
        return False

    def _is_quiet(self) -> bool:
        """Return whether a job that may kill the worker would take no short job with it, and no outcome."""
        if self._recorder.has_unwritten:
            return False
        now = steady_seconds()
        for place in self._places:
            _, began = place.current()
            if place.is_busy and (
                began is None or len(place.sent) > 1 or now - began <= SHORT_SECONDS
            ):
                return False
        return True

    def _feed_special(self, place: Place, what: Special) -> None:
        match what:
            case LimitedLane():
                place.promised, place.is_promised_alone = what, False
                self._taker.claim_next(what)
            case ReservedJob() | LimitedDelivery():
                place.promised = what.key
                place.is_promised_alone = isinstance(what, ReservedJob)
                self._taker.claim(what)
            case PlainRun():
                self._given += 1
                self._link.let_go()
                self._send_rq_work(place, what)

    def _send_job(
        self, place: Place, job: ReservedJob, *, is_started: bool = False, cost: int = ALONE
    ) -> bool:
        """Send a job; False when the child has no room for it. Then it waits, unless it is started."""
        sent = Sent(steady_seconds(), job, is_started=is_started, cost=cost)
        if not self._send(place, sent, Order.JOB, make_job_order(job.order)):
            if not is_started:
                self._waiting.add(job)
            return False
        self._given += 1
        self._heartbeat.run(job.key)
        return True

    def _send_rq_work(self, place: Place, work: RQWork, limit: float = math.inf) -> None:
        self._rq_works += 1
        sent = Sent(steady_seconds(), rq_work=work, number=self._rq_works, limit_seconds=limit)
        if not self._send(place, sent, Order.RQ_WORK, make_rq_order(work)):
            assert place.child is not None
            self._return_unbegun(sent, place.child)

    def _send(self, place: Place, sent: Sent, kind: Order, body: bytes) -> bool:
        assert place.child is not None
        if not place.child.orders.send(kind, sent.key, body):
            return False
        place.add(sent)
        return True

    def _take_back_all(self) -> None:
        """Take back the reserved jobs that no child has received."""
        for place in self._places:
            if place.child is not None and not place.has_special:
                self._take_back(place, place.child)

    def _give_back_what_cannot_run(self) -> None:
        if self._is_stuck or self._stops or self._has_no_child():
            self._give_back_all()
        elif not self._takes_jobs:
            self._give_back_managed()

    def _give_back_all(self) -> None:
        """Give back everything that waits: jobs to Postgres, deliveries and plain jobs to Redis."""
        self._give_back_managed()
        plain, self._special = self._special, deque()
        for what in plain:
            if isinstance(what, PlainRun):
                self._link.put_back(what)

    def _give_back_managed(self) -> None:
        """Give back all that waits but plain RQ jobs."""
        self._take_back_all()
        special = self._special
        self._special = deque(what for what in special if isinstance(what, PlainRun))
        self._give_back(self._waiting.take_out())
        self._give_back(what for what in special if isinstance(what, ReservedJob))
        for what in special:
            match what:
                case LimitedDelivery():
                    self._taker.recall(what)
                case LimitedLane():
                    self._recorder.dispatch_lanes([what])

    def _pass_lanes_on(self) -> None:
        """Let lanes be dispatched for whose next job no child is idle: other workers may be.

        While a claim is under way in a lane, its answer is awaited: it may have used the room, or not.
        """
        lanes = {what for what in self._special if isinstance(what, LimitedLane)}
        if not lanes:
            return
        self._special = deque(what for what in self._special if not isinstance(what, LimitedLane))
        if self._may_take:
            self._lanes_again |= lanes & {place.promised for place in self._places}
        self._recorder.dispatch_lanes([*(lanes - self._lanes_again)])

    def _give_back(self, jobs: Iterable[ReservedJob]) -> None:
        if keys := [job.key for job in jobs]:
            self._taker.give_back(keys)

    # --- taking ---

    def _ask(self) -> None:
        if not self._demand.waits_for_answer:
            may_take = self._may_take and not self._has_no_child()
            self._demand.ask(self._count_jobs() if may_take else None)
            has_lonely = any(isinstance(what, ReservedJob) for what in self._special)
            self._recorder.is_hurried = has_lonely or self._demand.is_full
        if self._is_without_postgres and self._may_run_plain():
            self._demand.ask_for_plain()

    @property
    def _is_without_postgres(self) -> bool:
        return not self._takes_jobs or self._taker.is_late

    def _may_run_plain(self) -> bool:
        """Return whether a child could get a plain RQ job now."""
        jobs = self._count_jobs()
        has_left = jobs.left is None or jobs.left > 0
        return not self._stops and self._link.is_suspended is False and jobs.free > 0 and has_left

    @property
    def _may_take(self) -> bool:
        """Return whether the worker may take more jobs."""
        return not self._stops and self._takes_jobs and self._link.is_suspended is False

    def _count_jobs(self) -> WorkerJobs:
        busy = sum(place.is_busy for place in self._places)
        idle = sum(place.is_idle for place in self._places)
        most = self._options.max_jobs
        return WorkerJobs(
            sent=sum(len(place.sent) or place.is_busy for place in self._places),
            waiting=self._count_waiting(),
            # A spare child waits until a running one has gone.
            free=min(idle, self._options.processes - busy),
            held=self._heartbeat.count_held(),
            bytes=self._waiting.bytes,
            mean=self._times.mean,
            left=None if most is None else most - self._given,
            is_stuck=self._is_stuck,
        )

    def _note_whether_to_take(self) -> None:
        """Take no jobs while outcomes or the heartbeat of this worker are late."""
        may_take = self._recorder.keeps_up()
        if may_take is not self._takes_jobs:
            self._takes_jobs = may_take
            self._say(
                logging.WARNING,
                "this worker takes jobs again: its outcomes and its heartbeat are written"
                if may_take
                else "this worker takes no more jobs until its outcomes and its heartbeat are written",
            )

    # --- ending ---

    def _end_children(self) -> None:
        """Give back what waits, and let the children end."""
        self._taker.close()
        self._link.call_off()
        self._recorder.offer_no_more()
        for news in self._mailbox.empty():
            if isinstance(news, Taken | Popped | FreePlaces):
                self._read(news)
        self._give_back_all()
        places = (*self._places, self._errands.place)
        for place in places:
            if place.child is not None:
                place.child.orders.end()
        until = time.monotonic() + _END_SECONDS
        while any(place.child for place in places) and time.monotonic() < until:
            self._hear_all(50)
        for place in places:
            if place.child is not None:
                place.child.kill()
                self._bury(place)

    @staticmethod
    def _say(level: int, message: str, *values: object) -> None:
        # Without the fork lock: only this thread forks.
        _log.log(level, message, *values)


def _death_as_reason(sent: Sent | None, death: Death) -> LeaveReason:
    """Return why a child left that did not say it."""
    task = sent.job.order.task if sent is not None and sent.job is not None else None
    if sent is not None and sent.why_killed is not None:
        return LeaveReason("killed", f"was killed: {sent.why_killed.replace('_', ' ')}", task)
    return LeaveReason("died", f"was {death.words}" if death.by_signal else death.words, task)
