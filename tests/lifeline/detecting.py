"""Says how each class of incidents is made, undone, and what looks like it; the tests read the list."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.lifeline.detectors import DETECTORS
from flask_opsjobs.lifeline.loop_runs import GRACE_SECONDS
from flask_opsjobs.loops import LOOPS, detect
from flask_opsjobs.loops.loop import Runner
from tests.support.engine import Bench

LOOPS_BY_NAME = {loop.name: loop for loop in LOOPS}


@dataclass
class Scene:
    """A database, a Redis and the loops, with a clock that the test moves. `get` gives a fixture by name."""

    bench: Bench
    class_: str
    get: Callable[[str], Any]
    now: datetime = field(init=False)
    runners: dict[tuple[str, str], Runner] = field(default_factory=dict)
    # The loops that make a pass before each look.
    awake: set[str] = field(default_factory=set)
    # What a case keeps between its steps.
    memory: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.now = read_clock(self.bench.connection)

    def wait(self, seconds: float) -> None:
        """Let time pass, in which nothing of ours is awake."""
        self.now += timedelta(seconds=seconds)

    def run(self, loop: str, process: str = "one") -> None:
        """Make a pass of a loop now. Of all detectors only that of the class looks."""
        runner = self.runners.get((loop, process))
        if runner is None:
            runner = Runner(LOOPS_BY_NAME[loop], self.bench.host, process)
            self.runners[loop, process] = runner
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(detect, "DETECTORS", {self.class_: DETECTORS[self.class_]})
            runner.run_once(self.bench.connection, self.now)

    def look(self, times: int = 1, after: float = 5) -> None:
        """Let the loop that finds the class look, as often as said, each time after some seconds."""
        for _ in range(times):
            self.wait(after)
            for loop in sorted(self.awake):
                self.run(loop)
            found_by = DETECTORS[self.class_].found_by
            for name in dict.fromkeys((found_by, "detect")):
                if name in LOOPS_BY_NAME:
                    self.run(name)

    @property
    def longest_awake(self) -> float:
        """Whoever looks for the class counts as asleep after more seconds than this."""
        loop = LOOPS_BY_NAME.get(DETECTORS[self.class_].found_by, LOOPS_BY_NAME["detect"])
        return 3 * loop.every_seconds(self.bench.host.settings) + GRACE_SECONDS

    def change_settings(self, **settings: Any) -> None:
        """Let the loops have other settings from now on."""
        self.bench.host.settings = replace(self.bench.host.settings, **settings)

    def incidents(self) -> list[dict[str, Any]]:
        """The incidents of the class, the oldest first."""
        return self.bench.rows(
            "SELECT * FROM opsjobs.incidents WHERE class = %s ORDER BY id", self.class_
        )


Step = Callable[[Scene], None]
NearMiss = Callable[[Scene], AbstractContextManager[object] | None]


@dataclass(frozen=True)
class Case:
    """How a class is made and undone with real rows, processes and servers, and what looks like it.

    `make` brings about what the class finds, also a second time. `undo` ends it. Each of `near_misses` brings
    about what must stay silent; it may return a context in which it holds.
    """

    make: Step
    undo: Step
    near_misses: Mapping[str, NearMiss]
    starts_processes: bool = False


def near_miss_of(case: Case, name: str, scene: Scene) -> AbstractContextManager[object]:
    """Bring about what looks like the class and is not."""
    return case.near_misses[name](scene) or nullcontext()
