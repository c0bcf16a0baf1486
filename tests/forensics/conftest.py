"""A story of a test: what its engine did, at times that the test chooses, and the bundles about it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.orm import Session

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.forensics.bundle import Bundle
from flask_opsjobs.forensics.find import find_bundle, may_all
from flask_opsjobs.lifeline import loop_runs, retention
from flask_opsjobs.lifeline.watch import watch
from flask_opsjobs.loops import LOOPS
from flask_opsjobs.loops.loop import Loop, Runner
from flask_opsjobs.workers import transitions as workers
from tests.support.engine import Bench
from tests.support.readings import reading_at

WHY: dict[str, Any] = {"actor": "ops-demo", "reason": "because it is a test"}


class Story:
    """What happens in one test. All loops run, as far as `later` is not told otherwise."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.operator = Operator(bench.host)
        self._runs: dict[str, int] = {}
        self._runners: dict[str, Runner] = {}
        self._beats = 0
        self._later = timedelta()
        self._stopped_at: datetime | None = None
        self._note_passes()

    @property
    def now(self) -> datetime:
        """Postgres' clock, moved by what `later` was told."""
        return (self._stopped_at or read_clock(self.bench.connection)) + self._later

    def stop_clock(self) -> None:
        """Let no time pass from now on but what `later` is told, however long the test takes."""
        self._stopped_at = read_clock(self.bench.connection)

    def later(self, seconds: float, *, without: tuple[str, ...] = ()) -> None:
        """Let time pass, in which the loops run but for those named. No pass does anything."""
        self._note_passes(*without)
        end = self._later + timedelta(seconds=seconds)
        while self._later < end:
            self._later = min(end, self._later + timedelta(seconds=2))
            self._note_passes(*without)

    def run(self, loop: Loop) -> None:
        """Make real passes of a loop until it has nothing more to do at once."""
        runner = self._runners.setdefault(loop.name, Runner(loop, self.bench.host, "here-2"))
        while runner.run_once(self.bench.connection, self.now):
            pass
        assert runner.last_error is None, runner.last_error

    def beat(self) -> None:
        """Send a heartbeat of the worker."""
        self._beats += 1
        report = workers.HeartbeatReport(self._beats)
        workers.record_heartbeat(self.bench.connection, self.bench.worker_id, report, self.now)

    def retain(self, days: float) -> None:
        """Remove what is too old so many days from now."""
        settings, now = self.bench.host.settings, self.now + timedelta(days=days)
        while sum(retention.retain(self.bench.connection, settings, now).values()):
            pass

    def watch_for(self, seconds: float) -> None:
        """Let time pass, in which the loop `watch` looks for workers every 10 s. Nobody sends heartbeats."""
        host, connection = self.bench.host, self.bench.connection
        for elapsed in [0, *[10] * int(seconds // 10)]:
            self.later(elapsed)
            with connection.transaction():
                watch(connection, self.now, elapsed, host.settings, host.secrets)

    def _note_passes(self, *but: str) -> None:
        for loop in LOOPS:
            if loop.name not in but:
                every = loop.every_seconds(self.bench.host.settings)
                note = loop_runs.Note(loop.name, "here-1", every, 0.01, "nothing to do", None)
                self._runs[loop.name] = loop_runs.note_pass(
                    self.bench.connection, self._runs.get(loop.name), note, self.now
                )

    def retain_until(self, is_gone: Callable[[], bool], days: float = 400) -> None:
        """Remove rows one by one, as the loop `retain` does so many days later, until it is so."""
        connection, settings = self.bench.connection, self.bench.host.settings
        for _ in range(500):
            if is_gone():
                return
            with connection.transaction():
                retention.retain(connection, settings, self.now + timedelta(days=days), limit=1)
        raise AssertionError("retention does not remove it")

    def ask(self, subject: str, may: Any = may_all, *, after: timedelta = timedelta()) -> Bundle:
        """The bundle of the subject now, or after so much time in which nothing happened."""
        with Session(self.bench.host.engine) as session:
            read = reading_at(session, self.now + after)
            return find_bundle(self.bench.host, read, subject, may)


def texts(bundle: Bundle) -> list[str]:
    """What its timeline says, oldest first."""
    return [event.text for event in reversed(bundle.timeline.events)]


def actions(bundle: Bundle) -> list[str | None]:
    """The actions that it offers, in order."""
    return [path.action for path in bundle.paths if path.kind == "action"]


@pytest.fixture
def story(bench: Bench) -> Story:
    return Story(bench)
