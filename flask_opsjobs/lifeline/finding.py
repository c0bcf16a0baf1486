"""Defines what a detector is, what it reads, and what it finds. Data; reads and writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from psycopg.rows import dict_row

from ..core import sql
from ..core.db import Connection
from ..settings import Settings

# A look that finds so many of one class may have left some out.
MOST_FINDINGS = 200


@dataclass(frozen=True)
class Observation:
    """One fact that somebody saw: a stable `kind`, the `source` that reports it, and its values as JSON.

    The values must not change while the fact is the same, so that equal ones are one row with a count: give
    the time of a last heartbeat, not its age.
    """

    kind: str
    source: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """Something that is wrong now. `subject` names it, as `queue/mail`; one class finds a subject once.

    `since` is when it began, where the data tell that; without it, it began when it was first found.
    `severity` is that of the class when it is None. `facts` are JSON: the words on pages are made of them,
    and the targets of repairs are read from `jobs`, `queue`, `worker`, `cron`, `limiter`, `workflow`,
    `batch`, `failure`, `leases` and `deliveries`. `jobs_of` gives the jobs of one repair:
    `{"job.retry": [7]}`. `is_least` says that it affects more than were counted. Give at most
    one observation of each kind.
    """

    subject: str
    since: datetime | None = None
    affected: int = 0
    severity: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    evidence: tuple[Observation, ...] = ()


@dataclass(frozen=True)
class DetectorPass:
    """What one look found. It clears nothing unless `is_complete`.

    A look is incomplete when Redis did not answer, when a limit was reached, or after the loop was asleep.
    """

    findings: Sequence[Finding] = ()
    is_complete: bool = True


@dataclass(frozen=True)
class Facts:
    """What a detector reads: Postgres, through `connection` in the transaction of its pass, and settings.

    `memory` is kept from pass to pass of this process, for what is expensive to read and changes slowly.
    """

    connection: Connection
    now: datetime
    settings: Settings
    memory: dict[str, Any] = field(default_factory=dict)

    def look(
        self, statement: str, make: Callable[[Mapping[str, Any]], Finding], **values: Any
    ) -> DetectorPass:
        """Run a statement that finds at most `MOST_FINDINGS` rows, and make a finding of each."""
        parameters = {"now": self.now, "limit": MOST_FINDINGS, **values}
        with self.connection.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(sql.load(statement), parameters).fetchall()
        return DetectorPass([make(row) for row in rows], len(rows) < MOST_FINDINGS)


@dataclass(frozen=True)
class Words:
    """How an incident is shown: a title, why it is one, and the next step for a person."""

    title: str
    why: str
    next_step: str = ""


@dataclass(frozen=True)
class Detector:
    """One class of incidents. The tables of the docs and of the tests are made of these.

    `detect` looks for it in Postgres, in the loop `detect`. It is None for a class that another loop reports,
    because that loop has asked Redis; `found_by` names the loop. `found_when` and `near_miss` are sentences
    for people: when it is found, and what looks like it and is not.

    A finding becomes an incident when it has been so for `open_after`. An incident is cleared when two
    complete passes and `quiet_after` have passed without it. `repairs` are names of actions. While an
    incident of this class is active, new ones of the classes in `hides` follow from it. `affects` names what
    `affected` of a finding counts, as one and as several.
    """

    class_: str
    title: str
    severity: str
    found_when: str
    near_miss: str
    say: Callable[[Mapping[str, Any]], Words]
    detect: Callable[[Facts], DetectorPass] | None = None
    found_by: str = "detect"
    open_after: timedelta = timedelta()
    quiet_after: timedelta = timedelta(seconds=30)
    repairs: tuple[str, ...] = ()
    hides: tuple[str, ...] = ()
    affects: tuple[str, str] = ("job", "jobs")


def fingerprint_of(class_: str, subject: str) -> str:
    """What an incident is known by: its class and its subject."""
    return f"{class_}:{subject}"
