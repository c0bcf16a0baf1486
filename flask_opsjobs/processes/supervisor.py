"""Supervises child processes: starts and restarts them, prints their output, and ends them all."""

from __future__ import annotations

import selectors
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import click

from .child import Child, describe_exit

_FIRST_WAIT, _LONGEST_WAIT = 0.5, 8.0
_MOST_DEATHS, _WITHIN_SECONDS = 5, 30.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class _Post:
    """A named place for a child process and, after its death, for its successor."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] | None
    restart: bool
    child: Child | None = None
    deaths: deque[float] = field(default_factory=lambda: deque(maxlen=_MOST_DEATHS))
    start_at: float = 0.0

    def wait_after_death(self, now: float) -> float | None:
        """Seconds until the next start; None when it has died too often to be started again."""
        self.deaths.append(now)
        recent = [death for death in self.deaths if now - death <= _WITHIN_SECONDS]
        if len(recent) >= _MOST_DEATHS:
            return None
        return float(min(_FIRST_WAIT * 2 ** (len(recent) - 1), _LONGEST_WAIT))


class Supervisor:
    """Runs child processes: `add` each child, then `run`. Use it in the main thread only.

    Ctrl-C, SIGTERM or SIGHUP ask all children to stop. Children that still run after `grace` seconds, or at a
    second Ctrl-C, are killed with all processes of their sessions. When this process itself is killed, Linux
    kills its children. `write` gets the children's output, line by line; `tell` the supervisor's messages.
    """

    def __init__(
        self,
        *,
        grace: float = 10.0,
        write: Callable[[str], Any] = click.echo,
        tell: Callable[[str], Any] = click.echo,
    ) -> None:
        self._grace = grace
        self._write = write
        self._tell = tell
        self._posts: list[_Post] = []
        self._selector = selectors.DefaultSelector()
        self._stops = 0
        self._code = 0

    def add(
        self,
        name: str,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        *,
        restart: bool = True,
    ) -> Supervisor:
        """Add a child with this name, with `env` added to our environment; returns the supervisor.

        A child that ends is started again with a growing delay. When it ends five times within 30 seconds,
        all children stop. Without `restart` all children stop when it ends, and `run` returns its exit code.
        """
        self._posts.append(_Post(name, list(argv), env, restart))
        return self

    def pid(self, name: str) -> int | None:
        """The process id of the child with this name; None while it does not run."""
        child = next(post.child for post in self._posts if post.name == name)
        return child.pid if child is not None else None

    def stop(self, code: int = 0) -> None:
        """Make `run` end with this code. Safe in signal handlers and threads; a second call kills at once."""
        if not self._stops:
            self._code = code
        self._stops += 1

    def check(self) -> None:
        """Raise `SystemExit` with the code of `stop` if it was called. For steps before `run`."""
        if self._stops:
            raise SystemExit(self._code)

    def run(self) -> int:
        """Start all children, and supervise them until `stop`. Returns its code; 1 after too many deaths."""
        with self._signals(), self._selector:
            try:
                while not self._stops:
                    self._start_due()
                    self._show(0.1)
                    self._bury()
            finally:
                self._end_all()
        return self._code

    # --- running ------------------------------------------------------------------------------

    def _start_due(self) -> None:
        for post in self._posts:
            if post.child is None and post.start_at <= time.monotonic():
                try:
                    post.child = Child(post.argv, post.env)
                except OSError as error:
                    self._say(post, f"cannot be started: {error}")
                    self._after_death(post, 1)
                    continue
                self._selector.register(post.child.output, selectors.EVENT_READ, post)

    def _show(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            post: _Post = key.data
            if post.child is not None:
                self._print(post, post.child.read_lines())
                if post.child.has_closed_output:
                    # A closed pipe is always readable. `_bury` notices the death by polling.
                    self._selector.unregister(key.fileobj)

    def _bury(self) -> None:
        for post in self._posts:
            if post.child is not None and (code := post.child.poll()) is not None:
                self._clear(post)
                self._say(post, f"ended with {describe_exit(code)}")
                self._after_death(post, code)

    def _after_death(self, post: _Post, code: int) -> None:
        if self._stops:
            return
        if not post.restart:
            self.stop(code if code >= 0 else 128 - code)
            return
        wait = post.wait_after_death(time.monotonic())
        if wait is None:
            self._say(post, f"died {_MOST_DEATHS} times within {_WITHIN_SECONDS:g} s: giving up")
            self.stop(1)
            return
        self._say(post, f"starts again in {wait:g} s")
        post.start_at = time.monotonic() + wait

    def _clear(self, post: _Post) -> None:
        """Forget a dead child: kill the rest of its session, and print its remaining output."""
        child = post.child
        assert child is not None
        child.kill_session()
        if child.output in self._selector.get_map():
            self._selector.unregister(child.output)
        self._print(post, child.read_rest())
        post.child = None

    # --- ending -------------------------------------------------------------------------------

    def _end_all(self) -> None:
        # From here on one more signal kills at once, even when an error ended `run`.
        stops = max(self._stops, 1)
        if running := [post.name for post in self._posts if post.child is not None]:
            self._print_line(self._tell, f"stopping {', '.join(running)}")
        for post in self._posts:
            if post.child is not None:
                post.child.ask_to_stop()
        end = time.monotonic() + self._grace
        while self._is_any_alive() and time.monotonic() < end and self._stops <= stops:
            self._show(0.05)
        for post in self._posts:
            if post.child is None:
                continue
            if post.child.poll() is None:
                self._say(post, "does not stop and is killed")
                post.child.kill_session()
                post.child.wait()
            self._clear(post)

    def _is_any_alive(self) -> bool:
        return any(post.child is not None and post.child.poll() is None for post in self._posts)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        for number in _SIGNALS:
            signal.signal(number, lambda *_: self.stop())
        try:
            yield
        finally:
            for number, action in before.items():
                signal.signal(number, action)

    # --- printing -----------------------------------------------------------------------------

    def _print(self, post: _Post, lines: Iterator[str]) -> None:
        width = max(len(each.name) for each in self._posts)
        for line in lines:
            self._print_line(self._write, f"{post.name:<{width}} | {line}")

    def _say(self, post: _Post, words: str) -> None:
        self._print_line(self._tell, f"{post.name} {words}")

    @staticmethod
    def _print_line(write: Callable[[str], Any], line: str) -> None:
        # A closed terminal must not prevent the end of the children.
        with suppress(OSError):
            write(line)
