"""What flask_opsjobs knows of one host application: its settings, database, tasks and policies, as plain values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from .core.answering import Answering
from .core.at_most import AtMost
from .core.db import (
    OLDEST_SCHEMA,
    SCHEMA,
    SCHEMA_VERSION,
    PageEngine,
    SpareConnections,
    connect_soon,
)
from .errors import SchemaAhead, SchemaBehind
from .policy import AccessPolicy, DisplayPolicy
from .settings import Settings

if TYPE_CHECKING:
    from .cron.declaration import EntryDeclaration
    from .jobs.record.task import Task

# How many operators' actions of one process may hold a connection at once.
MOST_ACTIONS = 4
# How many searches, exports and simulations one process runs at once for its pages.
MOST_HEAVY = 3


class CommitDispatcher(Protocol):
    """Dispatches jobs right after a host's commit, in the process that enqueued them."""

    def push(self, notes: Sequence[Any]) -> None:
        """Push or dispatch what `enqueue` noted in the session that has just been committed."""
        ...

    def has_room(self, queue: str) -> bool:
        """Whether a due job of this queue may be inserted as `queued`, to be pushed after the commit; takes a place."""
        ...


@dataclass
class Host:
    """One Flask app's state of the extension. Found in `app.extensions["opsjobs"]`."""

    settings: Settings
    engine: Engine
    session: Callable[[], Session]
    secrets: tuple[bytes, ...]
    tasks: dict[str, Task]
    access: AccessPolicy
    display: DisplayPolicy
    spare: SpareConnections
    action_limit: AtMost = field(default_factory=lambda: AtMost(MOST_ACTIONS))
    heavy: AtMost = field(default_factory=lambda: AtMost(MOST_HEAVY))
    broker: Any = None
    # As code declares them; what the loops made of them stands in the database.
    cron_entries: dict[str, EntryDeclaration] = field(default_factory=dict)
    # None under TESTING and without OPSJOBS_DISPATCH: jobs are left to the dispatch loop.
    dispatcher: CommitDispatcher | None = None
    # Whether Postgres answered pages.
    postgres: Answering = field(default_factory=Answering)
    _schema: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        self._pages = PageEngine(self.engine, self.settings.page_connections)

    @property
    def pages(self) -> Engine:
        """The engine of our pages: a pool apart from the host's, whose connections never wait for ever."""
        return self._pages.get()

    def require_schema(self, on: Engine | None = None, *, or_newer: bool = False) -> None:
        """Return when the database's schema is one this code runs on; else raise what says so, with the fix.

        `SchemaBehind` when it is older or missing. `SchemaAhead` when it is newer, but not with `or_newer`: what a host
        enqueues in the middle of a deploy is recorded. Asked of the database until the answer is yes, then remembered:
        a schema only grows while we run. It is asked `on` the engine that is given, else on the host's own: a process
        that shows no page opens no connection for pages.
        """
        newest = inf if or_newer else SCHEMA_VERSION
        if not OLDEST_SCHEMA <= self._schema <= newest:
            self._schema = self.schema_version(on)
        if self._schema < OLDEST_SCHEMA:
            state = f"is at version {self._schema}" if self._schema else "is missing"
            raise SchemaBehind(
                f"the database schema {SCHEMA!r} {state}, this code needs {SCHEMA_VERSION}: "
                "run `flask opsjobs install` and `flask db upgrade`"
            )
        if self._schema > newest:
            raise SchemaAhead(
                f"the database schema {SCHEMA!r} is at version {self._schema}, this code knows up to {SCHEMA_VERSION}: "
                "run the release of flask_opsjobs that the database was upgraded with, or a newer one"
            )

    def schema_version(self, on: Engine | None = None) -> int:
        """The version of the schema in the database; 0 when there is none."""
        with self.engine.connect() if on is None else connect_soon(on) as connection:
            if connection.scalar(text(f"SELECT to_regclass('{SCHEMA}.schema_version')")) is None:
                return 0
            found = connection.scalar(text(f"SELECT max(version) FROM {SCHEMA}.schema_version"))
            return int(found or 0)
