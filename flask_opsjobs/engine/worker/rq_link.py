"""Talks with Redis for a worker: pops deliveries and RQ jobs, keeps RQ's records, hears RQ's commands."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from redis import Redis, RedisError
from redis.client import Pipeline
from rq import Queue
from rq.command import PUBSUB_CHANNEL_TEMPLATE
from rq.executions import Execution
from rq.suspension import WORKERS_SUSPENDED
from rq.utils import as_text
from typing_extensions import override

from ...core.outage import Backoff
from ..redis.broker import PREFIX, STOP_WITHIN, keys_of_delivery, parse_rq_id
from ..redis.broker import rq_id as make_rq_id
from ..redis.connections import Wire, descriptors_of_pool
from .forking import fork_lock
from .frames import JobOrder, Key, PlainRun
from .rq_scheduler import OpsScheduler
from .rq_slots import SlotWorker

_log = logging.getLogger("flask_opsjobs.worker")

# A pop blocks briefly: a stop waits for its end, since a pop that is broken off may lose a delivery.
_BLOCK_SECONDS = 1
_SUSPENSION_SECONDS = 1.0
SCHEDULER_SECONDS = 60.0
# Redis counts as away after so long without an answer.
_AWAY_SECONDS = 2.0

# The lists of the queues in their order, each with its intermediate list: pops deliveries of ours from the
# front, and stops before anything else. A plain RQ job is popped only as the first of its list, when a child
# is idle for it, and moved to RQ's intermediate list if there is one. Returns the place of the list beside
# each id. Any client of Redis may write an id that only looks like ours: all but the last that is returned
# are surely ours, since an id of 28 bytes has no number that is too large for a bigint.
_POP = """
local found = {}
for at = 1, #KEYS, 2 do
    local is_first = true
    while #found < tonumber(ARGV[1]) do
        local id = redis.call('LINDEX', KEYS[at], 0)
        if not id then break end
        local is_ours = #id <= 28 and string.find(id, ARGV[2])
        if not is_ours and not (is_first and ARGV[3] == '1') then break end
        if not is_ours and ARGV[4] == '1' then
            redis.call('LMOVE', KEYS[at], KEYS[at + 1], 'LEFT', 'RIGHT')
        else redis.call('LPOP', KEYS[at]) end
        found[#found + 1] = {(at - 1) / 2, id}
        if not is_ours then return found end
        is_first = false
    end
end
return found
"""
# Takes the first plain RQ job of the lists out of them, also from behind deliveries of ours.
_POP_PLAIN = """
for at = 1, #KEYS, 2 do
    for _, id in ipairs(redis.call('LRANGE', KEYS[at], 0, ARGV[1] - 1)) do
        if #id > 28 or not string.find(id, ARGV[2]) then
            redis.call('LREM', KEYS[at], 1, id)
            if ARGV[3] == '1' then redis.call('RPUSH', KEYS[at + 1], id) end
            return {(at - 1) / 2, id}
        end
    end
end
return false
"""
# It looks behind so many deliveries. The prefetch is mostly smaller.
_MOST_DELIVERIES = 1_000
# A delivery of ours, as a pattern of Lua.
_OURS = f"^{PREFIX.replace('-', '%-')}[1-9]%d*%-[1-9]%d*$"
# The hashes of popped deliveries are removed with the next pop, or after so long.
_FORGET_SECONDS = 0.02


@dataclass(frozen=True)
class Popped:
    """What came from RQ's lists: deliveries of ours, and at most one plain RQ job."""

    deliveries: Sequence[Key] = ()
    plain: PlainRun | None = None


@dataclass(frozen=True)
class Command:
    """A command of RQ to the child at `slot`; None means the worker.

    `grace` is after how many seconds a worker that is to stop kills what it still runs.
    """

    name: str
    slot: int | None
    job_id: str | None
    grace: float | None = None


@dataclass(frozen=True)
class StartScheduler:
    """RQ's scheduler holds its locks, and its process is to be forked."""

    scheduler: OpsScheduler


@dataclass(frozen=True)
class ShownPlace:
    """What RQ's records show of a place: its job if it has run for a while, and how many ended before."""

    is_busy: bool = False
    job: PlainRun | JobOrder | None = None
    finished: int = 0
    failed: int = 0


@dataclass
class _Wanted:
    number: int = 0
    may_block: bool = False
    only_plain: bool = False


class RQLink(threading.Thread):
    """Owns the worker's connections to Redis. Nobody waits for it; without Redis it tries again for ever."""

    def __init__(
        self,
        wire: Wire,
        queues: Sequence[str],
        slots: Sequence[SlotWorker],
        tell: Callable[[Popped | Command | StartScheduler], None],
        scheduler: OpsScheduler | None,
        heartbeat_seconds: float,
        wake: Callable[[], None],
    ) -> None:
        """`scheduler` puts plain jobs into their queues; None when this worker does not run one.

        RQ's records are written anew every `heartbeat_seconds`. `wake` is called when `is_suspended` changes,
        and when a pop that did not wait found nothing.
        """
        super().__init__(name="opsjobs-rq-link", daemon=True)
        self._records_seconds = heartbeat_seconds
        self._scheduler = scheduler
        self._scheduler_at = 0.0
        self._redis = wire.redis
        self._queues = [
            Queue(name, connection=wire.redis, serializer=wire.serializer) for name in queues
        ]
        self._slots = slots
        self._tell, self._wake = tell, wake
        self._changed = threading.Condition()
        self._wanted = _Wanted()
        self._taken: list[tuple[str, Key]] = []
        self._back: list[PlainRun] = []
        # Whether a plain job was popped that has no child yet: a second one would pass it.
        self._has_plain = False
        self._places: Sequence[ShownPlace] = [ShownPlace() for _ in slots]
        # The managed jobs that RQ's records show, by slot.
        self._shown: dict[SlotWorker, tuple[JobOrder, Execution]] = {}
        self._is_stopping = False
        self._suspension_at = self._records_at = 0.0
        self._answered_at = time.monotonic()
        self._is_popping = self._is_silent = self._is_called_off = False
        self._is_stop_announced = self._has_to_announce = False
        self._backoff = Backoff(longest=4.0)
        # Whether somebody suspended all workers of this Redis, when it was last read. Until it is read, or
        # Redis turns out to be away, it is None and the worker takes nothing.
        self.is_suspended: bool | None = None
        # How often a pop found all lists empty.
        self.empty_pops = 0

    @property
    def is_away(self) -> bool:
        """Return whether Redis has not answered for two seconds."""
        patience = _AWAY_SECONDS + (_BLOCK_SECONDS if self._is_popping else 0.0)
        return time.monotonic() - self._answered_at > patience

    @property
    def is_wanted(self) -> bool:
        """Return whether a pop that was not called off waits for a job, or may."""
        return not self._is_called_off and (self._wanted.may_block or self._is_popping)

    def want(self, number: int, *, may_block: bool) -> None:
        """Allow one pop of at most so many deliveries, or of one plain job.

        `may_block`: nothing is due in Postgres, so wait for what comes.
        """
        with self._changed:
            self._wanted = _Wanted(number, may_block)
            self._is_called_off = False
            self._changed.notify()

    def want_plain(self) -> None:
        """Allow one pop of a plain job: nothing else can be taken, since Postgres does not answer."""
        with self._changed:
            self._wanted = _Wanted(1, only_plain=True)
            self._is_called_off = False
            self._changed.notify()

    def call_off(self) -> None:
        """Pop nothing more. What a pop that is under way brings is put back."""
        with self._changed:
            self._wanted = _Wanted()
            self._is_called_off = True

    def let_go(self) -> None:
        """Note that the plain job has a child, so another one may be popped."""
        self._has_plain = False

    def announce_stop(self) -> None:
        """Let RQ's tools see that the worker stops after its jobs. Calling it again does nothing."""
        if not self._is_stop_announced:
            with self._changed:
                self._is_stop_announced = self._has_to_announce = True
                self._changed.notify()

    def show(self, places: Sequence[ShownPlace]) -> None:
        """Let RQ's records show the places so."""
        self._places = places

    def stop(self, timeout: float) -> bool:
        """Pop nothing more, remove RQ's records of the worker, and end; False after `timeout` seconds."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        self.join(timeout)
        return not self.is_alive()

    def descriptors(self) -> list[int]:
        """Return the descriptors of its connections, which a child must let go."""
        of_scheduler = [] if self._scheduler is None else self._scheduler.descriptors()
        return [*descriptors_of_pool(self._redis), *of_scheduler]

    # --- the thread ---

    @override
    def run(self) -> None:
        """Serve until stopped."""
        commands = _Commands(self._redis, self._slots, self._tell)
        commands.start()
        while not self._is_stopping:
            try:
                self._serve()
                self._note_answer()
            except RedisError as error:
                self._note_silence(error)
                self._pause()
            except Exception:
                with fork_lock:
                    _log.exception("what was read from Redis makes no sense; it is read again")
                self._pause()
        commands.stop()
        self._leave()

    def _pause(self) -> None:
        self._is_popping = False
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopping, self._backoff.next_seconds())

    def _note_silence(self, error: RedisError) -> None:
        if self.is_suspended is None:
            self.is_suspended = False
            self._wake()
        if not self._is_silent:
            self._is_silent = True
            with fork_lock:
                _log.warning(
                    "Redis is away (%s); jobs run from Postgres, plain RQ jobs wait",
                    type(error).__name__,
                )

    def _note_answer(self) -> None:
        self._backoff.reset()
        if self._is_silent:
            self._is_silent = False
            # Redis may be another one by now: write everything anew.
            self._records_at = self._scheduler_at = 0.0
            with fork_lock:
                _log.warning("Redis answers again")

    def _serve(self) -> None:
        self._read_suspension()
        self._show_managed()
        self._keep_records()
        self._keep_scheduler()
        self._put_all_back()
        if self._has_to_announce:
            for slot in self._slots:
                slot.announce_stop()
            self._has_to_announce = False
        with self._changed:
            wanted, self._wanted = self._wanted, _Wanted()
        if wanted.number and self.is_suspended is False:
            self._take(wanted)
        else:
            with self._changed:
                is_wanted = self._changed.wait_for(
                    lambda: (
                        self._wanted.number
                        or self._back
                        or self._has_to_announce
                        or self._is_stopping
                    ),
                    _FORGET_SECONDS if self._taken else _SUSPENSION_SECONDS,
                )
                if self.is_suspended and not self._is_stopping:
                    self._changed.wait(_SUSPENSION_SECONDS)
            if not is_wanted:
                self._forget_all_taken()

    def _take(self, wanted: _Wanted) -> None:
        """Pop once. It stays wanted when that fails, or brings only what is no text."""
        popped = None
        try:
            popped = self._pop(wanted)
        finally:
            if popped is None:
                self._put_back_want(wanted)
        if popped is None:
            return
        self._has_plain = self._has_plain or popped.plain is not None
        if popped.deliveries or popped.plain:
            self._hand_over(popped)
        elif not wanted.only_plain:
            self.empty_pops += 1
            if wanted.may_block:
                self._put_back_want(wanted)
            else:
                self._wake()  # a burst may be over

    def _hand_over(self, popped: Popped) -> None:
        """Tell what was popped. A plain job that was called off meanwhile is put back."""
        with self._changed:
            if popped.plain is not None and self._is_called_off:
                self._back.append(popped.plain)
                popped = Popped(popped.deliveries)
            self._tell(popped)

    def _put_back_want(self, wanted: _Wanted) -> None:
        """Wait on, unless something else is wanted by now, or nothing."""
        with self._changed:
            if not self._wanted.number and not self._is_called_off:
                self._wanted = wanted

    def _pop(self, wanted: _Wanted) -> Popped | None:
        """Return what came, perhaps nothing; None if it was nothing but an id that is no text."""
        if wanted.only_plain:
            return self._pop_plain()
        keys = self._keys()
        flags = (_OURS, int(not self._has_plain), int(len(self._queues) == 1))
        with self._redis.pipeline(transaction=False) as pipe:
            forgotten = self._forget_taken(pipe)
            pipe.eval(_POP, len(keys), *keys, wanted.number, *flags)
            found = pipe.execute()[-1]
        del self._taken[:forgotten]
        self._answered_at = time.monotonic()
        deliveries: list[Key] = []
        for place, raw in found:
            queue = self._queues[place]
            if (rq_id := self._read_id(raw, queue)) is None:
                return Popped(deliveries) if deliveries else None
            if (key := parse_rq_id(rq_id)) is None:
                return Popped(deliveries, PlainRun(rq_id, queue.name))
            deliveries.append(key)
            self._taken.append((queue.name, key))
        if deliveries or self._has_plain or not wanted.may_block or self._is_stopping:
            return Popped(deliveries)
        return self._wait_for_one()

    def _keys(self) -> list[str]:
        return [key for each in self._queues for key in (each.key, each.intermediate_queue_key)]

    def _pop_plain(self) -> Popped | None:
        if self._has_plain:
            return Popped()
        keys = self._keys()
        flags = (_MOST_DELIVERIES, _OURS, int(len(self._queues) == 1))
        found: Any = self._redis.eval(_POP_PLAIN, len(keys), *keys, *flags)
        self._answered_at = time.monotonic()
        if found is None:
            return Popped()
        queue = self._queues[found[0]]
        rq_id = self._read_id(found[1], queue)
        return None if rq_id is None else Popped(plain=PlainRun(rq_id, queue.name))

    def _wait_for_one(self) -> Popped | None:
        self._is_popping = True
        popped = self._block()
        self._is_popping = False
        self._answered_at = time.monotonic()
        if popped is None:
            return Popped()
        raw, queue = popped
        if (rq_id := self._read_id(raw, queue)) is None:
            return None
        if self._is_called_off:
            self._put_back(rq_id, queue)
            return Popped()
        if (key := parse_rq_id(rq_id)) is None:
            return Popped(plain=PlainRun(rq_id, queue.name))
        self._taken.append((queue.name, key))
        return Popped([key])

    def _block(self) -> tuple[Any, Queue] | None:
        if len(self._queues) == 1:
            queue = self._queues[0]
            found: Any = self._redis.blmove(queue.key, queue.intermediate_queue_key, _BLOCK_SECONDS)
            return (found, queue) if found is not None else None
        by_key = {queue.key: queue for queue in self._queues}
        popped: Any = self._redis.blpop(list(by_key), _BLOCK_SECONDS)
        return None if popped is None else (popped[1], by_key[as_text(popped[0])])

    def _read_id(self, raw: Any, queue: Queue) -> str | None:
        """Return an id that was popped as text. One that is no text is nobody's job: it is dropped."""
        try:
            return as_text(raw)
        except UnicodeDecodeError:
            with fork_lock:
                said = "an id in the list of queue %s is no text and is dropped: %s"
                _log.error(said, queue.name, repr(raw))
            self._redis.lrem(queue.intermediate_queue_key, 1, raw)
            return None

    def put_back(self, job: PlainRun) -> None:
        """Put a plain RQ job back to the front of its list, because no child is idle for it."""
        with self._changed:
            self._back.append(job)
            self._changed.notify()

    def _put_all_back(self) -> None:
        while self._back:
            job = self._back[0]
            self._put_back(job.rq_id, self._queue(job.queue))
            del self._back[0]
            self._has_plain = False

    def _queue(self, name: str) -> Queue:
        return next(queue for queue in self._queues if queue.name == name)

    def _put_back(self, rq_id: str, queue: Queue) -> None:
        with self._redis.pipeline() as pipe:
            pipe.lpush(queue.key, rq_id)
            pipe.lrem(queue.intermediate_queue_key, 1, rq_id)
            pipe.execute()

    def _forget_taken(self, pipe: Pipeline) -> int:
        """Remove what RQ has of popped deliveries: their jobs are reserved, or not to be run any more.

        Return how many; whoever executes the pipeline takes them from the list.
        """
        for name, (job_id, number) in self._taken:
            rq_id, queue = make_rq_id(job_id, number), self._queue(name)
            pipe.lrem(queue.intermediate_queue_key, 1, rq_id)
            pipe.delete(*keys_of_delivery(queue, rq_id))
        return len(self._taken)

    def _forget_all_taken(self) -> None:
        if self._taken:
            with self._redis.pipeline(transaction=False) as pipe:
                forgotten = self._forget_taken(pipe)
                pipe.execute()
            del self._taken[:forgotten]

    def _read_suspension(self) -> None:
        if time.monotonic() < self._suspension_at:
            return
        self._suspension_at = time.monotonic() + _SUSPENSION_SECONDS
        was_suspended = self.is_suspended
        self.is_suspended = bool(self._redis.exists(WORKERS_SUSPENDED))
        if self.is_suspended is not was_suspended:
            self._wake()
        self._answered_at = time.monotonic()

    def _keep_records(self) -> None:
        if time.monotonic() < self._records_at:
            return
        self._records_at = time.monotonic() + self._records_seconds
        places = self._places
        with self._redis.pipeline() as pipe:
            for slot, place in zip(self._slots, places, strict=True):
                slot.keep_record(pipe, is_busy=place.is_busy)
            for slot, (order, execution) in self._shown.items():
                slot.keep_managed(pipe, order, execution)
            pipe.execute()
        for slot, place in zip(self._slots, places, strict=True):
            if isinstance(place.job, PlainRun):
                slot.keep_execution(place.job)
            slot.count_managed(place.finished, place.failed)

    def _show_managed(self) -> None:
        """Let RQ's records show the managed jobs that have run for a while, and no others."""
        for slot, place in zip(self._slots, self._places, strict=True):
            shown = self._shown.get(slot)
            if shown is not None and shown[0] is not place.job:
                with self._redis.pipeline() as pipe:
                    slot.end_managed(pipe, *shown)
                    slot.keep_record(pipe, is_busy=place.is_busy)
                    pipe.execute()
                del self._shown[slot]
            if isinstance(place.job, JobOrder) and slot not in self._shown:
                self._shown[slot] = place.job, slot.begin_managed(place.job)
                with self._redis.pipeline() as pipe:
                    slot.keep_managed(pipe, *self._shown[slot])
                    slot.keep_record(pipe, is_busy=True)
                    pipe.execute()

    def _keep_scheduler(self) -> None:
        """Once a minute, take over when no RQ scheduler holds the locks. RQ itself waits ten minutes."""
        if self._scheduler is None or time.monotonic() < self._scheduler_at:
            return
        self._scheduler_at = time.monotonic() + SCHEDULER_SECONDS
        if not self._scheduler.is_running and self._scheduler.acquire_locks():
            self._tell(StartScheduler(self._scheduler))

    def _leave(self) -> None:
        try:
            self._forget_all_taken()
            self._put_all_back()
            self._places = [replace(place, job=None) for place in self._places]
            self._show_managed()
            for slot in self._slots:
                slot.register_death()
        except RedisError as error:
            with fork_lock:
                _log.warning(
                    "the worker stays in RQ's list until its keys expire: %s", type(error).__name__
                )


class _Commands(threading.Thread):
    """Hears RQ's commands to the worker and to its places."""

    def __init__(
        self, redis: Redis, slots: Sequence[SlotWorker], tell: Callable[[Command], None]
    ) -> None:
        super().__init__(name="opsjobs-rq-commands", daemon=True)
        self._redis, self._slots = redis, slots
        self._tell = tell
        self._places: dict[str, int | None] = {
            slot.pubsub_channel_name: number for number, slot in enumerate(slots, 1)
        }
        worker = slots[0].name.rpartition(".")[0]
        self._places[PUBSUB_CHANNEL_TEMPLATE % worker] = None
        self._is_stopping = threading.Event()
        # Whether it is logged that they are not heard now.
        self._is_told = False

    def stop(self) -> None:
        """Hear no more. Ends with the process."""
        self._is_stopping.set()

    @override
    def run(self) -> None:
        while not self._is_stopping.is_set():
            try:
                self._hear()
            except (RedisError, OSError, ValueError) as error:
                if not (self._is_told or self._is_stopping.is_set()):
                    with fork_lock:
                        _log.warning("RQ's command channel: %s", type(error).__name__)
                self._is_told = True
                self._is_stopping.wait(2.0)

    def _hear(self) -> None:
        with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
            pubsub.subscribe(*self._places)
            self._is_told = False
            while not self._is_stopping.is_set():
                message = pubsub.get_message(timeout=1.0)
                if message is not None:
                    self._read(message)

    def _read(self, message: dict[str, Any]) -> None:
        try:
            payload = json.loads(message["data"])
            name, job_id = str(payload["command"]), payload.get("job_id")
            grace = float(payload["grace"]) if name == STOP_WITHIN else None
        except (ValueError, TypeError, KeyError, AttributeError):
            return
        place = self._places.get(as_text(message["channel"]))
        if name == "stop-execution" and not self._runs(place, job_id, payload.get("execution_id")):
            return
        self._tell(Command(name, place, job_id, grace))

    def _runs(self, place: int | None, *execution: object) -> bool:
        """Return whether a place runs this execution: an older one of the same job is over."""
        return place is not None and self._slots[place - 1].runs(*map(str, execution))
