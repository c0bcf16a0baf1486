"""Child processes of a test: `flask opsjobs worker` and the like, with their logs."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from .waiting import wait_until
from .warm import ROOT, WarmProcess


class Child:
    """A started command. It leads its own session, and its output goes to a file."""

    def __init__(
        self,
        command: list[str],
        log: Path,
        env: Mapping[str, str],
        *,
        warm: str | None = None,
        folder: Path = ROOT,
    ) -> None:
        """A `warm` one is Python's: a fork of a process that has imported the `app`, or a wheel."""
        self.command = command
        self._log = log
        self._process: subprocess.Popen[bytes] | WarmProcess
        env = {**os.environ, "PYTHONUNBUFFERED": "1", **env}
        with log.open("wb") as output:
            if warm:
                self._process = WarmProcess(command[1:], log, env, imported=warm, folder=folder)
                return
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the signal's number when one ended it."""
        return self._process.poll()

    @property
    def log(self) -> str:
        """All that it has printed so far."""
        return self._log.read_text(errors="replace")

    def wait_for(self, words: str, timeout: float = 30) -> str:
        """Its log once `words` are in it; fails at once, with the log, when it ends without them."""

        def said_or_ended() -> bool:
            return words in self.log or self.exit_code is not None

        wait_until(said_or_ended, timeout, what=f"{words!r} in the log of {self}")
        if words not in self.log:
            raise AssertionError(
                f"{self} ended ({self.exit_code}) before it said {words!r}:\n{self.log}"
            )
        return self.log

    def wait(self, timeout: float = 15) -> int:
        """Its exit code, once it ended."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self} still runs after {timeout:g} s:\n{self.log}") from None

    def children(self) -> list[psutil.Process]:
        """Its processes below it, such as a worker's child and RQ's scheduler."""
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def job_children(self) -> list[psutil.Process]:
        """Of its processes those that perform a job: each leads a process group of its own."""
        return [process for process in self.children() if leads_its_group(process)]

    def signal(self, number: int) -> None:
        """Send a signal to itself alone, not to its children."""
        self._process.send_signal(number)

    def terminate(self, timeout: float = 15) -> int:
        """Ask it to stop, and its exit code once it did."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def kill(self) -> None:
        """SIGKILL itself alone."""
        self._process.kill()
        self._process.wait()

    def kill_all(self) -> None:
        """SIGKILL itself and everything below it, also what is stopped."""
        family = self.children()
        self.kill()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def freeze(self) -> None:
        """SIGSTOP itself alone."""
        self.signal(signal.SIGSTOP)

    def freeze_when(self, condition: Callable[[], bool]) -> None:
        """SIGSTOP itself alone at a moment when this is true: else it goes on, and is frozen again."""

        def freeze_and_ask() -> bool:
            self.freeze()
            wait_until(lambda: psutil.Process(self.pid).status() == psutil.STATUS_STOPPED)
            if not (answer := condition()):
                self.thaw()
            return answer

        wait_until(freeze_and_ask, 30)

    def thaw(self) -> None:
        """Let it go on."""
        self.signal(signal.SIGCONT)

    def __str__(self) -> str:
        return " ".join(
            Path(word).name if word == sys.executable else word for word in self.command
        )


def leads_its_group(process: psutil.Process) -> bool:
    """Whether it leads a process group of its own; one that has ended does not."""
    try:
        return os.getpgid(process.pid) == process.pid
    except ProcessLookupError:
        return False


def is_alive(process: psutil.Process) -> bool:
    """Whether it has not ended, also when nobody has asked for its exit status."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class Children:
    """Starts commands for one test and ends them with it."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self._folder = folder
        self._env = env
        self._started: list[Child] = []
        self._numbers = itertools.count()

    def start(self, *command: str, env: Mapping[str, str] | None = None) -> Child:
        """Start any command."""
        return self._start(command, env, warm=None)

    def python(self, *words: str, env: Mapping[str, str] | None = None) -> Child:
        """Start `python words…` by a fork of a process that has imported the app: at once.

        Use `start` where the start itself is to be proved, or where `env` has what is read at import.
        """
        return self._start((sys.executable, *words), env, warm="app")

    def flask(self, *words: str, **config: Any) -> Child:
        """Start `flask words…` of tests/support/host.py; `config` goes into that app's config."""
        env = {f"TEST_CONFIG_{key}": json.dumps(value) for key, value in config.items()}
        return self.python("-m", "flask", "--app", "tests.support.host", *words, env=env)

    def _start(
        self, command: Sequence[str], env: Mapping[str, str] | None, warm: str | None
    ) -> Child:
        log = self._folder / f"child-{next(self._numbers)}.log"
        child = Child(list(command), log, {**self._env, **(env or {})}, warm=warm)
        self._started.append(child)
        return child

    def end(self) -> None:
        """Kill all that still run, and print what each said, which pytest shows when the test failed."""
        started, self._started = self._started, []
        for child in started:
            child.kill_all()
            print(f"--- {child} ended with {child.exit_code} and said:\n{child.log}")
