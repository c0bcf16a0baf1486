"""What flask_opsjobs knows of one host application: its settings, database, workers and policies, as plain values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from .answering import Answering
from .at_most import AtMost
from .db import (
    OLDEST_SCHEMA,
    SCHEMA,
    SCHEMA_VERSION,
    SpareConnections,
    connect_soon,
    make_patient_engine,
)
from .errors import SchemaBehind
from .policy import AccessPolicy, DisplayPolicy
from .settings import Settings

if TYPE_CHECKING:
    from .cron.declaration import Entry
    from .jobs.worker import Worker

# How many operators' actions of one process may hold a connection at once.
MOST_ACTIONS = 4


@dataclass
class Host:
    """One Flask app's state of the extension. Found in `app.extensions["opsjobs"]`."""

    settings: Settings
    engine: Engine
    session: Callable[[], Session]
    secrets: tuple[bytes, ...]
    workers: dict[str, Worker]
    access: AccessPolicy
    display: DisplayPolicy
    spare: SpareConnections
    doorway: AtMost = field(default_factory=lambda: AtMost(MOST_ACTIONS))
    broker: Any = None
    # As code declares them; what the loops made of them stands in the database.
    cron_entries: dict[str, Entry] = field(default_factory=dict)
    # Both None under TESTING and without OPSJOBS_DISPATCH: jobs are left to the dispatch loop.
    hand_out: Callable[[list[Any]], None] | None = None
    may_be_born_queued: Callable[[str], bool] | None = None
    # Whether Postgres answered pages.
    postgres: Answering = field(default_factory=Answering)
    _schema_is_fine: bool = field(default=False, repr=False)

    @cached_property
    def pages(self) -> Engine:
        """The engine of our pages: a pool apart from the host's, whose connections never wait for ever."""
        return make_patient_engine(self.engine)

    def require_schema(self) -> None:
        """Return when the database's schema is one this code runs on; else raise `SchemaBehind` with the fix.

        Asked of the database until the answer is yes, then remembered: a schema only grows while we run.
        """
        if self._schema_is_fine:
            return
        found = self.schema_version()
        if found < OLDEST_SCHEMA:
            state = f"is at version {found}" if found else "is missing"
            raise SchemaBehind(
                f"the database schema {SCHEMA!r} {state}, this code needs {SCHEMA_VERSION}: "
                "run `flask opsjobs install` and `flask db upgrade`"
            )
        self._schema_is_fine = True

    def schema_version(self) -> int:
        """The version of the schema in the database; 0 when there is none."""
        with connect_soon(self.pages) as connection:
            if connection.scalar(text(f"SELECT to_regclass('{SCHEMA}.schema_version')")) is None:
                return 0
            found = connection.scalar(text(f"SELECT max(version) FROM {SCHEMA}.schema_version"))
            return int(found or 0)
