"""Takes jobs for a worker, writes which have begun, and gives back what does not begin, in a thread."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from psycopg.rows import dict_row
from typing_extensions import override

from ... import endings
from ...core import sql
from ...core.db import Connection, descriptors_of, set_patience
from ...core.outage import Backoff, Outage
from ...core.reading import read_clock
from ...core.steady_clock import steady_seconds
from ...host import Host
from ...jobs.perform.current import Claimed
from ...lifeline.disown import list_started
from ..dispatch.dispatch import recall_lanes, send_dispatched, take_limited
from .claim import ClaimedNext, LimitedLane, NotClaimed, claim, claim_next
from .forking import PATIENCE_SECONDS, connect_while_forking, fork_lock
from .frames import JobOrder, Key
from .heartbeat import Heartbeat
from .recorder import Recorder
from .reserved import ReservedJob
from .turn import PAUSE_SECONDS, Turn

_log = logging.getLogger("flask_opsjobs.worker")
_THREAD = "taker"
# Postgres counts as away when it owes an answer for so long.
_LATE_SECONDS = 1.0


@dataclass(frozen=True)
class Start:
    """That a job has begun at `began`, by `steady_seconds`, in the process `pid`; None before it is sent."""

    key: Key
    began: float
    pid: int | None


@dataclass(frozen=True)
class LimitedDelivery:
    """A valid delivery of a limited job. Nobody has claimed the job yet."""

    key: Key


@dataclass(frozen=True)
class Taken:
    """Jobs that the worker has reserved now, in order.

    `limited` are valid deliveries of limited jobs, which are claimed when a child is idle. `paused_queues`
    are the worker's queues that are paused, `paused_tasks` all tasks that are. `is_answer`: the jobs are what
    was wanted from Postgres, maybe none.
    """

    jobs: Sequence[ReservedJob]
    limited: Sequence[LimitedDelivery] = ()
    paused_queues: Sequence[str] = ()
    paused_tasks: Sequence[str] = ()
    is_answer: bool = False


@dataclass(frozen=True)
class Begun:
    """Of these jobs `asked`, those in `started` are written as started; the others are not ours any more."""

    asked: Sequence[Key]
    started: Container[Key]


@dataclass(frozen=True)
class ClaimAnswer:
    """Jobs that were claimed, in order, for so many children as `asked`: their rows say `started`.

    `promise` is what was asked for: one job, or the next ones of a lane. `has_more`: the limiter of the lane
    has room for more, and more are due.
    """

    promise: Key | LimitedLane
    asked: int
    jobs: Sequence[ReservedJob]
    has_more: bool = False


News = Taken | Begun | ClaimAnswer


@dataclass
class _Requests:
    """What the other threads want of the taker. A request stays until it is done."""

    wanted: int = 0
    # Only jobs that have been due for so long.
    waited: timedelta | None = None
    wanted_limited: int = 0
    bytes: int = 0
    deliveries: list[Key] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    claims: list[LimitedDelivery | ReservedJob] = field(default_factory=list)
    # For how many places.
    lanes: dict[LimitedLane, int] = field(default_factory=dict)
    back: dict[Key, None] = field(default_factory=dict)
    recalls: list[Key] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(
            self.wanted
            or self.wanted_limited
            or self.deliveries
            or self.starts
            or self.claims
            or self.lanes
            or self.back
            or self.recalls
        )


class Taker(threading.Thread):
    """Owns the connection on which jobs are taken. Nobody waits for it: it tells what it did by `tell`."""

    def __init__(
        self,
        host: Host,
        worker: str,
        queues: Sequence[str],
        heartbeat: Heartbeat,
        outage: Outage,
        tell: Callable[[News], None],
        recorder: Recorder,
    ) -> None:
        """`recorder` dispatches the lanes of the jobs that were given back."""
        super().__init__(name="opsjobs-taker", daemon=True)
        self._host = host
        self._worker_id, self._worker = heartbeat.worker_id, worker
        self._heartbeat = heartbeat
        self._queues = list(queues)
        self._places = {name: place for place, name in enumerate(queues)}
        self._outage = outage
        self._tell = tell
        self._recorder = recorder
        self._reserved_seconds = reservation_seconds(host.settings.missing_seconds)
        self._connection: Connection | None = None
        self._changed = threading.Condition()
        self._requests = _Requests()
        # The mean size of the arguments of the jobs that were taken last.
        self._mean_size = 1.0
        self._suspects: set[Key] = set()
        self._look_at = 0.0
        # Since when Postgres owes an answer, by the monotonic clock; 0 when it owes none.
        self._owed_since = 0.0
        # Whether jobs of a lane may be claimed of which no answer has come.
        self._is_claiming = False
        self._is_closed = self._is_stopping = self._has_failed_at_stop = False
        self._backoff = Backoff()
        self._turn = Turn(_THREAD, self._is_connected)

    # --- what the main thread asks for ---

    def want(
        self, number: int, most_bytes: int, limited: int = 0, waited: timedelta | None = None
    ) -> None:
        """Ask for so many jobs from Postgres; they are told once, as an answer.

        `waited`: only for jobs that have been due for so long. `limited`: so many limited jobs too, which
        come through Redis unless it is away. They are told before.
        """
        with self._changed:
            self._requests.wanted, self._requests.bytes = number, most_bytes
            self._requests.wanted_limited, self._requests.waited = limited, waited
            self._changed.notify()

    def accept(self, deliveries: Sequence[Key]) -> bool:
        """Reserve the jobs of deliveries that were popped from RQ. Return whether it tells of some later.

        One that the worker holds comes again from a Redis that was set back: it is not taken twice.
        """
        with self._changed:
            new = self._heartbeat.reserve_new(deliveries)
            self._requests.deliveries += new
            self._changed.notify()
        return bool(new)

    @property
    def is_late(self) -> bool:
        """Return whether Postgres has not answered for a while."""
        owed_since = self._owed_since
        return owed_since > 0 and time.monotonic() - owed_since > _LATE_SECONDS

    @property
    def has_popped(self) -> bool:
        """Return whether deliveries wait to be reserved: while Postgres is slow, no more are popped."""
        return bool(self._requests.deliveries)

    def begin(self, starts: Sequence[Start]) -> None:
        """Write that jobs have begun."""
        with self._changed:
            self._requests.starts += starts
            self._changed.notify()

    def claim(self, what: LimitedDelivery | ReservedJob) -> None:
        """Claim a job before it is sent: one that is limited, or that must be alone."""
        with self._changed:
            self._requests.claims.append(what)
            self._changed.notify()

    def claim_next(self, lane: LimitedLane) -> None:
        """Claim the next due job of a lane for a child that is idle; the limiter may have a place."""
        with self._changed:
            self._requests.lanes[lane] = self._requests.lanes.get(lane, 0) + 1
            self._changed.notify()

    def give_back(self, keys: Sequence[Key]) -> None:
        """Give reserved jobs back that have not begun."""
        with self._changed:
            self._requests.back |= dict.fromkeys(keys)
            self._changed.notify()

    def recall(self, delivery: LimitedDelivery) -> None:
        """Make a limited job available again, whose delivery was popped and not claimed."""
        with self._changed:
            self._requests.recalls.append(delivery.key)
            self._changed.notify()

    def close(self) -> None:
        """Take nothing more. What a take that is under way brings is given back, and nobody is told."""
        with self._changed:
            self._requests.wanted = self._requests.wanted_limited = 0
            self._is_closed = True

    def stop(self, timeout: float) -> bool:
        """Take nothing more, give back what is reserved, and end; False after `timeout` seconds."""
        self.close()
        with self._changed:
            self._is_stopping = True
            if self._connection is not None:
                set_patience(self._connection, PATIENCE_SECONDS)
            self._changed.notify()
        self.join(timeout)
        return not self.is_alive()

    # --- the thread ---

    @override
    def run(self) -> None:
        """Serve requests until stopped. What fails because Postgres is away is tried again."""
        while self._wait():
            pause = self._serve()
            if not pause:
                continue
            self._lose_connection()
            if self._has_failed_at_stop:
                break
            self._has_failed_at_stop = self._is_stopping
            with self._changed:
                self._changed.wait_for(lambda: self._is_stopping, pause)
        if self._connection is not None:
            self._connection.close()

    def _wait(self) -> bool:
        with self._changed:
            left = max(0.0, self._look_at - steady_seconds())
            self._changed.wait_for(lambda: self._requests or self._is_stopping, left)
            return bool(self._requests) or not self._is_stopping

    def _serve(self) -> float:
        """Do all that is asked, the most urgent first; return for how long to wait before the next turn.

        A request that fails stays.
        """
        asked_at = time.monotonic()
        self._owed_since = self._owed_since or asked_at
        try:
            is_well = self._turn.make(
                self._begin,
                self._give_back,
                self._claim,
                self._claim_next,
                self._reserve,
                self._take_limited,
                self._take,
                self._find_forgotten,
            )
        except Exception as error:
            self._outage.begin(_THREAD, error, asked_at)
            return self._backoff.next_seconds()
        self._owed_since = 0.0
        self._outage.end(_THREAD)
        self._backoff.reset()
        return 0.0 if is_well else PAUSE_SECONDS

    def _begin(self) -> None:
        if starts := self._requests.starts[:]:
            started = self._write_starts(starts, is_durable=False)
            with self._changed:
                del self._requests.starts[: len(starts)]
            self._tell(Begun([start.key for start in starts], started))

    def _write_starts(self, starts: Sequence[Start], *, is_durable: bool) -> set[Key]:
        moment = steady_seconds()
        parameters = {
            "ids": [start.key[0] for start in starts],
            "dispatch_nos": [start.key[1] for start in starts],
            "ago": [moment - start.began for start in starts],
            "pids": [start.pid for start in starts],
            "worker_id": self._worker_id,
            "worker": self._worker,
            "is_durable": is_durable,
        }
        return set(self._connected().execute(sql.load("begin_jobs"), parameters).fetchall())

    def _give_back(self) -> None:
        if keys := list(self._requests.back):
            self._write_back(keys)
            with self._changed:
                for key in keys:
                    self._requests.back.pop(key, None)
            self._heartbeat.release(keys)
        if keys := self._requests.recalls[:]:
            lanes = recall_lanes(self._connected(), keys)
            with self._changed:
                del self._requests.recalls[: len(keys)]
            self._heartbeat.release(keys)
            self._recorder.dispatch_lanes(lanes)

    def _write_back(self, keys: Sequence[Key]) -> None:
        connection = self._connected()
        moved = endings.give_back(connection, keys, self._worker_id, read_clock(connection))
        self._recorder.note_given_back(moved)

    def _claim(self) -> None:
        while self._requests.claims:
            what = self._requests.claims[0]
            job = (
                self._claim_alone(what)
                if isinstance(what, ReservedJob)
                else self._claim_limited(what.key)
            )
            with self._changed:
                del self._requests.claims[0]
            self._tell(ClaimAnswer(what.key, 1, [] if job is None else [job]))

    def _claim_alone(self, job: ReservedJob) -> ReservedJob | None:
        """Write the start of a job before it begins: a worker died with it before, and may again."""
        start = Start(job.key, steady_seconds(), None)
        if job.key in self._write_starts([start], is_durable=True):
            return job
        self._heartbeat.release([job.key])
        return None

    def _claim_limited(self, key: Key) -> ReservedJob | None:
        asked_at = steady_seconds()
        ours = self._worker_id, self._worker
        found = claim(self._connected(), key, *ours, is_retry=True)
        if isinstance(found, NotClaimed):
            self._heartbeat.release([key])
            self._heartbeat.count(found.reason)
            return None
        order = _order_of_claimed(found, asked_at + self._reserved_seconds)
        return ReservedJob(order, place=0, priority=0, due_at=0.0)

    def _claim_next(self) -> None:
        """Claim jobs of lanes: as many as were asked for meanwhile at once."""
        while self._requests.lanes:
            lane, number = next(iter(self._requests.lanes.items()))
            asked_at = steady_seconds()
            found = self._find_claimed()
            if not found.jobs:
                self._is_claiming = True
                ours = self._worker_id, self._worker
                found = claim_next(self._connected(), lane, number, *ours)
            until = asked_at + self._reserved_seconds
            jobs = [ReservedJob(_order_of_claimed(one, until), 0, 0, 0.0) for one in found.jobs]
            self._heartbeat.reserve([job.key for job in jobs])
            self._is_claiming = False
            with self._changed:
                self._requests.lanes[lane] -= number
                if not self._requests.lanes[lane]:
                    del self._requests.lanes[lane]
            self._tell(ClaimAnswer(lane, number, jobs, found.has_more))

    def _find_claimed(self) -> ClaimedNext:
        """Return the jobs of a claim that was committed and whose answer was lost."""
        if not self._is_claiming:
            return ClaimedNext()
        connection, ours = self._connected(), (self._worker_id, self._worker)
        unknown = [
            key
            for key in list_started(connection, self._worker_id)
            if not self._heartbeat.holds(key)
        ]
        found = [claim(connection, key, *ours, is_retry=True) for key in unknown]
        return ClaimedNext([each for each in found if isinstance(each, Claimed)], has_more=True)

    def _reserve(self) -> None:
        popped = self._requests.deliveries[:]
        if not popped:
            return
        asked_at = steady_seconds()
        parameters = {
            "ids": [job_id for job_id, _ in popped],
            "dispatch_nos": [number for _, number in popped],
            "worker_id": self._worker_id,
        }
        cursor = self._connected().cursor(row_factory=dict_row)
        rows = cursor.execute(sql.load("reserve_deliveries"), parameters).fetchall()
        with self._changed:
            del self._requests.deliveries[: len(popped)]
        jobs = [self._reserved(row, asked_at) for row in rows if row["id"] is not None]
        limited = [
            LimitedDelivery((row["popped_id"], row["popped_no"]))
            for row in rows
            if row["is_limited"]
        ]
        for row in rows:
            if row["why_not"] is not None:
                self._heartbeat.release([(row["popped_id"], row["popped_no"])])
                self._heartbeat.count(row["why_not"])
        self._hand_over(Taken(jobs, limited))

    def _take_limited(self) -> None:
        """Take deliveries of limited jobs past Redis. They are claimed like others, when a child is idle."""
        number = self._requests.wanted_limited
        if not number:
            return
        connection = self._connected()
        found = take_limited(
            connection, self._host.settings, self._queues, number, read_clock(connection)
        )
        with self._changed:
            self._requests.wanted_limited = 0
        if found:
            limited = [LimitedDelivery((each.id, each.dispatch_no)) for each in found]
            self._hand_over(Taken([], limited))

    def _take(self) -> None:
        number = self._requests.wanted
        if not number:
            return
        asked_at = steady_seconds()
        # Postgres measures the arguments of each row that it looks at.
        fitting = int(self._requests.bytes / self._mean_size) + 1
        parameters = {
            "queues": self._queues,
            "limit": min(number, fitting),
            "bytes": self._requests.bytes,
            "waited": self._requests.waited,
            "worker_id": self._worker_id,
        }
        cursor = self._connected().cursor(row_factory=dict_row)
        rows = cursor.execute(sql.load("take_jobs"), parameters).fetchall()
        with self._changed:
            self._requests.wanted = 0
        jobs = [self._reserved(row, asked_at) for row in rows if row["id"] is not None]
        if jobs:
            self._mean_size = max(1.0, sum(job.size for job in jobs) / len(jobs))
            send_dispatched((job.order.id, job.order.queue) for job in jobs)
        paused = rows[0]["paused"], rows[0]["paused_tasks"]
        self._hand_over(Taken(jobs, (), *paused, is_answer=True))

    def _hand_over(self, taken: Taken) -> None:
        """Tell what was taken, unless nobody hears it any more: then it is given back."""
        keys = [job.key for job in taken.jobs]
        limited = [one.key for one in taken.limited]
        self._heartbeat.reserve([*keys, *limited])
        with self._changed:
            if not self._is_closed:
                self._tell(taken)
                return
            self._requests.back |= dict.fromkeys(keys)
            self._requests.recalls += limited

    def _reserved(self, row: dict[str, Any], asked_at: float) -> ReservedJob:
        order = JobOrder(
            id=row["id"],
            dispatch_no=row["dispatch_no"],
            task=row["task"],
            queue=row["queue"],
            args=row["args"],
            meta=row["meta"],
            tags=row["tags"],
            attempt=row["attempt"],
            max_attempts=row["max_attempts"],
            timeout_seconds=row["timeout_seconds"],
            deadline_at=row["deadline_at"],
            created_at=row["created_at"],
            claimed_at=row["taken_at"],
            begin_before=self._begin_before(row, asked_at),
        )
        return ReservedJob(
            order,
            place=self._places.get(row["queue"], len(self._places)),
            priority=row["priority"],
            due_at=row["due_at"],
            must_be_alone=row["lost_reservations"] > 0,
        )

    def _begin_before(self, row: dict[str, Any], asked_at: float) -> float:
        """Return when the reservation or the deadline of a job ends, whichever comes first."""
        seconds = self._reserved_seconds
        if row["deadline_at"] is not None:
            seconds = min(seconds, row["deadline_at"] - row["taken_at"])
        return asked_at + seconds

    def _find_forgotten(self) -> None:
        """Give back reservations whose answer was lost: the worker does not know of them at two looks."""
        if steady_seconds() < self._look_at or self._is_stopping:
            return
        self._look_at = steady_seconds() + self._host.settings.heartbeat_seconds
        parameters = {"worker_id": self._worker_id}
        rows = self._connected().execute(sql.load("list_reserved_by"), parameters).fetchall()
        unknown = {key for key in rows if not self._heartbeat.holds(key)}
        if forgotten := unknown & self._suspects:
            self._write_back(sorted(forgotten))
        self._suspects = unknown - forgotten

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            with fork_lock:
                self._connection = connect_while_forking(self._host)
            self._look_at = 0.0
        return self._connection

    def _is_connected(self) -> bool:
        return self._connection is not None and not self._connection.closed

    def _lose_connection(self) -> None:
        """Close the connection. What is asked for is kept."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def descriptors(self) -> list[int]:
        """Return the descriptor of its connection, which a child must let go."""
        return descriptors_of(self._connection)


def reservation_seconds(missing_seconds: float) -> float:
    """Return how long after the take a job may begin: well before its worker counts as missing."""
    return missing_seconds / 4


def _since_1970(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _order_of_claimed(claimed: Claimed, begin_before: float) -> JobOrder:
    return JobOrder(
        id=claimed.id,
        dispatch_no=claimed.dispatch_no,
        task=claimed.task,
        queue=claimed.queue,
        args=claimed.args,
        meta=json.dumps(claimed.meta),
        tags=claimed.tags,
        attempt=claimed.attempt,
        max_attempts=claimed.max_attempts,
        timeout_seconds=claimed.timeout_seconds,
        deadline_at=_since_1970(claimed.deadline_at),
        created_at=claimed.created_at.timestamp(),
        claimed_at=claimed.claimed_at.timestamp(),
        begin_before=begin_before,
        # Counted from the answer: the claim may have waited for its bucket before it judged.
        begin_after=steady_seconds() + claimed.wait_seconds if claimed.wait_seconds else 0.0,
    )
