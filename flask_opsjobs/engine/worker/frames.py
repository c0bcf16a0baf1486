"""Defines what a worker's parent orders, and what its children say, as frames over a socket pair."""

from __future__ import annotations

import json
import marshal
import pickle
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, NamedTuple

from typing_extensions import override

from ...jobs.perform.current import Claimed
from ...jobs.perform.outcomes import RETURNED, Outcome
from .left_children import LeaveReason
from .plain_runs import PlainRunRecord

Key = tuple[int, int]


class Order(IntEnum):
    """What a parent sends."""

    JOB = 1  # a `JobOrder`, marshalled: parent and child are the same program
    RQ_WORK = 2  # an `RQWork`, pickled
    PING = 3  # to say that it is there


@dataclass(frozen=True)
class PlainRun:
    """To run a plain RQ job of a queue."""

    rq_id: str
    queue: str

    @override
    def __str__(self) -> str:
        return f"RQ job {self.rq_id}"


@dataclass(frozen=True)
class PlainDeath:
    """To do what RQ does after the process of a plain job died at a place. `was_stopped`: by RQ's command.

    `may_call_host`: whether to call the host's code too; not after a child died of it.
    """

    job: PlainRun
    place: int
    words: str
    was_stopped: bool
    may_call_host: bool = True
    # What its worker knows of the run: how it ended, and its last lines. See `Outcome`.
    pid: int = 0
    outcome: str = "died"
    cause_of_death: str | None = None
    death: str = "unknown"
    death_facts: dict[str, Any] = field(default_factory=dict)
    log_tail: str | None = None

    @override
    def __str__(self) -> str:
        return f"what RQ does after its job {self.job.rq_id} died"


@dataclass(frozen=True)
class RQMaintenance:
    """To do RQ's maintenance."""

    @override
    def __str__(self) -> str:
        return "RQ's maintenance"


@dataclass(frozen=True)
class RQSchedule:
    """To put plain jobs that are due into their queues once, unless another RQ scheduler does."""

    @override
    def __str__(self) -> str:
        return "RQ's scheduling"


# RQ's own code that may run code of the host. It never runs in the parent; errands run in a child of their
# own, since they may hang.
Errand = PlainDeath | RQMaintenance | RQSchedule
RQWork = PlainRun | Errand
# The key of such work has a number beside this instead of the id of a job.
RQ_WORK_ID = 2**64 - 1


class ChildWord(IntEnum):
    """What a child sends."""

    READY = 1  # it waits for its first job
    RETURNED = 2  # a plain outcome: id, dispatch number, begin, end
    OUTCOME = 3  # the same, and the outcome as JSON
    LATE = 4  # id, dispatch number: the job was not begun, since its reservation had ended
    PROGRESS = 5  # id, dispatch number, and JSON: done, total, note
    DONE = 6  # the work of RQ is done; after a plain job or its death, the `PlainRunRecord` as JSON
    LEAVING = 7  # JSON: the values of each `LeaveReason`; the child ends
    HERE = 8  # the answer to a ping


# A plain outcome is most of what is sent: it is no JSON.
_OUTCOME = struct.Struct("<QQdd")
_KEY = struct.Struct("<QQ")
_HEAD = struct.Struct("<IB")
_READ_BYTES = 1 << 18


class JobOrder(NamedTuple):
    """A job for a child. Arguments and metadata are JSON text, which only the child parses.

    `deadline_at`, `created_at` and `claimed_at` are seconds since 1970 by Postgres' clock; the other times
    are by `steady_seconds`. The child begins between `begin_after` and `begin_before`, or not at all.
    """

    id: int
    dispatch_no: int
    task: str
    queue: str
    args: str
    meta: str
    tags: list[str]
    attempt: int
    max_attempts: int
    timeout_seconds: int | None
    deadline_at: float | None
    created_at: float
    claimed_at: float
    begin_before: float
    begin_after: float = 0.0

    @property
    def key(self) -> Key:
        """Return the delivery: (job id, dispatch number)."""
        return self.id, self.dispatch_no

    def claimed(self) -> Claimed:
        """Return the job as the function's surroundings know it."""
        deadline = self.deadline_at
        return Claimed(
            id=self.id,
            dispatch_no=self.dispatch_no,
            task=self.task,
            queue=self.queue,
            args=self.args,
            meta=json.loads(self.meta) if self.meta != "{}" else {},
            tags=self.tags,
            attempt=self.attempt,
            max_attempts=self.max_attempts,
            timeout_seconds=self.timeout_seconds,
            deadline_at=None if deadline is None else datetime.fromtimestamp(deadline, UTC),
            created_at=datetime.fromtimestamp(self.created_at, UTC),
            claimed_at=datetime.fromtimestamp(self.claimed_at, UTC),
        )


def make_frame(kind: int, body: bytes = b"") -> bytes:
    """Return a frame as it is sent."""
    return _HEAD.pack(len(body), kind) + body


def make_job_order(order: JobOrder) -> bytes:
    """Return the text of the order that gives a job to a child."""
    return marshal.dumps(tuple(order))


def make_rq_order(work: RQWork) -> bytes:
    """Return the text of the order that gives work of RQ to a child."""
    return pickle.dumps(work)


class FrameReader:
    """Cuts what arrives at one end of a socket into frames."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray()
        self.is_open = True

    def read_arrived(self) -> Iterator[tuple[int, bytes]]:
        """Yield the whole frames that have arrived, without waiting.

        A half frame of a child that died is never yielded.
        """
        while self.is_open and self._receive():
            pass
        while (frame := self._cut()) is not None:
            yield frame

    def _receive(self) -> bool:
        """Read once; return whether more may be waiting."""
        try:
            piece = self._sock.recv(_READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            piece = b""
        if not piece:
            self.is_open = False
            return False
        self._buffer += piece
        return len(piece) == _READ_BYTES

    def _cut(self) -> tuple[int, bytes] | None:
        """Take the first frame out of the buffer, if it is whole."""
        buffer = self._buffer
        if len(buffer) < _HEAD.size:
            return None
        size, kind = _HEAD.unpack_from(buffer)
        end = _HEAD.size + size
        if len(buffer) < end:
            return None
        body = bytes(buffer[_HEAD.size : end])
        del buffer[:end]
        return kind, body


def read_job_order(body: bytes) -> JobOrder:
    """Return the job of an order."""
    return JobOrder(*marshal.loads(body))


def read_rq_order(body: bytes) -> RQWork:
    """Return the work of an order."""
    work: RQWork = pickle.loads(body)
    return work


@dataclass(slots=True)
class Ended:
    """An outcome as a child sent it. `began` and `ended` are by `steady_seconds`."""

    key: Key
    began: float
    ended: float
    outcome: Outcome


def read_outcome(kind: int, body: bytes) -> Ended:
    """Return the outcome of a frame `RETURNED` or `OUTCOME`."""
    job_id, number, began, ended = _OUTCOME.unpack_from(body)
    if kind == ChildWord.RETURNED:
        return Ended((job_id, number), began, ended, RETURNED)
    found = json.loads(body[_OUTCOME.size :])
    if found["progress"] is not None:
        found["progress"] = tuple(found["progress"])
    return Ended((job_id, number), began, ended, Outcome(**found))


def read_key(body: bytes) -> Key:
    """Return the job that a frame is about."""
    job_id, number = _KEY.unpack_from(body)
    return job_id, number


def read_json(body: bytes, *, after_key: bool = False) -> Any:
    """Return the JSON of a frame."""
    return json.loads(body[_KEY.size if after_key else 0 :])


def read_leaving(body: bytes) -> list[LeaveReason]:
    """Return why a child leaves."""
    return [LeaveReason(*values) for values in read_json(body)]


class ChildChannel:
    """What a child says. It waits until the parent has read, so an outcome may have any size."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def say(self, word: ChildWord, body: bytes = b"") -> None:
        """Send a frame."""
        self._sock.sendall(make_frame(word, body))

    def progress(self, key: Key, *progress: object) -> None:
        """Send the progress of the running job."""
        self.say(ChildWord.PROGRESS, _KEY.pack(*key) + json.dumps(progress).encode())

    def late(self, key: Key) -> None:
        """Say that the job was not begun."""
        self.say(ChildWord.LATE, _KEY.pack(*key))

    def outcome(self, key: Key, began: float, ended: float, outcome: Outcome) -> None:
        """Send the outcome of the job."""
        head = _OUTCOME.pack(*key, began, ended)
        if outcome is RETURNED:
            self.say(ChildWord.RETURNED, head)
        else:
            self.say(ChildWord.OUTCOME, head + json.dumps(asdict(outcome)).encode())

    def done(self, run: PlainRunRecord | None) -> None:
        """Say that the work of RQ is done, and how a plain job ended that was part of it."""
        self.say(ChildWord.DONE, b"" if run is None else run.to_json())

    def leaving(self, reasons: Iterable[LeaveReason]) -> None:
        """Say why the child ends now."""
        self.say(ChildWord.LEAVING, json.dumps([each.values for each in reasons]).encode())
