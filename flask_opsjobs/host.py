"""Holds the state of one host application: its settings, database, tasks and policies."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import Session, scoped_session

from .core.db import (
    NEWEST_SCHEMA,
    OLDEST_SCHEMA,
    SCHEMA,
    SCHEMA_VERSION,
    PageEngine,
    SpareConnections,
    connect_soon,
)
from .core.db import Connection as PostgresConnection
from .core.guards import Answering, AtMost
from .cron.declaration import EntryDeclaration
from .errors import SchemaAhead, SchemaBehind
from .forensics.declaration import RunbookDeclaration
from .jobs.record.declaration import TaskDeclaration
from .policy import AccessPolicy, DisplayPolicy, EscalationPolicy
from .settings import Settings

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

# How many operators' actions may hold a connection at once in one process.
MOST_ACTIONS = 4
# How many searches, exports and simulations of pages one process runs at once.
MOST_HEAVY = 3
# How many checks of runbooks run at once in one process. One that hangs keeps its place.
MOST_CHECKS = 20


class DueLane(NamedTuple):
    """A lane in which a job is due now, and its queue."""

    lane: str
    queue: str


class QueuedAtInsert(NamedTuple):
    """A job that was inserted as `queued` with `dispatch_no`, and whose delivery must be pushed to Redis."""

    id: int
    dispatch_no: int
    queue: str
    task: str
    priority: int
    timeout_seconds: int | None


class SignalSent(NamedTuple):
    """A signal that was stored, and that a wait may take."""

    id: int


class ClosedBatch(NamedTuple):
    """A batch that was closed, and that ends if its members have ended."""

    id: int


# `enqueue`, `signal` and `close` leave these notes in a session; `after_commit` hands them to the dispatcher.
CommitNote = DueLane | QueuedAtInsert | SignalSent | ClosedBatch


class CommitDispatcher(Protocol):
    """Dispatches jobs right after a host's commit, in the process that enqueued them."""

    def push(self, notes: Sequence[CommitNote]) -> None:
        """Push or dispatch the jobs that `enqueue` noted in the session, which has just been committed."""
        ...

    def has_room(self, queue: str) -> bool:
        """Whether a due job of this queue may be inserted as `queued`, to be pushed after the commit.

        When it may, one free slot of the queue's prefetch is counted as taken.
        """
        ...


class DeliveryBroker(Protocol):
    """Carries deliveries to the Redis of each queue. The engine's `Broker` is the only one.

    The engine gets it as a `Broker` from `broker_of(host)`. Everybody else may only ask whether
    Redis answers.
    """

    def require_answer(self, queue: str) -> None:
        """Ping the Redis of a queue. Raises `EngineUnavailable` with its address when it does not answer."""
        ...


class ClaimedJob(Protocol):
    """What telemetry says of a claimed job."""

    @property
    def id(self) -> int: ...
    @property
    def dispatch_no(self) -> int: ...
    @property
    def task(self) -> str: ...
    @property
    def queue(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def max_attempts(self) -> int: ...


# The columns of a job that keep the trace context in which it was enqueued; none without a context.
TraceColumns = dict[str, str | None]
# A trace context in which another job was enqueued: its `traceparent` and `tracestate`.
TraceLink = tuple[str, str | None]


@dataclass(slots=True)
class Sending:
    """Jobs that are being enqueued. Who enqueues notes the id of the only job, or how many there were.

    `because_of` are the trace contexts of the jobs because of which these are enqueued.
    """

    columns: TraceColumns = field(default_factory=dict)
    job_id: int | None = None
    count: int | None = None
    because_of: list[TraceLink] = field(default_factory=list)


# Lends a connection to the database of the jobs.
Connect = Callable[[], AbstractContextManager[PostgresConnection]]


class WatchedAttempt(Protocol):
    """A block around an attempt: in it, the error tracker and the tracer of the host know the job."""

    def __enter__(self) -> WatchedAttempt: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def tell(self, outcome: str, error: BaseException | None, connect: Connect | None) -> None:
        """Tell how the attempt ended and, if it failed, of what. Called in the block, after its outcome was
        sent: it may take 2 s. Raises nothing.
        """
        ...


# The thread that sends what may hang. A child may keep it after a job.
TELEMETRY_THREAD = "opsjobs-telemetry"


class Telemetry(Protocol):
    """Tells the error tracker and the tracer of the host of enqueued jobs and of attempts. Raises nothing."""

    def sending(self, task: str | None, queue: str | None) -> AbstractContextManager[Sending]:
        """A block that enqueues jobs: of one task or several, to one queue or several."""
        ...

    def current(self) -> TraceColumns:
        """The columns of what will be enqueued because of the current span."""
        ...

    def watch_jobs_only(self) -> None:
        """Note that this process runs nothing but jobs, one after the other, each in a context of its own."""
        ...

    def attempt(self, job: ClaimedJob, worker: str) -> WatchedAttempt:
        """A block around an attempt of a job by a worker."""
        ...

    def finish(self) -> None:
        """Send what is left before this process ends, for at most 2 s."""
        ...


def find_sentry() -> Any | None:
    """The host's `sentry_sdk`, 2.0 or later, when it is initialised; else None. Imports nothing."""
    sdk = sys.modules.get("sentry_sdk")
    find_client = getattr(sdk, "get_client", None)
    return sdk if find_client is not None and find_client().is_active() else None


def find_tracer_provider() -> TracerProvider | None:
    """The host's provider of OpenTelemetry; None when it has set none. Imports nothing."""
    trace = sys.modules.get("opentelemetry.trace")
    # To ask for a provider that nobody has set costs more than all else of a job that nobody traces.
    if trace is None or (trace in _without_provider and trace._TRACER_PROVIDER is None):
        return None
    try:
        provider: TracerProvider = trace.get_tracer_provider()
    except Exception:  # another thread is importing it, or OTEL_PYTHON_TRACER_PROVIDER names none
        return None
    is_none = isinstance(provider, (trace.ProxyTracerProvider, trace.NoOpTracerProvider))
    if is_none and hasattr(trace, "_TRACER_PROVIDER"):
        _without_provider.add(trace)
    return None if is_none else provider


# The module of OpenTelemetry, when it was asked and had no provider.
_without_provider: set[Any] = set()


@dataclass(frozen=True)
class ChildHooks:
    """What the host does in each child process of a worker, outside of an app context.

    `started` is called before the first job, `after_each_job` after the context of a job has ended, and
    `leaving` before the process ends.
    """

    started: Callable[[], object] | None = None
    after_each_job: Callable[[], object] | None = None
    leaving: Callable[[], object] | None = None


class BridgeStatus(NamedTuple):
    """Whether the pages of RQ's own view are mounted, and why not, as a sentence.

    `word` is `mounted`, `off`, `missing` (not installed) or `other` (a version that the bridge cannot read).
    """

    word: str
    says: str

    @property
    def is_mounted(self) -> bool:
        """Whether this app has these pages."""
        return self.word == "mounted"


_NO_BRIDGE = BridgeStatus("off", "The bridge to RQ is switched off.")


class HostDatabase(Protocol):
    """The host's Flask-SQLAlchemy. Its `session` is read at each use, since a host's test may replace it."""

    @property
    def session(self) -> scoped_session[Any]:
        """The session of the current app context."""
        ...


@dataclass
class Host:
    """Holds the extension's state for one Flask app. Stored in `app.extensions["opsjobs"]`."""

    settings: Settings
    engine: Engine
    database: HostDatabase
    secrets: tuple[bytes, ...]
    tasks: Mapping[str, TaskDeclaration]
    access: AccessPolicy
    display: DisplayPolicy
    spare: SpareConnections
    broker: DeliveryBroker
    telemetry: Telemetry
    # Makes an app context of the host, for what runs in a thread of its own.
    app_context: Callable[[], AbstractContextManager[Any]]
    # Without it, incidents are told to nobody.
    escalation: EscalationPolicy | None = None
    child_hooks: ChildHooks = field(default_factory=ChildHooks)
    bridge: BridgeStatus = _NO_BRIDGE
    action_limit: AtMost = field(default_factory=lambda: AtMost(MOST_ACTIONS))
    heavy: AtMost = field(default_factory=lambda: AtMost(MOST_HEAVY))
    checks: AtMost = field(default_factory=lambda: AtMost(MOST_CHECKS))
    # Tasks of ours, by name. Workers perform their jobs; hosts neither declare nor enqueue them.
    built_in: Mapping[str, TaskDeclaration] = field(default_factory=dict)
    # As declared in code. The loops copy them into the database.
    cron_entries: Mapping[str, EntryDeclaration] = field(default_factory=dict)
    # By what each is about: a class of incidents, a kind of subject, or one subject.
    runbooks: Mapping[str, RunbookDeclaration] = field(default_factory=dict)
    # None under TESTING, or with OPSJOBS_DISPATCH = False: then only the dispatch loop dispatches.
    dispatcher: CommitDispatcher | None = None
    # Whether Postgres answered the last page.
    postgres: Answering = field(default_factory=Answering)
    _schema: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        self._pages = PageEngine(self.engine, self.settings.page_connections)

    @property
    def performable(self) -> Mapping[str, TaskDeclaration]:
        """All tasks whose jobs a worker performs: those of the host, and the built-in ones."""
        return {**self.tasks, **self.built_in}

    def session(self) -> Session:
        """The session of the current app context, as the host uses it."""
        session: Session = self.database.session()
        return session

    @property
    def pages(self) -> Engine:
        """The engine of our pages. Its pool is separate from the host's, and its connections time out."""
        return self._pages.get()

    def require_schema(
        self, on: Engine | Connection | None = None, *, or_newer: bool = False
    ) -> None:
        """Return when this code runs on the database's schema. Else raise an error that names the fix.

        Raises `SchemaBehind` when the schema is missing or too old, and `SchemaAhead` when it is newer,
        unless `or_newer`: enqueuing must work in the middle of a deploy. The database is asked until it has
        the schema of this code, and then never again, since the schema only grows while we run. The question
        goes to the engine or connection `on`, or to the host's engine: a process that shows no pages opens no
        connection for pages.
        """
        newest = inf if or_newer else NEWEST_SCHEMA
        if not SCHEMA_VERSION <= self._schema <= newest:
            self._schema = self.schema_version(on)
        if self._schema < OLDEST_SCHEMA:
            state = f"is at version {self._schema}" if self._schema else "is missing"
            raise SchemaBehind(
                f"the database schema {SCHEMA!r} {state}, this code needs version {SCHEMA_VERSION}, and "
                f"runs on version {OLDEST_SCHEMA} too: run `flask opsjobs install` and `flask db upgrade`"
            )
        if self._schema > newest:
            raise SchemaAhead(
                f"the database schema {SCHEMA!r} is at version {self._schema}, this code runs on up to "
                f"version {NEWEST_SCHEMA}: run the release of flask_opsjobs that the database was upgraded "
                "with, or a newer one"
            )

    def schema_version(self, on: Engine | Connection | None = None) -> int:
        """The version of the database's schema, read on `on` or the host's engine; 0 without a schema."""
        if isinstance(on, Connection):
            return _read_version(on)
        with self.engine.connect() if on is None else connect_soon(on) as connection:
            return _read_version(connection)


def say_unjoined(app_name: str) -> str:
    """What is said of an app that has not joined OpsJobs."""
    return (
        f"the app {app_name!r} has not joined OpsJobs: run `flask opsjobs install`, which prints the lines "
        "to add to the app"
    )


def _read_version(connection: Connection) -> int:
    if connection.scalar(text(f"SELECT to_regclass('{SCHEMA}.schema_version')")) is None:
        return 0
    found = connection.scalar(text(f"SELECT max(version) FROM {SCHEMA}.schema_version"))
    return int(found or 0)
