"""Declares a forensics bundle and its parts, and what a kind of subject tells. Plain values; reads nothing.

A kind is added in three steps:

1. `subjects/<kind>.py` holds a function `tell(inquiry) -> Told | None` and the entry
   `KIND = Kind("queue", "queues.view", read_key, tell)`. `tell` reads the rows of the subject with functions
   of the domains' `queries.py`, each bounded and with an index that a test names, and returns
   - `title`, `state` and `diagnosis`: what it is, and in one sentence how it is;
   - `since` and `until`: the span that it tells of;
   - `events`: its own history, in any order. Decisions, notes, incidents, deploys, operations and blind
     windows are added to each kind by `find.py`: do not read them again;
   - `pieces`: what should exist over the span, each with whether it was found. This is all that a kind says
     about its completeness;
   - `watches`: for each loop that alone could have seen a change of the subject, the time in which it should
     have run. A worker that records a change in its transaction needs no watch;
   - `evidence`, `related`, `left_out` and `paths`: bridge and follow-ups. `paths.py` finds the legal
     actions, but for those on a part of the subject, such as a wait of a workflow.
   What is read after the row of the subject is started, with `inquiry.start`, and not waited for: see `Late`.
   It returns None when nothing of it is stored: then audit, operations and incidents are asked, and
   `was_there` may tell that it was removed.
2. `registry.py` gets one line.
3. `tests/forensics/test_<kind>.py` makes it with the real writers: whole, with a stopped loop, after
   retention, and with nothing.

No text of a bundle has passed the display policy. `shown.show_bundle` passes each one through it; pages,
commands and exports print only what it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeAlias, TypeVar

from sqlalchemy.orm import Session

from ..core.history import Event
from ..core.reading import Reading
from ..core.round_trips import StartedRead, start_reading
from ..host import Host

COMPLETENESS = ("complete", "partial evidence", "history unavailable", "unknown")

# By the kind of a path, who owns what follows.
OWNERS = {
    "action": "OpsJobs-native",
    "bridge": "RQ bridge",
    "follow_up": "host-owned follow-up",
}
# What is known of a follow-up of the host: nothing was called, the host's callback returned, or it failed.
STATUSES = ("unconfigured", "invoked", "failed")

T = TypeVar("T")
# A value, or the read of it that was started.
Late: TypeAlias = T | StartedRead[T]

Cell = str | int | float | datetime | None


@dataclass(frozen=True)
class Lack:
    """Something that is not known. `is_removed`: it was stored, and retention or a person removed it."""

    says: str
    since: datetime | None = None
    until: datetime | None = None
    is_removed: bool = False


@dataclass(frozen=True)
class LeftOut:
    """What a bounded list leaves out: `number` rows (None when more than were counted) before a time."""

    what: str
    before: datetime | None = None
    number: int | None = None


@dataclass(frozen=True)
class History:
    """Events, newest first.

    `Event.is_` is `blind`, `deploy` or `operation` for those that are about the time, not the subject.
    """

    events: Sequence[Event] = ()
    left_out: Sequence[LeftOut] = ()


@dataclass(frozen=True)
class Column:
    """A column of evidence. `kind`: text, number, moment, seconds, bytes, or payload.

    `payload` is shown only to who may see payload. Of a long text the beginning is shown, or with
    `shows_end` the end, as of a log.
    """

    name: str
    kind: str = "text"
    shows_end: bool = False


@dataclass(frozen=True)
class TableRow:
    """One row of a table, a cell for each column. `subject` is what it is about, such as `attempt/7-2`."""

    cells: Sequence[Cell]
    subject: str | None = None


@dataclass(frozen=True)
class EvidenceTable:
    """A small table of what was recorded, and by whom."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[TableRow]
    left_out: LeftOut | None = None


@dataclass(frozen=True)
class Related:
    """Another subject: how it is related, its name for people, and more about it."""

    how: str
    name: str
    subject: str | None = None
    says: str = ""


@dataclass(frozen=True)
class Path:
    """Something that may be done next. Who owns it follows from `kind` alone: see `OWNERS`.

    `action` and `target` are those of an audited action that is legal now. `status` is that of a follow-up,
    `url` where the host keeps it. `refusal` says why it cannot be done now; None when it can.
    """

    kind: str
    title: str
    says: str = ""
    action: str | None = None
    target: str | None = None
    status: str | None = None
    url: str | None = None
    refusal: str | None = None

    @property
    def owner(self) -> str:
        """Who owns it, in the words of the plan."""
        return OWNERS[self.kind]


@dataclass(frozen=True)
class Prerequisite:
    """What must hold before a runbook is followed. `state`: met, missing or unknown."""

    state: str
    says: str


@dataclass(frozen=True)
class Runbook:
    """The host's runbook for this subject."""

    name: str
    url: str | None
    prerequisites: Sequence[Prerequisite] = ()
    cautions: Sequence[str] = ()


@dataclass(frozen=True)
class Bundle:
    """All that is known of one subject at `read_at`, and what is not.

    `diagnosis` is one sentence; `quote` is a text of the subject that belongs to it, such as an error, and
    payload. `lacking` says what `completeness` lacks to be `complete`.
    """

    subject: str
    title: str
    state: str | None
    diagnosis: str
    quote: str | None
    completeness: str
    lacking: Sequence[Lack]
    since: datetime | None
    until: datetime | None
    timeline: History
    evidence: Sequence[EvidenceTable]
    related: Sequence[Related]
    paths: Sequence[Path]
    runbook: Runbook | None
    read_at: datetime

    @property
    def kind(self) -> str:
        """The kind of its subject: `job`, `queue` and so on."""
        return self.subject.partition("/")[0]


# --- what a kind tells


@dataclass(frozen=True)
class Inquiry:
    """What is asked: the subject and its `key` after the first slash, in what is read of Postgres.

    `may(permission)` says whether the reader has a page permission, such as `audit.view`, on this subject:
    leave out what the reader may not see.
    """

    host: Host = field(repr=False)
    read: Reading = field(repr=False)
    subject: str
    key: str
    may: Callable[[str], bool] = field(repr=False)

    @property
    def session(self) -> Session:
        """What everything is read through."""
        return self.read.session

    @property
    def now(self) -> datetime:
        """Postgres' time. It is waited for, so rows that need it not are asked for before."""
        return self.read.now

    def start(self, read: Callable[..., Iterable[T]], *args: object) -> StartedRead[Sequence[T]]:
        """Start to collect what `read(*args)` yields, so that its statements go together with others."""
        return start_reading(self.session, lambda _: list(read(*args)))

    # Both move once an hour, so that equal facts give equal bundles in between.

    @property
    def day_ago(self) -> datetime:
        """The full hour before the time a day ago."""
        return _full_hour(self.now - timedelta(days=1))

    def kept_since(self, days: int) -> datetime:
        """The full hour from which on everything is stored that is kept for so many days."""
        return _full_hour(self.now - timedelta(days=days) + timedelta(hours=1))


def _full_hour(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)


@dataclass(frozen=True)
class Expected:
    """Something that should exist over the span of a subject.

    `lacks` is the sentence about it when it does not: "the log of attempt 3: it died with its worker".
    """

    lacks: str
    is_found: bool
    is_removed: bool = False
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class WatchedSpan:
    """The time in which a loop alone could have seen a change. `lacks` is what nobody saw without it.

    `needs` are the classes of outages that blind the loop too: `redis_away` for one that asks Redis.
    `postgres_away` blinds every loop.
    """

    loop: str
    lacks: str
    since: datetime
    until: datetime
    needs: Sequence[str] = ()


@dataclass(frozen=True)
class Told:
    """What a kind tells of one subject. See above.

    `targets` are further subjects whose actions help it, and whose decisions in its span belong to it: those
    of `job/7` to an attempt of that job. `repairs` are the paths that come before all others.
    `offered` are, by target, the names of the actions that its page offers: they need no plan, which may read
    all parts of a large subject. `is_gone`: its own rows are removed, and others told this.
    """

    title: str
    state: str | None
    diagnosis: Late[str]
    since: datetime
    until: datetime
    quote: str | None = None
    events: Late[Sequence[Event]] = ()
    pieces: Late[Sequence[Expected]] = ()
    watches: Late[Sequence[WatchedSpan]] = ()
    evidence: Late[Sequence[EvidenceTable]] = ()
    related: Late[Sequence[Related]] = ()
    paths: Late[Sequence[Path]] = ()
    left_out: Late[Sequence[LeftOut]] = ()
    targets: Sequence[str] = ()
    repairs: Late[Sequence[Path]] = ()
    offered: Mapping[str, Sequence[str]] = field(default_factory=dict)
    is_gone: bool = False


def _never(_inquiry: Inquiry) -> bool:
    return False


def _nothing(_inquiry: Inquiry) -> tuple[str, Related] | None:
    return None


@dataclass(frozen=True)
class Kind:
    """One kind of subjects. `permission` is that of its page; its reader needs `forensics.view` too.

    `read_key` makes the text after `<name>/` canonical, and returns None for what names no subject. `tell`
    returns None when nothing of the subject is stored. `was_there`: whether something else, such as a greater
    id, tells that it was. `find_other` says of a key that names no subject of this kind what it names
    instead, in a sentence.
    """

    name: str
    permission: str
    read_key: Callable[[str], str | None]
    tell: Callable[[Inquiry], Told | None]
    was_there: Callable[[Inquiry], bool] = _never
    find_other: Callable[[Inquiry], tuple[str, Related] | None] = _nothing
