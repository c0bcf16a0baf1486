"""Defines what a check of the doctor is, what it is given, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from flask import Flask

from ..core.db import connect_soon, patience
from ..core.reading import Reading, read_snapshot
from ..core.round_trips import StartedRead, start_reading
from ..host import Host

T = TypeVar("T")

# So long a check may take.
MOST_SECONDS = 2.0
# So long the one snapshot may take that answers all checks which ask only Postgres.
MOST_SECONDS_TOGETHER = 5.0
# A statement of a check is ended a moment before, so that its connection is free again.
_STATEMENT_SECONDS = 1.8

# What a check may answer.
OK, WARNING, ERROR, SKIPPED = STATES = ("ok", "warning", "error", "skipped")


@dataclass(frozen=True)
class CheckAnswer:
    """What a check answered: its state, a sentence, the numbers behind it, and a command to run.

    A text may quote names of the application; it is shown through the display policy. `is_constant`: no text
    quotes anything, so it is shown also while that policy raises.
    """

    state: str
    sentence: str
    evidence: str = ""
    run: str = ""
    is_constant: bool = False


def ok(sentence: str, evidence: str = "") -> CheckAnswer:
    """All is as it should be."""
    return CheckAnswer(OK, sentence, evidence)


def warning(sentence: str, evidence: str = "", run: str = "") -> CheckAnswer:
    """It works, but a person should look."""
    return CheckAnswer(WARNING, sentence, evidence, run)


def error(sentence: str, evidence: str = "", run: str = "") -> CheckAnswer:
    """Something does not work, or the check could not find out."""
    return CheckAnswer(ERROR, sentence, evidence, run)


def skipped(reason: str) -> CheckAnswer:
    """The check does not apply, because of what the reason says."""
    return CheckAnswer(SKIPPED, reason)


@dataclass(frozen=True)
class CheckContext:
    """What a check is given: the app, or why it does not start.

    Every check but `config.app` runs in a context of an app that has joined OpsJobs.
    """

    app: Flask | None
    why_not: str = ""
    # What one check has read and others need too.
    memory: dict[str, StartedRead[Any]] = field(default_factory=dict)
    # In a second look, what the first one has read.
    before: Mapping[str, StartedRead[Any]] = field(default_factory=dict)
    # The snapshot that answers this check together with others.
    shared: Reading | None = None

    @property
    def host(self) -> Host:
        """The extension's state."""
        assert self.app is not None
        found: Host = self.app.extensions["opsjobs"]
        return found

    @property
    def queues(self) -> set[str]:
        """The names of the queues of the app's tasks, and `default`."""
        return {"default", *(task.declared.queue for task in self.host.tasks.values())}

    def once(self, what: str, read: Callable[[], T]) -> T:
        """What `read` returns; it is called for the first check only that asks for it by this name."""
        if what not in self.memory:
            self.memory[what] = (
                start_reading(self.shared, lambda _: read())
                if self.shared
                else StartedRead(None, read)
            )
        found: T = self.memory[what].value
        return found

    def later(self) -> CheckContext:
        """What a second look is given."""
        return replace(self, memory={}, before=self.memory)

    @contextmanager
    def reading(self) -> Iterator[Reading]:
        """The shared snapshot, else one of its own, as `reading_apart` makes it."""
        if self.shared is not None:
            yield self.shared
            return
        with self.reading_apart() as read:
            yield read

    @contextmanager
    def reading_apart(self, seconds: float = MOST_SECONDS) -> Iterator[Reading]:
        """A new snapshot on a connection of the pages, which waits at most `seconds` for an answer.

        Its `search_path` has no other schema, so Postgres writes each name with its schema. Raises what
        SQLAlchemy raises when Postgres does not answer in time.
        """
        connection, settings = connect_soon(self.host.pages), {"search_path": "pg_catalog"}
        with (
            read_snapshot(connection, _STATEMENT_SECONDS, settings) as read,
            patience(read.session.connection(), seconds),
        ):
            yield read


@dataclass(frozen=True)
class DoctorCheck:
    """One check. Its id is stable for good; `asks` is what must hold; `levels` are what else it answers.

    A check is skipped when one that it needs answers with an error. `gives` is what those that need this one
    then lack, as "Postgres". `looks_twice`: what moves at this moment may look wrong to it, so an error
    counts when a second look finds it too, a moment later.
    """

    id: str
    levels: tuple[str, ...]
    asks: str
    look: Callable[[CheckContext], CheckAnswer]
    needs: tuple[str, ...] = ("config.app",)
    gives: str = ""
    looks_twice: bool = False
