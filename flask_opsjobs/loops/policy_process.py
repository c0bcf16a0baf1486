"""Calls the escalation policy in a child process that is given 30 s, whatever the policy does there.

The process that asks has threads, and a fork of it might hold a lock that nobody releases. So it forks once,
before its threads run, a process without threads: that one forks a child for each call.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

from flask import Flask, current_app, has_app_context

from ..core.display import Display
from ..core.visible_text import on_one_line
from ..engine.worker.forking import ChildPools, die_with
from ..escalations.facts import clean_facts
from ..host import Host
from ..jobs.record.json_storage import clean_text
from ..policy import find_place

_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None
# A message between the processes is one packet of at most so many bytes.
_MOST_BYTES = 150_000
# Of what the policy prints, so much goes to the log of the loops.
_MOST_OUTPUT = 8_000
_LONGEST_REFERENCE = 200
_LONGEST_ERROR = 500
# Texts of the policy are cut to this before they are cleaned.
_LONGEST_RAW = 20_000
_LOOK_SECONDS = 0.05
# How long the process may take to start, and to answer after the time of a call is over.
_START_SECONDS = 10.0
_GRACE_SECONDS = 10.0


@dataclass(frozen=True)
class Answer:
    """How a call ended: `kind` is `returned`, `raised`, `timed_out`, `died` or `stopped`.

    `reference` and `error` have passed the display policy. `note` says what was wrong with a reference,
    `place` is the line of the policy that raised.
    """

    kind: str
    reference: str | None = None
    error: str | None = None
    note: str | None = None
    place: str | None = None


class PolicyProcess:
    """A process that calls the escalation policy of a host, one call at a time.

    `start` it first while the process has no other thread. It ends with its parent.
    """

    def __init__(self, host: Host, limit_seconds: float) -> None:
        self._host = host
        self._limit_seconds = limit_seconds
        self._app: Flask | None = None
        if has_app_context():
            self._app = current_app._get_current_object()  # type: ignore[attr-defined]
        self._socket: socket.socket | None = None
        self._pid = 0
        self._until = 0.0

    def start(self) -> None:
        """Start the process, unless it runs. Raises `OSError` when it does not get ready."""
        if self._socket is not None:
            return
        parent_pid = os.getpid()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pools = None if self._app is None else ChildPools(self._app)
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        self._pid = os.fork()
        if self._pid == 0:
            _run_apart(lambda: self._serve(ours, theirs, parent_pid, pools))
        theirs.close()
        self._socket = ours
        if self._receive(_START_SECONDS) != b"ready":
            self.close()
            raise OSError("the process that calls the escalation policy did not start")

    def call(self, facts: dict[str, Any]) -> None:
        """Begin a call. When the process has ended meanwhile, another one is started.

        Raises `OSError` when that one does not get ready or has ended too.
        """
        message = json.dumps(facts).encode()
        self.start()
        try:
            self._send(message)
        except ConnectionError:
            # It ended before it heard of this call.
            self.close()
            self.start()
            self._send(message)
        self._until = time.monotonic() + self._limit_seconds + _GRACE_SECONDS

    def poll(self, seconds: float = 0.0) -> Answer | None:
        """The answer of the call that was begun; None when it does not come within `seconds`."""
        message = self._receive(seconds)
        if message is None:
            if time.monotonic() < self._until:
                return None
            self.close()
            return Answer("timed_out", error="its process did not answer")
        if message == b"":
            self.close()
            return Answer("died", error="the process that calls the policy ended")
        return Answer(**json.loads(message))

    def stop_call(self) -> None:
        """Break the call off; its answer says so."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.send(b"stop")

    def close(self) -> None:
        """End the process, and what it runs."""
        if self._socket is None:
            return
        # It kills what it runs when its socket ends. It is not waited for while it does, but for a moment.
        self._socket.close()
        self._socket = None
        end = time.monotonic() + 1.0
        while time.monotonic() < end and not self._has_ended():
            select.select([], [], [], 0.005)
        with contextlib.suppress(OSError):
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)

    def _send(self, message: bytes) -> None:
        assert self._socket is not None
        self._socket.send(message)

    def _has_ended(self) -> bool:
        try:
            return os.waitpid(self._pid, os.WNOHANG)[0] != 0
        except ChildProcessError:
            return True

    def _receive(self, seconds: float) -> bytes | None:
        """A message; None when none comes in time, empty when the process is gone."""
        if self._socket is None:
            return b""
        if not select.select([self._socket], [], [], seconds)[0]:
            return None
        try:
            return self._socket.recv(_MOST_BYTES)
        except OSError:
            return b""

    # --- in the process

    def _serve(
        self,
        ours: socket.socket,
        theirs: socket.socket,
        parent_pid: int,
        pools: ChildPools | None,
    ) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # a stop of the loops lets a call end
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        ours.close()
        die_with(parent_pid)
        if _libc is not None:
            # What a child leaves behind becomes a child of this process, which kills it.
            _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
        if pools is not None:
            pools.take()
        theirs.send(b"ready")
        while message := theirs.recv(_MOST_BYTES):
            if message != b"stop":  # the call had just ended
                answer = _Call(theirs, self._limit_seconds).make(lambda: self._ask(message))
                theirs.send(json.dumps(asdict(answer)).encode())

    def _ask(self, message: bytes) -> Answer:
        """Call the policy. Runs in the child of one call."""
        surround: Callable[[], AbstractContextManager[object]]
        surround = nullcontext if self._app is None else self._app.app_context
        policy = self._host.escalation
        assert policy is not None
        display = Display(self._host.display, may_see=True)
        try:
            with surround():
                found = policy.escalate(clean_facts(json.loads(message), display))
                return _make_answer(found, display)
        except BaseException as error:
            said = f"{type(error).__name__}: {_text_of(error)}".rstrip(": ")
            place = find_place(error)
            return Answer("raised", error=_shown(said, display, _LONGEST_ERROR), place=place)


def _make_answer(found: Any, display: Display) -> Answer:
    if found is not None and not isinstance(found, str):
        kind = type(found).__name__
        return Answer("returned", note=f"escalate returned an object of type {kind}, not a text")
    if found is None or not found.strip():
        return Answer("returned")
    note = None
    if len(found) > _LONGEST_REFERENCE:
        note = f"escalate returned {len(found):,} characters; {_LONGEST_REFERENCE} are kept"
    return Answer(
        "returned", reference=_shown(found.strip(), display, _LONGEST_REFERENCE), note=note
    )


def _shown(text: str, display: Display, most: int) -> str:
    """The text as the display policy shows it, on one line, as Postgres can store it."""
    shown = display.start(clean_text(text[:_LONGEST_RAW]), most)
    return on_one_line(clean_text(shown))[: 2 * most]


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return ""


class _Call:
    """One call in a child: reads what it prints and its answer, and kills all that it leaves."""

    def __init__(self, order: socket.socket, limit_seconds: float) -> None:
        self._order = order
        self._until = time.monotonic() + limit_seconds
        self._limit_seconds = limit_seconds
        self._answer = b""
        self._printed = 0

    def make(self, ask: Callable[[], Answer]) -> Answer:
        """Make the call, and return how it ended."""
        answer_end, write_answer = os.pipe()
        output_end, write_output = os.pipe()
        pid = os.fork()
        if pid == 0:
            _run_apart(lambda: _run_child(ask, self._order, write_answer, write_output))
        os.close(write_answer)
        os.close(write_output)
        for end in (answer_end, output_end):
            os.set_blocking(end, False)
        try:
            return self._follow(pid, answer_end, output_end)
        finally:
            _kill_all(pid)
            self._read_output(output_end)
            os.close(answer_end)
            os.close(output_end)

    def _follow(self, pid: int, answer_end: int, output_end: int) -> Answer:
        with selectors.DefaultSelector() as selector:
            selector.register(answer_end, selectors.EVENT_READ, self._read_answer)
            selector.register(output_end, selectors.EVENT_READ, self._read_output)
            selector.register(self._order, selectors.EVENT_READ)
            while True:
                left = self._until - time.monotonic()
                if left <= 0:
                    limit = f"it took longer than {self._limit_seconds:g} s"
                    return Answer("timed_out", error=limit)
                for key, _ in selector.select(min(left, _LOOK_SECONDS)):
                    if key.data is None:
                        return self._break_off(pid)
                    if not key.data(key.fd):
                        selector.unregister(key.fd)
                if (answer := self._whole_answer()) is not None:
                    return answer
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    self._read_answer(answer_end)
                    return self._whole_answer() or _describe_death(status)

    def _break_off(self, pid: int) -> Answer:
        if not self._order.recv(_MOST_BYTES):  # the parent is gone
            _kill_all(pid)
            os._exit(0)
        return Answer("stopped", error="somebody canceled its job")

    def _read_answer(self, end: int) -> bool:
        piece = _read(end)
        self._answer += piece or b""
        return piece != b"" and len(self._answer) <= _MOST_BYTES

    def _read_output(self, end: int) -> bool:
        """Pass what the policy printed on, up to a limit; return whether more may come."""
        while piece := _read(end):
            room = _MOST_OUTPUT - self._printed
            self._printed += len(piece)
            if room > 0:
                more = b"\n[the policy printed more]\n" if len(piece) > room else b""
                with contextlib.suppress(OSError):
                    os.write(2, piece[:room] + more)
            if self._printed > _MOST_OUTPUT and time.monotonic() > self._until:
                return False
            if room <= 0:
                break
        return piece != b""

    def _whole_answer(self) -> Answer | None:
        """The first line that the child wrote, as an answer; None while it is not whole."""
        line, newline, _ = self._answer.partition(b"\n")
        if not newline:
            return None
        try:
            return Answer(**json.loads(line))
        except (ValueError, TypeError):
            return Answer("died", error="its process gave no answer")


def _read(end: int) -> bytes | None:
    """What can be read now; None when nothing is there yet, empty at the end."""
    try:
        return os.read(end, 65_536)
    except BlockingIOError:
        return None


def _run_child(
    ask: Callable[[], Answer], order: socket.socket, write_answer: int, write_output: int
) -> None:
    """What the child of one call does."""
    parent_pid, own_pid = os.getppid(), os.getpid()
    os.setsid()
    die_with(parent_pid)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    order.close()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for given, taken in ((nothing, 0), (write_output, 1), (write_output, 2)):
        os.dup2(given, taken)
    os.close(nothing)
    os.close(write_output)
    answer = ask()
    if os.getpid() != own_pid:
        return  # the policy forked, and this is the copy
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os.write(write_answer, json.dumps(asdict(answer)).encode() + b"\n")


def _run_apart(run: Callable[[], None]) -> NoReturn:
    """Run in a forked process, and end it there, whatever happens: nothing of the parent runs after it."""
    code = 1
    try:
        run()
        code = 0
    finally:
        os._exit(code)


def _describe_death(status: int) -> Answer:
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return Answer("died", error=f"its process was killed by signal {-code}")
    return Answer("died", error=f"its process ended with exit code {code} and gave no answer")


def _kill_all(pid: int) -> None:
    """Kill the child's group, and all that it left behind, also what has left the group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            for left in _children():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(left, signal.SIGKILL)
            os.waitpid(-1, 0)


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as children:
            return [int(each) for each in children.read().split()]
    except OSError:  # not Linux, or without this file: the group was killed
        return []
