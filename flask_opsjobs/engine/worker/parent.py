"""Runs a worker: its main thread feeds the children, hears them, and stops what must stop.

It waits for nothing but its poll. Other threads take jobs (`taker`), write outcomes and heartbeats
(`recorder`), and talk with Redis (`rq_link`). They tell what they did; this thread reads it between polls.
"""

from __future__ import annotations

import logging
import math
import os
import select
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType

from ...core.steady_clock import steady_seconds
from ...core.visible_text import on_one_line
from ...endings import EndedAttempt
from ...jobs.perform.outcomes import Outcome
from ..dispatch.dispatch import has_limits
from ..redis.broker import rq_id as make_rq_id
from .child import ChildSetup
from .children import ChildProcess, Death
from .forking import fork_lock
from .frames import (
    ChildWord,
    Errand,
    Key,
    PlainDeath,
    PlainRun,
    RQMaintenance,
    RQSchedule,
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
from .mailbox import Mailbox
from .places import Place, Sent, outcome_of_death
from .recorder import Recorder
from .reserved import (
    FRESH_SECONDS,
    MOST_BYTES,
    MOST_HELD,
    SHORTEST_SECONDS,
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

_log = logging.getLogger("flask_opsjobs.worker")

# How often children are looked at: starts are written, and overdue jobs are killed.
_LOOK_SECONDS = 0.02
# The start of a job that runs for less than this is never written: its end says when it began.
_SHORT_SECONDS = 0.05
# The child ends an overdue function itself. If it cannot (a loop in C), it is killed so much later. So is a
# child that does not begin what it was given, or whose host's teardown does not end.
_GRACE_SECONDS = 5.0
# A child that is not ready so long after its fork is killed: it may hang in a lock, or in the host's hook.
_START_SECONDS = 60.0
# RQ sends a second signal that is an echo of the first: one within this time does not count.
_ECHO_SECONDS = 1.0
# Without Redis, Postgres is asked so often while a child is idle.
_WITHOUT_REDIS_SECONDS = 0.25
# While plain RQ jobs run, Postgres is asked so often.
_ASK_AGAIN_SECONDS = 0.1
# RQ's records show a managed job when it has run for so long.
_SHOWN_SECONDS = 1.0
# How long idle children get to end when the worker stops.
_END_SECONDS = 5.0
_STOPPED = "stopped with its worker"
_BY_COMMAND = "stopped by a command of RQ"
_OVERDUE = "its time limit could not stop it"
_FORK_SECONDS = 0.01
# The report that goes with the heartbeat is made so often.
_REPORT_SECONDS = 1.0
# RQ does its maintenance so often.
_MAINTENANCE_SECONDS = 600.0
# An errand that takes longer hangs in the host's code. RQ interrupts a callback after a minute.
_ERRAND_SECONDS = 300.0

News = Taken | Begun | ClaimAnswer | Popped | Command | StartScheduler


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
        self._tasks = setup.host.performable
        self._has_limits = has_limits(setup.host)
        self._log_tail_bytes = settings.log_tail_bytes
        # After so long without a look this process was frozen, and its jobs may have been rescued.
        self._frozen_seconds = settings.missing_seconds / 12
        self._places = [Place(number) for number in range(1, options.places + 1)]
        self._of_descriptor: dict[int, Place] = {}
        self._poll = select.poll()
        self._poll.register(mailbox.descriptors()[0], select.POLLIN)
        # Reserved jobs that any child may get.
        self._waiting = WaitingJobs()
        # What a child gets by itself: a job that must be claimed first, or a plain RQ job.
        self._special: deque[ReservedJob | LimitedDelivery | PlainRun] = deque()
        # Errands have a child of their own, which is forked for them.
        self._errand_place = Place(0)
        self._errands: deque[Errand] = deque()
        if options.burst and options.with_scheduler:
            self._errands.append(RQSchedule())
        self._maintained_at = -_MAINTENANCE_SECONDS
        self._rq_works = 0
        self._scheduler_to_start: OpsScheduler | None = None
        self._is_turn_of_special = True
        self._times = RunTimes()
        self._budget = ReserveBudget(
            options.processes,
            settings.reserve_seconds,
            settings.reserve_most,
            FRESH_SECONDS if options.jobs_per_process == 1 else SHORTEST_SECONDS,
        )
        self._ended: list[EndedAttempt] = []
        self._frees_place = False
        self._tally = Tally()
        self._reported_at = 0.0
        self._starts: list[Start] = []
        self._demand = _Demand()
        self._is_stuck = False
        self._takes_jobs = True
        self._looked_at = steady_seconds()
        # How many signals asked this process to stop, and when the first came.
        self._stops = 0
        self._stopped_at = 0.0
        # Whether the process starts anew when its jobs have ended.
        self.wants_restart = False
        self._systemd = Systemd()
        self._has_told_stop = False
        self._given = 0

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
                    self._hear_all(self._poll.poll(self._timeout_ms()))
                    for news in self._mailbox.empty():
                        self._read(news)
                    self._look()
                    self._feed()
                    self._ask()
                    self._hand_over()
                    self._tell_systemd()
            finally:
                self._tell_systemd()
                self._end_children()
                self._hand_over()

    def _timeout_ms(self) -> float:
        if any(place.is_busy or place.child is None for place in self._places):
            return _LOOK_SECONDS * 1000
        seconds = _WITHOUT_REDIS_SECONDS if self._link.is_away else 1.0
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
        has_errands = bool(self._errands) or self._errand_place.is_busy
        if self._stops:
            return not has_errands or self._stops > 2
        if has_errands:
            return False
        if self._is_spent():
            return True
        is_empty = not self._waiting and not self._special and not self._heartbeat.count_held()
        is_idle = self._link.is_suspended or self._demand.found_nothing(self._link)
        return self._options.burst and is_empty and is_idle

    def _is_awaited(self, place: Place) -> bool:
        """Return whether a child's job must end first. A stop does not wait long for one to be claimed."""
        is_late = self._stops and steady_seconds() - self._stopped_at > _GRACE_SECONDS
        return place.sent is not None or (place.promised is not None and not is_late)

    def _is_spent(self) -> bool:
        return self._options.max_jobs is not None and self._given >= self._options.max_jobs

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
        now = steady_seconds()
        if self._stops and now - self._stopped_at < _ECHO_SECONDS:
            return
        self._stopped_at = self._stopped_at or now
        self._stops += 1
        self._mailbox.wake()

    # --- children ---

    def fill_places(self) -> None:
        """Fork a child for each place without one, unless another thread holds the fork lock right now."""
        wanted = [] if self._stops else self._places
        if self._errands and not self._link.is_away:
            wanted = [*wanted, self._errand_place]
        for place in wanted:
            if place.child is None and place.fork_at <= steady_seconds():
                with _fork_lock_if_free() as is_free:
                    if is_free:
                        self._fork(place)
        if self._scheduler_to_start is not None:
            with _fork_lock_if_free() as is_free:
                if is_free:
                    self._scheduler_to_start.start()
                    self._scheduler_to_start = None

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
        for descriptor in place.child.descriptors():
            self._of_descriptor[descriptor] = place
            self._poll.register(descriptor, select.POLLIN)

    def _postpone(self, place: Place, why: str) -> None:
        seconds = place.backoff.next_seconds()
        place.fork_at = steady_seconds() + seconds
        self._say(logging.ERROR, "child %d %s; again in %.1f s", place.number, why, seconds)

    def _descriptors(self) -> list[int]:
        """Return the descriptors that a child must let go."""
        return [
            *self._mailbox.descriptors(),
            *self._of_descriptor,
            *self._taker.descriptors(),
            *self._recorder.descriptors(),
            *self._link.descriptors(),
        ]

    def _hear_all(self, events: Iterable[tuple[int, int]]) -> None:
        for descriptor, event in events:
            place = self._of_descriptor.get(descriptor)
            if place is None or place.child is None:
                continue
            if descriptor == place.child.pidfd:
                self._bury(place)
                continue
            if event & select.POLLOUT:
                self._send_more(place)
            if event & ~select.POLLOUT:
                self._hear(place)

    def _hear(self, place: Place) -> None:
        """Read what a child has said."""
        child = place.child
        assert child is not None
        for word, body in child.hear():
            self._take_word(place, child, word, body)
        if not child.is_open:
            # A closed stream is always readable. The death itself comes through the pidfd.
            self._forget_descriptor(child.fileno())

    def _take_word(self, place: Place, child: ChildProcess, word: int, body: bytes) -> None:
        match word:
            case ChildWord.RETURNED | ChildWord.OUTCOME:
                self._take_outcome(place, child, word, body)
            case ChildWord.READY:
                place.is_ready, place.fork_at = True, 0.0
                place.backoff.reset()
            case ChildWord.PROGRESS:
                self._take_progress(place, child, body)
            case ChildWord.LATE:
                self._take_late(place, child, read_key(body))
            case ChildWord.DONE:
                self._take_done(place, child)
            case ChildWord.LIMIT:
                if place.sent is not None:
                    place.sent.limit_seconds = read_json(body)
            case ChildWord.LEAVING:
                self._take_leaving(place, child, read_leaving(body))

    def _take_leaving(self, place: Place, child: ChildProcess, reasons: list[LeaveReason]) -> None:
        """Note that the child begins nothing more. What it was sent meanwhile goes to another one."""
        place.leaving, place.leaving_at = reasons, steady_seconds()
        sent, place.sent = place.sent, None
        if sent is not None and sent.job is not None:
            self._return_unbegun(sent, sent.job, child, is_fresh=True)
        elif sent is not None and sent.rq_work is not None:
            self._end_rq_work(place.number, sent.rq_work, sent, "", has_begun=False)

    def _take_outcome(self, place: Place, child: ChildProcess, word: int, body: bytes) -> None:
        found, sent = read_outcome(word, body), place.sent
        if sent is None or sent.job is None or sent.key != found.key:
            return
        if found.outcome.kind != "not_run":
            # Refusing a job takes no time. If it counted, more of them would be taken ahead.
            order = sent.job.order
            self._times.note(order.task, order.queue, found.ended - found.began)
        place.count(found.outcome)
        self._frees_place = self._frees_place or (sent.is_started and self._has_limits)
        self._record(found.key, found.outcome, child.pid, found.began, found.ended)
        self._count(child)
        self._end_sent(place)

    def _take_done(self, place: Place, child: ChildProcess) -> None:
        sent = place.sent
        if sent is not None and sent.plain is not None:
            self._times.note("", sent.plain.queue, steady_seconds() - sent.at)
            self._count(child)
        self._end_sent(place)
        if place is self._errand_place and not self._errands:
            child.dismiss()
            place.leaving = []

    def _record(self, key: Key, outcome: Outcome, pid: int, began: float, ended: float) -> None:
        worker_id = self._heartbeat.worker_id
        self._ended.append(EndedAttempt(*key, worker_id, self._name, outcome, pid, began, ended))

    def _count(self, child: ChildProcess) -> None:
        """Count a job that has ended."""
        child.jobs += 1
        self._tally.ended += 1

    def _end_sent(self, place: Place) -> None:
        is_of_rq = place.sent is not None and place.sent.rq_work is not None
        place.sent = None
        place.ended_at = steady_seconds()
        self._is_stuck = False
        self._demand.renew(is_of_rq=is_of_rq)

    def _take_progress(self, place: Place, child: ChildProcess, body: bytes) -> None:
        key, sent = read_key(body), place.sent
        if sent is None or sent.key != key:
            return
        sent.progress = Progress(*key, *read_json(body, after_key=True))
        if sent.is_started:
            self._recorder.tell(sent.progress)
        else:
            self._write_start(sent, child, sent.began(child) or sent.at)

    def _take_late(self, place: Place, child: ChildProcess, key: Key) -> None:
        """Take back a job that was not begun: the child or this process was frozen meanwhile."""
        sent = place.sent
        if sent is not None and sent.job is not None and sent.key == key:
            self._say(
                logging.WARNING, "job %d does not run here: its reservation had ended", key[0]
            )
            self._return_unbegun(sent, sent.job, child, is_fresh=False)
            self._end_sent(place)

    def _return_unbegun(
        self, sent: Sent, job: ReservedJob, child: ChildProcess, *, is_fresh: bool
    ) -> None:
        """Let a job that its child did not begin wait again, or give it back."""
        self._given -= 1
        if sent.is_written or sent.is_started:
            # Its row says `started`: it is due again at once, and the attempt does not count.
            why = "the function was not called: its process did not begin it in time"
            outcome = Outcome(kind="snoozed", error=why, reason=why)
            self._record(job.key, outcome, child.pid, sent.at, steady_seconds())
        elif is_fresh and not self._stops and sent.why_killed is None:
            self._waiting.add(job)
        else:
            self._give_back([job])

    def _send_more(self, place: Place) -> None:
        assert place.child is not None
        place.child.send_more()
        if not place.child.has_unsent:
            self._poll.modify(place.child.fileno(), select.POLLIN)

    def _bury(self, place: Place) -> None:
        """Take leave of a child that has ended. What it said before counts more than its end."""
        child = place.child
        assert child is not None
        self._hear(place)
        for descriptor in child.descriptors():
            self._forget_descriptor(descriptor)
        sent = place.sent
        began = None if sent is None else sent.began(child)
        tail = child.page.log_tail()
        death = child.bury()
        if sent is not None and sent.rq_work is not None:
            self._end_rq_work(
                place.number, sent.rq_work, sent, death.words, has_begun=began is not None
            )
        elif sent is not None and sent.job is not None:
            if sent.why_killed == LOST:
                job_id = sent.job.order.id
                self._say(logging.WARNING, "job %d does not run here any more: %s", job_id, LOST)
            if began is None:
                self._return_unbegun(sent, sent.job, child, is_fresh=True)
            else:
                outcome = outcome_of_death(sent, death, tail, self._tasks)
                place.count(outcome)
                self._record(sent.job.key, outcome, child.pid, began, steady_seconds())
        elif not place.is_ready and (not self._stops or place is self._errand_place):
            self._postpone(place, f"{death.words}, before it was ready")
        if place is not self._errand_place:
            self._note_leaving(place.leaving or [_death_as_reason(sent if began else None, death)])
        place.child, place.sent, place.is_ready, place.leaving = None, None, False, None
        self._is_stuck = False
        self._demand.renew()

    def _end_rq_work(
        self, place: int, work: RQWork, sent: Sent, words: str, *, has_begun: bool
    ) -> None:
        """A child died with work of RQ: another one does it, or what RQ does after a death."""
        match work:
            case PlainRun():
                if not has_begun:
                    self._special.appendleft(work)
                    return
                why = f"Its process died: {words}{f' ({sent.why_killed})' if sent.why_killed else ''}."
                was_stopped = sent.why_killed == _BY_COMMAND
                self._errands.append(PlainDeath(work, place, why, was_stopped))
            case _ if not has_begun:
                self._errands.appendleft(work)
            case PlainDeath(may_call_host=True):
                self._say(logging.ERROR, "%s is tried again: its process died, %s", work, words)
                self._errands.appendleft(replace(work, may_call_host=False))
            case _:
                self._say(logging.ERROR, "%s failed: its process died, %s", work, words)

    def _forget_descriptor(self, descriptor: int) -> None:
        if self._of_descriptor.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def _note_leaving(self, reasons: list[LeaveReason]) -> None:
        if self._stops:
            return
        self._heartbeat.left_children.note(reasons)
        if unusual := [reason.sentence for reason in reasons if reason.kind != JOBS_DONE]:
            self._say(logging.INFO, "a child has left: it %s", on_one_line("; ".join(unusual)))

    def _kill(self, place: Place, why: str) -> None:
        """Kill a child in the middle of its job, unless it has just ended this job."""
        sent, child = place.sent, place.child
        if sent is None or child is None or sent.why_killed is not None:
            return
        self._hear(place)
        if place.sent is sent:
            sent.why_killed = why
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
            case Popped(plain=plain):
                self._demand.has_bell = False
                if plain is not None:
                    self._tally.through_rq += 1
                    self._special.append(plain)
            case Command():
                self._obey(news)
            case StartScheduler(scheduler=scheduler):
                self._scheduler_to_start = scheduler

    def _take_in(self, news: Taken) -> None:
        if news.is_answer:
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
        elif news.paused:
            self._give_back(self._waiting.take_out_of_queues(news.paused))

    def _read_begun(self, news: Begun) -> None:
        for key in news.asked:
            place = self._find(key)
            if place is None or place.sent is None:
                continue
            if key not in news.started:
                # Its row has another owner by now, or the job has just ended.
                self._kill(place, LOST)
                continue
            place.sent.is_started = True
            if place.sent.progress is not None:
                self._recorder.tell(place.sent.progress)

    def _read_claim(self, news: ClaimAnswer) -> None:
        place = next((place for place in self._places if place.promised == news.key), None)
        if place is None:
            return
        place.promised = None
        if news.job is None:
            return
        if place.is_idle:
            self._send_job(place, news.job, is_started=True)
        else:  # the child died meanwhile
            now = steady_seconds()
            why = "the function was not called: its process died before"
            self._record(news.key, Outcome(kind="snoozed", error=why, reason=why), 0, now, now)

    def _obey(self, command: Command) -> None:
        match command.name:
            case "shutdown":
                self._stop()
            case "opsjobs-heartbeat":
                self._recorder.beat_now()
            case "stop-job" | "stop-execution" | "kill-horse" if command.slot is not None:
                self._stop_by_command(self._places[command.slot - 1], command)

    def _stop_by_command(self, place: Place, command: Command) -> None:
        """Kill the child of a place, when it still has the job that is meant."""
        sent = place.sent
        if sent is None:
            return
        rq_id = sent.plain.rq_id if sent.plain is not None else None
        if sent.job is not None:
            rq_id = make_rq_id(*sent.job.key)
        if command.name == "kill-horse":
            self._kill(place, "killed by a command of RQ")
        elif rq_id is not None and command.job_id == rq_id:
            self._kill(place, CANCELED if sent.job is not None else _BY_COMMAND)

    def _find(self, key: Key) -> Place | None:
        return next((place for place in self._places if place.sent and place.sent.key == key), None)

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
        self._stop_what_must_stop()
        for place in (*self._places, self._errand_place):
            if place.child is not None:
                self._look_at(place, place.child, now)
        if self._starts:
            self._taker.begin(self._starts)
            self._starts = []
        self._recorder.is_hurried = any(isinstance(what, ReservedJob) for what in self._special)
        self._is_stuck = self._is_everyone_stuck(now)
        if self._is_stuck or self._stops or not self._takes_jobs or self._has_no_child():
            self._give_back_all()
        if self._stops:
            self._taker.close()
            self._link.announce_stop()
            self._drop_errands()
        self._tell_link(now)
        self._do_what_is_due(now)

    def _do_what_is_due(self, now: float) -> None:
        if now - self._reported_at >= _REPORT_SECONDS:
            self._report(now)
        if now - self._maintained_at >= _MAINTENANCE_SECONDS and not self._link.is_away:
            self._maintained_at = now
            self._errands.append(RQMaintenance())

    def _report(self, now: float) -> None:
        """Let the next heartbeat tell of the children. The first report does not wait for it."""
        is_first = not self._reported_at
        self._reported_at = now
        self._heartbeat.report(self._tally.report(self._places, self._count_waiting(), now))
        if is_first:
            self._recorder.beat_now()

    def _count_waiting(self) -> int:
        """Return how many jobs wait in this process for a child."""
        return len(self._waiting) + len(self._special)

    def _drop_errands(self) -> None:
        """Keep what must be done before the worker ends: a job that died with it shall not run on for RQ."""
        is_possible = not self._link.is_away and self._errand_place.fork_at <= self._looked_at
        must = [what for what in self._errands if isinstance(what, PlainDeath) and is_possible]
        self._errands = deque(must)

    def _tell_link(self, now: float) -> None:
        """Tell what runs, for RQ's records."""
        self._link.show([place.for_rq(now - _SHOWN_SECONDS) for place in self._places])

    def _look_at(self, place: Place, child: ChildProcess, now: float) -> None:
        if (why := self._why_hung(place, child, now)) is not None:
            place.leaving, place.leaving_at = [*(place.leaving or ()), why], now
            child.kill()
            return
        if (sent := place.sent) is None:
            return
        began, begin_after = sent.began(child), sent.job.order.begin_after if sent.job else 0.0
        if began is None:
            if now - max(sent.at, begin_after) > _GRACE_SECONDS:
                child.kill()
            return
        if self._stops > 1 and place is not self._errand_place:
            self._kill(place, _STOPPED)
        if sent.job is not None:
            self._look_at_job(place, child, sent, began)
        elif now > self._limit_of(place, sent, began):
            self._kill(place, _OVERDUE)

    def _limit_of(self, place: Place, sent: Sent, began: float) -> float:
        """Return until when work of RQ may run. An errand does not delay a stop for long."""
        until = math.inf if sent.limit_seconds is None else began + sent.limit_seconds
        if self._stops and place is self._errand_place:
            return min(until, max(began, self._stopped_at) + _GRACE_SECONDS)
        return until

    def _look_at_job(self, place: Place, child: ChildProcess, sent: Sent, began: float) -> None:
        assert sent.job is not None
        seconds = self._looked_at - began
        if seconds > _SHORT_SECONDS:
            self._write_start(sent, child, began)
        limit = sent.job.order.timeout_seconds
        if limit is not None and seconds > limit + _GRACE_SECONDS:
            self._kill(place, "timed_out")

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
        since = place.in_teardown_since()
        is_over = since is not None and now - since > _GRACE_SECONDS
        return LeaveReason("teardown", "hung after the end of a job") if is_over else None

    def _write_start(self, sent: Sent, child: ChildProcess, began: float) -> None:
        """Let the row of a running job say so, once."""
        if not sent.is_written and sent.job is not None:
            sent.is_written = True
            self._starts.append(Start(sent.job.key, began, child.pid))

    def _stop_what_must_stop(self) -> None:
        if not (wanted := self._heartbeat.stops_wanted()):
            return
        self._give_back(self._waiting.take_out(set(wanted)))
        for key, why in wanted.items():
            if (place := self._find(key)) is not None:
                self._kill(place, why)

    def _has_no_child(self) -> bool:
        """Return whether each place waits for a child: the last one could not be forked, or died at once."""
        return all(place.fork_at for place in self._places)

    def _is_everyone_stuck(self, now: float) -> bool:
        """Return whether every child runs its job for so long that others should not wait for it."""
        stuck = 0
        for place in self._places:
            sent, child = place.sent, place.child
            if sent is None or child is None or (began := sent.began(child)) is None:
                continue
            order = sent.job.order if sent.job is not None else None
            stuck += self._times.is_stuck(order, now - began)
        return stuck >= self._options.processes

    # --- feeding ---

    def _feed(self) -> None:
        if self._errands and self._errand_place.is_idle and not self._link.is_away:
            self._send_rq_work(self._errand_place, self._errands.popleft(), _ERRAND_SECONDS)
        if self._stops or not self._takes_jobs:
            return
        if any(place.is_alone for place in self._places):
            return
        busy = sum(place.is_busy for place in self._places)
        for place in self._places:
            if busy >= self._options.processes or self._is_spent():
                return
            if place.is_idle and self._feed_one(place):
                busy += 1
                if place.is_alone:
                    return

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
                self._send_job(place, job)
                return True
        return False

    def _may_begin(self, job: ReservedJob) -> bool:
        """Give a job back whose deadline has passed, or whose reservation has ended."""
        if job.order.begin_before > steady_seconds():
            return True
        self._give_back([job])
        return False

    def _is_quiet(self) -> bool:
        """Return whether a job that may kill the worker would take no short job with it, and no outcome."""
        if self._ended or self._recorder.has_unwritten:
            return False
        now = steady_seconds()
        return all(
            not place.is_busy or (place.sent is not None and now - place.sent.at > _SHORT_SECONDS)
            for place in self._places
        )

    def _feed_special(self, place: Place, what: ReservedJob | LimitedDelivery | PlainRun) -> None:
        match what:
            case ReservedJob() | LimitedDelivery():
                place.promised = what.key
                place.alone_until = math.inf if isinstance(what, ReservedJob) else 0.0
                self._taker.claim(what)
            case PlainRun():
                self._given += 1
                self._link.let_go()
                self._send_rq_work(place, what)

    def _send_job(self, place: Place, job: ReservedJob, *, is_started: bool = False) -> None:
        self._given += 1
        self._heartbeat.run(job.key)
        sent = Sent(steady_seconds(), job, is_started=is_started)
        place.alone_until = sent.at + _SHORT_SECONDS if job.must_be_alone else 0.0
        self._send(place, sent, make_job_order(job.order))

    def _send_rq_work(self, place: Place, work: RQWork, limit: float | None = None) -> None:
        self._rq_works += 1
        number = self._rq_works
        sent = Sent(steady_seconds(), rq_work=work, number=number, limit_seconds=limit)
        self._send(place, sent, make_rq_order(number, work))

    def _send(self, place: Place, sent: Sent, frame: bytes) -> None:
        assert place.child is not None
        place.sent = sent
        place.child.send(frame)
        if place.child.has_unsent:
            self._poll.modify(place.child.fileno(), select.POLLIN | select.POLLOUT)

    def _give_back_all(self) -> None:
        """Give back everything that waits: jobs to Postgres, deliveries and plain jobs to Redis."""
        special, self._special = self._special, deque()
        self._give_back(self._waiting.take_out())
        self._give_back(what for what in special if isinstance(what, ReservedJob))
        for what in special:
            match what:
                case LimitedDelivery():
                    self._taker.recall(what)
                case PlainRun():
                    self._link.put_back(what)

    def _give_back(self, jobs: Iterable[ReservedJob]) -> None:
        if keys := [job.key for job in jobs]:
            self._taker.give_back(keys)

    # --- taking ---

    def _ask(self) -> None:
        demand, link = self._demand, self._link
        if demand.is_asking and not demand.is_dry:
            return  # the answer is on its way
        free = self._count_free()
        room = self._room(free)
        if not room:
            if demand.has_bell:
                demand.has_bell = False
                link.call_off()
            return
        if demand.is_due(link):
            demand.is_asking, demand.has_bell = True, False
            # Both in turn, so that neither starves the other: Redis holds no more than the prefetch.
            from_redis = min(room, 2 * self._options.processes)
            # Limited jobs come through Redis, and past it only while it is away.
            limited = from_redis if link.is_away and self._has_limits else 0
            self._taker.want(max(1, room - from_redis), MOST_BYTES - self._waiting.bytes, limited)
            link.want(from_redis, may_block=False)
        elif free and demand.is_dry and not demand.has_bell and not self._taker.has_popped:
            demand.wait_for_bell(link)
            link.want(min(room, free), may_block=not self._options.burst)

    def _count_free(self) -> int:
        """Return how many children could get a job now. A spare child waits until a running one has gone."""
        busy = sum(place.is_busy for place in self._places)
        idle = sum(place.is_idle for place in self._places)
        return min(idle, self._options.processes - busy)

    def _room(self, free: int) -> int:
        """Return how many jobs to take now."""
        if (
            self._stops
            or not self._takes_jobs
            or self._link.is_suspended is not False
            or self._has_no_child()
        ):
            return 0
        waiting = self._count_waiting()
        busy = sum(place.is_busy for place in self._places)
        if self._is_stuck or self._waiting.bytes >= MOST_BYTES:
            room = free - waiting
        else:
            room = self._budget.missing(busy + waiting, waiting, free, self._times.mean)
        if self._options.max_jobs is not None:
            room = min(room, self._options.max_jobs - self._given - waiting)
        return max(0, min(room, MOST_HELD - self._heartbeat.count_held()))

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

    def _hand_over(self) -> None:
        if self._ended:
            self._recorder.submit(self._ended, frees_place=self._frees_place)
            self._ended, self._frees_place = [], False

    # --- ending ---

    def _end_children(self) -> None:
        """Give back what waits, and let the children end."""
        self._taker.close()
        self._link.call_off()
        for news in self._mailbox.empty():
            if isinstance(news, Taken | Popped):
                self._read(news)
        self._give_back_all()
        places = (*self._places, self._errand_place)
        for place in places:
            if place.child is not None:
                place.child.dismiss()
        until = time.monotonic() + _END_SECONDS
        while any(place.child for place in places) and time.monotonic() < until:
            self._hear_all(self._poll.poll(50))
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


@contextmanager
def _fork_lock_if_free() -> Iterator[bool]:
    """Hold the fork lock if it is free. Whoever holds it may wait for a server: the main thread does not."""
    is_free = fork_lock.acquire(timeout=_FORK_SECONDS)
    try:
        yield is_free
    finally:
        if is_free:
            fork_lock.release()


@dataclass
class _Demand:
    """What was asked of Postgres and Redis.

    `is_dry`: Postgres had nothing due, so Redis tells of the next job. `has_bell`: Redis was asked to.
    """

    is_asking: bool = False
    is_dry: bool = False
    has_bell: bool = False
    _dry_at: float = 0.0
    _empty_pops: int | None = None

    def is_due(self, link: RQLink) -> bool:
        """Return whether to ask Postgres now."""
        if self.is_asking:
            return False
        is_again = link.is_away and steady_seconds() - self._dry_at >= _WITHOUT_REDIS_SECONDS
        return not self.is_dry or is_again

    def note_answer(self, *, is_empty: bool) -> None:
        """Note that Postgres has answered."""
        self.is_asking, self.is_dry = False, is_empty
        self._dry_at = steady_seconds()

    def wait_for_bell(self, link: RQLink) -> None:
        """Note that Redis is asked for what comes."""
        self.has_bell = True
        self._empty_pops = link.empty_pops

    def renew(self, *, is_of_rq: bool = False) -> None:
        """Note that a job has ended: another may be due.

        After a plain RQ job Postgres is asked only now and then, since Redis tells of what has come.
        """
        is_recent = steady_seconds() - self._dry_at < _ASK_AGAIN_SECONDS
        self.is_dry = self.is_dry and is_of_rq and is_recent
        self.has_bell = False
        self._empty_pops = None

    def found_nothing(self, link: RQLink) -> bool:
        """Return whether nothing is due in Postgres and in Redis."""
        if not self.is_dry or self._empty_pops is None:
            return False
        return link.empty_pops > self._empty_pops or link.is_away
