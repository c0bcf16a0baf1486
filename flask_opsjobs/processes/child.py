"""Runs one child process of a supervisor in its own session. It dies when its parent dies (on Linux)."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
# Loaded here, because code between fork and exec must not import or allocate anything that takes a lock.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
# A longer line is printed in parts.
_LONGEST_LINE = 64_000


def end_with(parent: int, number: int = signal.SIGKILL) -> Callable[[], None]:
    """A function for a child to run between fork and exec: Linux sends it the signal when its parent dies.

    Linux means the thread that starts the child: start it in the main thread.
    """

    def prepare() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, number)
            # The parent may have died before. Under a subreaper an orphan's parent is not 1, so compare pids.
            if os.getppid() != parent:
                os._exit(1)

    return prepare


class Child:
    """A started process. Use it in the main thread only: Linux kills it when its creating thread ends."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            argv,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # Its own session: Ctrl-C in the terminal reaches only the supervisor, which decides the order.
            start_new_session=True,
            preexec_fn=end_with(os.getpid()),
        )
        assert self._process.stdout is not None
        self.output = self._process.stdout.fileno()
        os.set_blocking(self.output, False)
        self.has_closed_output = False
        self._half = b""

    @property
    def pid(self) -> int:
        """Its process id, which is also the id of its session."""
        return self._process.pid

    def poll(self) -> int | None:
        """None while it runs; then its exit code, or minus the signal that ended it."""
        return self._process.poll()

    def read_lines(self) -> Iterator[str]:
        """The complete lines that it has printed since the last call. Never blocks."""
        while chunk := self._read():
            *lines, self._half = (self._half + chunk).split(b"\n")
            for line in lines:
                yield _clean(line)
            if len(self._half) > _LONGEST_LINE:
                yield _clean(self._half)
                self._half = b""

    def read_rest(self) -> Iterator[str]:
        """The remaining output, including a last line without a line end; then close the output."""
        yield from self.read_lines()
        if self._half:
            yield _clean(self._half)
            self._half = b""
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> bytes:
        try:
            chunk = os.read(self.output, 65_536)
        except BlockingIOError:
            return b""
        self.has_closed_output = not chunk
        return chunk

    def ask_to_stop(self) -> None:
        """Send SIGTERM to this process only; it stops its own children."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def kill_session(self) -> None:
        """SIGKILL it and all processes of its session. Works after its death too."""
        for pid in {self.pid, *_of_session(self.pid)}:
            if pid == self.pid and self._process.returncode is not None:
                continue  # it is reaped, so its pid may belong to another process by now
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def wait(self) -> int:
        """Its exit code. Blocks until it has ended: call it after a kill."""
        return self._process.wait()


def _of_session(session: int) -> Iterator[int]:
    for entry in Path("/proc").glob("[0-9]*/stat") if sys.platform == "linux" else ():
        with suppress(OSError, ValueError, IndexError):
            # The name in parentheses may hold anything; after it come state, parent, group, session.
            fields = entry.read_text(errors="replace").rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                yield int(entry.parent.name)


def _clean(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\r")


def describe_exit(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"
