"""Forks a child process (RQ: work horse) that performs one job and sends the outcome to its parent."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import random
import signal
import socket
import struct
import sys
import threading
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ...host import Host
from ...jobs.perform.current import Claimed
from ...jobs.perform.outcomes import Outcome
from ...jobs.perform.perform import Confirm, Report, perform

if TYPE_CHECKING:
    from flask import Flask

    from ...jobs.perform.log_tail import Ring

# The parent holds this lock while it forks. Its other threads hold it while they log or connect, because
# that takes locks inside C libraries and `io`. A child has only the thread that forked: if another thread
# held such a lock at the fork, nobody would ever release it in the child.
fork_lock = threading.Lock()

_PR_SET_PDEATHSIG = 1


def fork(
    app: Flask,
    host: Host,
    claimed: Claimed,
    log_tail: Ring | None,
    confirm: Confirm,
) -> tuple[int, socket.socket]:
    """Fork a child for a claimed job.

    Return its pid, which also names its process group, and the parent's end of the channel.
    """
    ours, its = socket.socketpair()
    parent_pid = os.getpid()
    with fork_lock:
        pid = os.fork()
    if pid == 0:
        try:
            ours.close()
            _become_child(parent_pid, app)
            _perform(app, host, claimed, Sender(its), log_tail, confirm)
            _flush_streams()
        finally:
            # SystemExit would run the parent's atexit handlers and finally blocks in the child.
            os._exit(0)
    its.close()
    set_group(pid)
    return pid, ours


def set_group(pid: int) -> None:
    """Give a child a process group of its own, so that killing the group never hits the parent."""
    # Parent and child both call this, because either may run first.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.setpgid(pid, pid)


def _become_child(parent_pid: int, app: Flask) -> None:
    os.setpgid(0, 0)
    die_with(parent_pid)
    signal.set_wakeup_fd(-1)
    # Ctrl-C in a terminal reaches all processes. The child ignores it and finishes its job.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGUSR1, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    gc.freeze()
    random.seed()
    forget_connections(app)


def die_with(parent_pid: int) -> None:
    """Ask Linux to kill this process when its parent dies; exit at once when the parent is dead already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # Compares with the pid from before the fork, because under a subreaper an orphan's parent is not 1.
        if os.getppid() != parent_pid:
            os._exit(1)


def forget_connections(app: Flask) -> None:
    """Drop the database connections that a forked process inherited, so that it makes its own."""
    # A teardown function of the host may raise here; the job must run all the same.
    with contextlib.suppress(Exception), app.app_context():
        # `close=False`: the parent uses these sockets; a Terminate message would end its connections.
        for engine in app.extensions["sqlalchemy"].engines.values():
            engine.dispose(close=False)


def _perform(
    app: Flask,
    host: Host,
    claimed: Claimed,
    sender: Sender,
    log_tail: Ring | None,
    confirm: Confirm,
) -> None:
    report = Report(log_tail, host.settings.max_output_bytes, sender.progress, host.spare.one)
    with app.app_context():
        outcome = perform(host.performable, claimed, report, confirm)
        # Sent inside the context: if a host's teardown raises or hangs, the outcome is already sent.
        sender.outcome(outcome)


def _flush_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


def kill_group(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to a child and everything it started.

    Raises `ValueError` for a pid that would mean the caller's own group or all processes.
    """
    if pid <= 1 or pid == os.getpgrp():
        raise ValueError(f"{pid} is not the pid of a child")
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def describe_death(status: int) -> tuple[str, int | None]:
    """Describe an exit status of `wait4`: a sentence, and the number of the signal or None."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"killed by {signal.Signals(number).name}", number
    return f"exited with {os.WEXITSTATUS(status)} before its function returned", None


_HEAD = struct.Struct(">I")
_READ_BYTES = 1 << 18


class Sender:
    """The child's end. It blocks until the parent has read, so an outcome may have any size."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def progress(self, done: int | None, total: int | None, note: str | None) -> None:
        """Send the progress of the job."""
        self._send({"progress": [done, total, note]})

    def outcome(self, outcome: Outcome) -> None:
        """Send the outcome. It is the last frame."""
        self._send({"outcome": asdict(outcome)})

    def _send(self, frame: dict[str, Any]) -> None:
        body = json.dumps(frame).encode()
        self._sock.sendall(_HEAD.pack(len(body)) + body)


class Receiver:
    """The parent's end. It never blocks, and never raises on what a dying child wrote."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._buffer = bytearray()
        self.progress: tuple[int | None, int | None, str | None] | None = None
        self.outcome: Outcome | None = None
        self.is_open = True

    def fileno(self) -> int:
        """Return the file descriptor, for `poll`."""
        return self._sock.fileno()

    def read(self) -> None:
        """Read what has arrived; then `progress` and `outcome` hold the newest of each."""
        while self.is_open:
            try:
                piece = self._sock.recv(_READ_BYTES)
            except BlockingIOError:
                break
            except OSError:
                piece = b""
            if not piece:
                self.is_open = False
            self._buffer += piece
        self._take_frames()

    def _take_frames(self) -> None:
        at = 0
        while len(self._buffer) - at >= _HEAD.size:
            (size,) = _HEAD.unpack_from(self._buffer, at)
            if len(self._buffer) - at - _HEAD.size < size:
                break
            self._take(json.loads(self._buffer[at + _HEAD.size : at + _HEAD.size + size]))
            at += _HEAD.size + size
        del self._buffer[:at]

    def _take(self, frame: dict[str, Any]) -> None:
        if "progress" in frame:
            done, total, note = frame["progress"]
            self.progress = (done, total, note)
        if "outcome" in frame:
            found = frame["outcome"]
            if found["progress"] is not None:
                found["progress"] = tuple(found["progress"])
            self.outcome = Outcome(**found)
