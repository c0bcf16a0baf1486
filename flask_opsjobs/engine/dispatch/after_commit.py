"""Acts in Redis after a commit: dispatches the jobs of a host's commit, and runs an action's effects.

Failures are logged and never reach the host. The loops repair what fails here.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress

import psycopg
from redis import RedisError

from ... import signals
from ...actions.effects import (
    Advance,
    AnnounceDrain,
    AnnounceResolved,
    AnnounceStop,
    AskRq,
    Dispatch,
    Effect,
    Fold,
    Forget,
    Recall,
    Resync,
    StopWorker,
)
from ...batches.transitions import list_workers_of_batches_to_stop
from ...core.db import Connection, is_away, say_cause
from ...core.reading import read_clock
from ...endings.pending_batches import PendingBatches
from ...endings.pending_runs import PendingRuns
from ...host import ClosedBatch, CommitNote, DueLane, Host, QueuedAtInsert, SignalSent
from ...lifeline import incidents
from ...lifeline import transitions as incident_transitions
from ...lifeline.incidents import Applied
from ...workflows.send_signal import since
from ...workflows.transitions import find_runs_of_signal, list_workers_to_stop
from ..adopted.ask_rq import RqRefused, ask_of_place
from ..adopted.places import find_redis
from ..reconcile.recall import recall_paused, recall_paused_tasks
from ..reconcile.remove_deliveries import remove_deliveries
from ..reconcile.resync import resync_queue
from ..redis.broker import (
    Broker,
    Delivery,
    SentPush,
    announce_stop,
    broker_of,
    stop_worker,
    try_announce_stop,
)
from .dispatch import Dispatcher, recall, send_dispatched

_log = logging.getLogger("flask_opsjobs.dispatch")
# After a failure of Redis or Postgres, this process leaves dispatch to the loop for this long.
_PAUSE_SECONDS = 5.0
# An estimate is valid for this long. Then the next job is dispatched in the ordinary way, which reads anew.
_BELIEVED_SECONDS = 1.0


class AfterCommitDispatch:
    """Dispatches for one process. It may give up quickly, because the dispatch loop runs every second."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._estimate = RoomEstimate()
        self._paused_until = 0.0
        self._is_told = False
        # Pushes whose answers are read before the next one, so that no request waits for Redis.
        self._sent: deque[SentPush] = deque()
        self._pid = os.getpid()

    def has_room(self, queue: str) -> bool:
        """Return whether a due job may be inserted as `queued` and pushed after the commit. Takes a slot."""
        if time.monotonic() < self._paused_until:
            return False
        if self._estimate.take(queue):
            return True
        self._note_answers()
        return self._estimate.take(queue)

    def push(self, notes: Sequence[CommitNote]) -> None:
        """Push the jobs that were inserted as `queued`, and dispatch other lanes.

        Before that, give signals to waits, and end closed batches whose members have ended.
        """
        with signals.sent_by(self._host):
            self._push(notes)

    def _push(self, notes: Sequence[CommitNote]) -> None:
        queued = [Delivery(*note) for note in notes if isinstance(note, QueuedAtInsert)]
        lanes = dict.fromkeys(note for note in notes if isinstance(note, DueLane))
        sent = [note.id for note in notes if isinstance(note, SignalSent)]
        closed = [note.id for note in notes if isinstance(note, ClosedBatch)]
        if time.monotonic() < self._paused_until:
            return  # the loops do all of this: they dispatch, recall what is `queued`, advance and fold
        try:
            if sent:
                lanes |= dict.fromkeys(self._give_to_waits(sent))
            if closed:
                lanes |= dict.fromkeys(self._fold(closed))
            self._push_queued(queued)
            if (self._dispatch(list(lanes)) or queued) and self._is_told:
                _log.warning("jobs are dispatched after commits again")
                self._is_told = False
        except RedisError as error:
            self._pause(f"Redis does not answer ({type(error).__name__})")
        except psycopg.Error as error:
            if not is_away(error):
                raise
            self._pause(f"Postgres is away ({say_cause(error)})")

    def _give_to_waits(self, sent: Sequence[int]) -> list[DueLane]:
        """End the waits that these signals are for; return the lanes of the steps behind them.

        A signal that is given to no wait here stays early: the advance loop looks at it again.
        """
        runs = PendingRuns(self._host.settings.max_args_bytes)
        with self._host.spare.one() as connection:
            for signal in sent:
                runs.add(find_runs_of_signal(connection, signal, since(self._host)))
            lanes = runs.advance(connection)
            lanes += runs.advance(connection)  # the first call ends the waits, the second releases
        return [DueLane(*lane) for lane in lanes]

    def _fold(self, batches: Sequence[int]) -> list[DueLane]:
        """End those of these closed batches whose members have ended; return the lanes of their callbacks."""
        pending = PendingBatches(only_last=True)
        pending.add(batches)
        with self._host.spare.one() as connection:
            return [DueLane(*lane) for lane in pending.advance(connection)]

    def _pause(self, why: str) -> None:
        """Leave dispatch to the loop for a while. An outage is logged once."""
        self._paused_until = time.monotonic() + _PAUSE_SECONDS
        if not self._is_told:
            _log.warning("%s; jobs are left to workers and to the dispatch loop until it does", why)
        self._is_told = True

    def _push_queued(self, queued: Sequence[Delivery]) -> None:
        """Push these without waiting for the answer, after reading the answers to earlier pushes."""
        sent = self._take_sent()
        try:
            while sent:
                self._estimate.note_waiting(sent[0].queue, sent[0].read())
                del sent[0]
            if (last := broker_of(self._host).send(queued, quick=True)) is not None:
                self._sent.append(last)
                send_dispatched((each.id, each.queue) for each in queued)
        except RedisError:
            # A push without an answer may still have arrived. Its dispatch number is outdated by the recall.
            for push in sent:
                push.give_up()
            lost = [delivery for push in sent for delivery in push.deliveries]
            with self._host.spare.one() as connection:
                recall(connection, [(each.id, each.dispatch_no) for each in (*lost, *queued)])
            raise

    def _note_answers(self) -> None:
        """Use the answers that have arrived. Keep the bad ones: no recall may run inside a transaction."""
        for sent in self._take_sent():
            try:
                if sent.has_answer():
                    self._estimate.note_waiting(sent.queue, sent.read())
                    continue
            except RedisError:
                pass
            self._sent.append(sent)

    def _take_sent(self) -> list[SentPush]:
        """Take all pushes whose answers were not read, so that no other thread reads them."""
        if self._pid != os.getpid():
            # After a fork the connections are the parent's, and so are the answers.
            self._sent, self._pid = deque(), os.getpid()
        taken = []
        with suppress(IndexError):
            while True:
                taken.append(self._sent.popleft())
        return taken

    def _dispatch(self, lanes: Sequence[DueLane]) -> int:
        """Dispatch these lanes; return how many jobs."""
        if not lanes:
            return 0
        host, dispatched = self._host, 0
        with host.spare.one() as connection:
            now = read_clock(connection)
            dispatcher = Dispatcher(connection, broker_of(host), host.settings, quick=True)
            for lane, queue in lanes:
                count, left = dispatcher.fill(lane, queue, now)
                dispatched += count
                if lane == queue:  # a limited lane leaves room although it has more due jobs
                    self._estimate.note(queue, count + left, count)
        return dispatched


class RoomEstimate:
    """A process's guess of free slots per queue. A wrong guess costs one statement, never a limit.

    Several processes may see the same room, so each uses half of the room that it saw last: after a dispatch,
    or after a push, when Redis says how many wait. A job more in Redis than the prefetch allows is harmless.
    So threads need no lock that a fork could leave held.
    """

    def __init__(self) -> None:
        # By queue: the room that the last dispatch found, what is left of it, and until when to believe it.
        self._rooms: dict[str, tuple[int, int, float]] = {}

    def note(self, queue: str, room: int, taken: int) -> None:
        """Remember how much room a dispatch found, when it took all due jobs of its lane into it."""
        until = time.monotonic() + _BELIEVED_SECONDS
        self._rooms[queue] = (room, _half(room - taken), until)

    def note_waiting(self, queue: str, number: int) -> None:
        """Remember how many wait in Redis now: what workers have taken meanwhile has left its room."""
        if queue in self._rooms:
            room, _, until = self._rooms[queue]
            self._rooms[queue] = (room, _half(room - number), until)

    def take(self, queue: str) -> bool:
        """Return whether a job may be inserted as `queued`; if so, take one slot."""
        room, left, until = self._rooms.get(queue, (0, 0, 0.0))
        if left <= 0 or time.monotonic() >= until:
            return False
        self._rooms[queue] = (room, left - 1, until)
        return True


def _half(room: int) -> int:
    return max(0, room + 1) // 2


def run_effects(host: Host, connection: Connection, effects: Iterable[Effect]) -> list[str]:
    """Run an action's effects; return what is news for the receipt, as sentences. Never raises.

    News is what an effect found to do, and what happens instead of one that failed.

    `connection` is in autocommit. An operator waits for the answer, so a call to Redis takes at most 0.2 s,
    and after the first call without an answer the remaining effects are not tried.
    """
    untold: dict[str, None] = {}
    told: list[str] = []
    refused: list[str] = []
    redis_is_away = False
    for effect in effects:
        if not redis_is_away:
            try:
                with signals.sent_by(host):
                    if isinstance(effect, Resync):
                        told.append(resync_queue(host, connection, effect.queue))
                    else:
                        _run(host, connection, effect)
                continue
            except RqRefused as error:
                refused.append(str(error))
                continue
            except RedisError as error:
                redis_is_away = True
                _log.warning("Redis did not answer (%s) after an action", type(error).__name__)
            except Exception:
                _log.exception("an effect of an action failed: %r", effect)
        untold[effect.otherwise] = None
    failed = [f"Redis was not told: {', '.join(untold)}"] if untold else []
    return [*told, *failed, *refused]


def is_answering(host: Host, place: str, queue: str) -> bool:
    """Return whether the Redis of plain jobs answers now; True for one that this app does not know."""
    redis = find_redis(host, place, queue)
    try:
        return redis is None or bool(redis.ping())
    except RedisError:
        return False


def ask_rq_once(host: Host, question: AskRq) -> tuple[str, str | None]:
    """Ask RQ after a commit; return `done`, `refused` or `unknown`, and why. Never raises.

    `unknown`: Redis did not answer, so RQ may have been asked or not.
    """
    try:
        ask_of_place(host, question)
    except RqRefused as error:
        return "refused", str(error)
    except RedisError as error:
        return "unknown", f"Redis did not answer ({type(error).__name__}): {question.otherwise}"
    except Exception as error:
        _log.exception("RQ could not be asked: %r", question)
        return "unknown", f"{type(error).__name__}: {question.otherwise}"
    return "done", None


def _recall(connection: Connection, effect: Recall) -> list[tuple[str, int, int]]:
    if effect.task is not None:
        return recall_paused_tasks(connection, effect.task)
    return recall_paused(connection, effect.queue)


def _run(host: Host, connection: Connection, effect: Effect) -> None:
    match effect:
        case Dispatch(lanes):
            _dispatch(host, lanes)
        case Recall():
            remove_deliveries(broker_of(host), _recall(connection, effect), quick=True)
        case Forget(deliveries):
            remove_deliveries(broker_of(host), deliveries, quick=True)
        case Advance(runs):
            _advance(host, connection, runs)
        case Fold(batches):
            _fold(host, connection, batches)
        case AnnounceStop() | AnnounceDrain() | StopWorker():
            _tell_worker(broker_of(host), effect)
        case AnnounceResolved(ids):
            resolved = [incident.news for incident in incident_transitions.look(connection, ids)]
            incidents.announce(host, Applied(resolved=resolved))
        case AskRq():
            ask_of_place(host, effect)


def _tell_worker(broker: Broker, effect: AnnounceStop | AnnounceDrain | StopWorker) -> None:
    if isinstance(effect, StopWorker):
        stop_worker(broker, effect.queue, effect.worker, effect.grace)
    else:
        announce_stop(broker, effect.queue, effect.worker)


def _dispatch(host: Host, lanes: Iterable[tuple[str, str]]) -> None:
    # The dispatcher is None under TESTING and without OPSJOBS_DISPATCH: the loop dispatches then.
    # It logs by itself when Redis does not answer.
    if host.dispatcher is not None:
        host.dispatcher.push([DueLane(*lane) for lane in lanes])


def _advance(host: Host, connection: Connection, runs: Sequence[int]) -> None:
    """Advance runs that an operator changed, and ask workers to stop steps of canceled ones."""
    pending = PendingRuns(host.settings.max_args_bytes)
    pending.add(runs)
    lanes = pending.advance(connection)
    lanes += pending.advance(
        connection
    )  # the first call ends steps, the second passes their ends on
    for queue, worker in list_workers_to_stop(connection, runs):
        try_announce_stop(broker_of(host), queue, worker)
    if lanes:
        _dispatch(host, lanes)


def _fold(host: Host, connection: Connection, batches: Sequence[int]) -> None:
    """Fold batches that an operator changed, and ask workers to stop members of canceled ones."""
    pending = PendingBatches()
    pending.add(batches)
    lanes = pending.advance(connection)
    for queue, worker in list_workers_of_batches_to_stop(connection, batches):
        try_announce_stop(broker_of(host), queue, worker)
    if lanes:
        _dispatch(host, lanes)
