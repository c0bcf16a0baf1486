"""Forks a child that performs one job and tells its parent how the job ended (RQ: work horse)."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import random
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...jobs.perform.claimed import Claimed
from ...jobs.perform.perform import Confirm, Report, perform
from .channel import Sender

if TYPE_CHECKING:
    from flask import Flask

    from ...jobs.perform.log_tail import Ring
    from ...jobs.record.task import Task

# Held around the fork, and by any other thread of the parent around whatever takes a lock of C or of `io`: logging,
# connecting. A lock that is held at the fork by a thread that the child does not have is never released there.
fork_lock = threading.Lock()

_PR_SET_PDEATHSIG = 1


def fork(
    app: Flask,
    tasks: Mapping[str, Task],
    claimed: Claimed,
    log_tail: Ring | None,
    confirm: Confirm,
) -> tuple[int, socket.socket]:
    """Fork a child for a claimed job: (its pid, which is also its process group; the parent's end of the channel)."""
    ours, its = socket.socketpair()
    parent_pid = os.getpid()
    with fork_lock:
        pid = os.fork()
    if pid == 0:
        try:
            ours.close()
            _become_child(parent_pid, app)
            _perform(app, tasks, claimed, Sender(its), log_tail, confirm)
            _flush_streams()
        finally:
            # Not SystemExit: the parent's atexit handlers and finally blocks are not the child's to run.
            os._exit(0)
    its.close()
    set_group(pid)
    return pid, ours


def set_group(pid: int) -> None:
    """Give a child a process group of its own, so that a kill of its group never hits its parent's."""
    # Parent and child both do it, whoever is first.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.setpgid(pid, pid)


def _become_child(parent_pid: int, app: Flask) -> None:
    os.setpgid(0, 0)
    die_with(parent_pid)
    signal.set_wakeup_fd(-1)
    # Ctrl-C in a terminal reaches the whole session: the parent decides, the child finishes its job.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGUSR1, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    gc.freeze()
    random.seed()
    forget_connections(app)


def die_with(parent_pid: int) -> None:
    """Ask Linux to kill this process when its parent dies, and leave at once when that has happened already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # Compared with the pid noted before the fork: under a subreaper an orphan's parent is not 1.
        if os.getppid() != parent_pid:
            os._exit(1)


def forget_connections(app: Flask) -> None:
    """Let a forked process connect for itself, whatever its parent's engines hold."""
    # A teardown function of the host may raise here; the job must not pay for it.
    with contextlib.suppress(Exception), app.app_context():
        # `close=False`: the sockets are the parent's; a Terminate sent over them would end its connections.
        for engine in app.extensions["sqlalchemy"].engines.values():
            engine.dispose(close=False)


def _perform(
    app: Flask,
    tasks: Mapping[str, Task],
    claimed: Claimed,
    sender: Sender,
    log_tail: Ring | None,
    confirm: Confirm,
) -> None:
    with app.app_context():
        outcome = perform(tasks, claimed, Report(log_tail, sender.progress), confirm)
        # Before the context is left: a host's teardown that raises or hangs must not cost the outcome.
        sender.outcome(outcome)


def _flush_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


def kill_group(pid: int, number: int = signal.SIGKILL) -> None:
    """Signal a child and everything it started. Refuses pids that would name the caller's own group or everybody."""
    if pid <= 1 or pid == os.getpgrp():
        raise ValueError(f"{pid} is not the pid of a child")
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def describe_death(status: int) -> tuple[str, int | None]:
    """Tell what an exit status of `wait4` means: (in words, the signal's number or None)."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"killed by {signal.Signals(number).name}", number
    return f"exited with {os.WEXITSTATUS(status)} before its function returned", None
