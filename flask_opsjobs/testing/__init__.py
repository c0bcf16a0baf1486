"""Lets a host's tests read the enqueued jobs, and perform them without workers or Redis (pytest plugin).

Each fixture calls the function of its name in this module, for the app whose context is pushed, else for the
fixture `app`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

try:
    import pytest
except ModuleNotFoundError:  # a script may call the functions of this module without pytest
    pytest = None  # type: ignore[assignment]

# pytest loads this module in every run where flask_opsjobs is installed, so heavy modules are imported at
# first use.
if TYPE_CHECKING:
    from flask.testing import FlaskClient
    from sqlalchemy import Connection as Shared
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

    from ..core.db import Connection
    from ..host import Host
    from ..jobs.record.enqueue import AnySession
    from ..jobs.record.task import Task
    from .leaks import Crawl

# Exceptions of a task that end the test too, and not only the job.
_THROUGH: tuple[type[BaseException], ...] = (KeyboardInterrupt,)
if pytest is not None:
    _THROUGH += (pytest.fail.Exception, pytest.skip.Exception, pytest.exit.Exception)

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class StoredJob:
    """A job as it is stored. `output` is what the task returned, if outputs of the task are recorded.

    `exception` is the last exception of its function in the `perform_due` that made this value; else None.
    """

    id: int
    task: str
    queue: str
    state: str
    args: dict[str, Any]
    priority: int
    tags: list[str]
    meta: dict[str, Any]
    attempt: int
    due_at: datetime
    ended_by: str | None
    error: str | None
    output: Any = None
    exception: BaseException | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Performed:
    """What `perform_due` did: how many calls it made, and the jobs that it changed, as stored now."""

    calls: int
    jobs: tuple[StoredJob, ...]

    @property
    def counts(self) -> dict[str, int]:
        """The number of these jobs by state: `{"finished": 2, "retryable": 1}`."""
        return dict(Counter(job.state for job in self.jobs))

    def assert_finished(self) -> Performed:
        """Return this value when every job finished.

        Raises `AssertionError`, caused by the exception of the first job that did not finish, or when no job
        was due.
        """
        if not self.jobs:
            raise AssertionError("no job was due")
        for job in self.jobs:
            if job.state != "finished":
                raise AssertionError(
                    f"job {job.id} of task {job.task} is {job.state}: {job.error}"
                ) from job.exception
        return self


def perform_due(
    *,
    at: datetime | None = None,
    limit: int | None = None,
    session: AnySession | None = None,
) -> Performed:
    """Perform every due job of the current app in this process, until none is due.

    With `at`, jobs that are scheduled or retried until that time are performed too, in order, and waits and
    workflows whose time is over by then end. Only the jobs' own times move: functions that read a clock see
    the real time. `limit` is the largest number of calls.

    Each job has its own app context, as in a worker. Nothing is forked, so the test's patches apply. The
    statements run on a separate connection, which sees only committed rows. When `session` (by default the
    host's) is bound to a connection, because the test wraps everything in a transaction, they run on that
    connection. Raises `OpsJobsError` when the app dispatches jobs to RQ, when the session has uncommitted
    writes, and after 1000 rounds without `limit`.

    >>> job = send_invoice.enqueue(9001)
    >>> db.session.commit()
    >>> testing.perform_due().assert_finished().counts
    {'finished': 1}
    """
    from flask import current_app

    from ..engine.inline_worker import InlineWorker, list_stored
    from ..errors import OpsJobsError

    if at is not None and at.utcoffset() is None:
        raise ValueError(f"at must be a datetime with a time zone, got {at!r}")
    host = _host()
    if host.dispatcher is not None:
        raise OpsJobsError(
            "jobs of this app are dispatched to RQ at commit: set TESTING = True, or "
            "OPSJOBS_DISPATCH = False, in its config before OpsJobs joins it"
        )
    surround = current_app._get_current_object().app_context  # type: ignore[attr-defined]
    with _committed(host, session) as connection:
        worker = InlineWorker(host, connection, surround, limit, _THROUGH)
        worker.run(at)
        rows = list_stored(connection, ids=list(worker.ids))
    moved = tuple(StoredJob(**row, exception=worker.errors.get(row["id"])) for row in rows)
    return Performed(worker.calls, moved)


def jobs(task: Task | str | None = None, *, session: AnySession | None = None) -> list[StoredJob]:
    """The jobs in the database, of one task or of all, oldest first.

    Includes uncommitted jobs of `session`.

    >>> job = send_invoice.options(priority=1).enqueue(9001)
    >>> [(job.args, job.priority) for job in testing.jobs(send_invoice)]
    [({'invoice_id': 9001}, 1)]
    """
    from ..engine.inline_worker import list_stored

    name = task if task is None or isinstance(task, str) else task.name
    with _seen(_host(), session) as connection:
        return [StoredJob(**row) for row in list_stored(connection, task=name)]


def enqueued(task: Task | str, *, session: AnySession | None = None) -> list[dict[str, Any]]:
    """The stored arguments of a task's jobs, oldest first: as JSON values, without redacted arguments.

    >>> job = send_invoice.enqueue(9001)
    >>> testing.enqueued(send_invoice)
    [{'invoice_id': 9001}]
    """
    return [job.args for job in jobs(task, session=session)]


def create_schema() -> None:
    """Create our tables in the app's database, for tests that use `db.create_all()` instead of migrations.

    >>> db.create_all()
    >>> testing.create_schema()
    """
    from ..install import steps

    with _alembic() as op:
        steps.upgrade(op, steps.latest())


def drop_schema() -> None:
    """Drop our tables with all rows. Raises `OpsJobsError` unless the app has `TESTING = True`.

    >>> app.testing
    True
    >>> testing.drop_schema()
    """
    from flask import current_app

    from ..errors import OpsJobsError
    from ..install import steps

    if not current_app.testing:
        raise OpsJobsError("drop_schema removes every job: it is for apps with TESTING = True")
    with _alembic() as op:
        steps.downgrade(op, 0)


def assert_no_leaks(
    client: FlaskClient,
    canaries: Sequence[str],
    *,
    paths: Sequence[str] = (),
    texts: Mapping[str, str] | None = None,
    most: int = 60,
) -> Crawl:
    """Search every page, fragment and file of ours for texts that must not be there; return what was asked.

    Follows the links of our pages with this `client`, which is signed in as one person; what is logged
    meanwhile is searched too. Of each of our URLs at most `most` addresses are asked for. `paths` are
    addresses to ask for besides, such as that of a preview, and `texts` more texts to search, by name, such
    as what a command printed. Raises `AssertionError` when a page answers with an error of the server, and
    when a canary is found: it names each canary, the address and the place, and near misses, which hold the
    first or the last half of a canary.

    >>> job = send_invoice.enqueue(9001)
    >>> db.session.commit()
    >>> found = testing.assert_no_leaks(app.test_client(), ["hunter2"], most=2)
    >>> f"/ops/jobs/jobs/{job.id}" in found.addresses
    True
    >>> testing.assert_no_leaks(app.test_client(), ["send_invoice"], most=2)
    Traceback (most recent call last):
    AssertionError: ...'send_invoice' in /ops/jobs...
    """
    from ..core.words import counted
    from .leaks import crawl

    found = crawl(client, canaries, paths, texts, most)
    if found.leaks:
        lines = [f"found in {counted(len(found.leaks), 'place')}:", *found.leaks]
        if found.near_misses:
            lines += ["near misses, with half a canary:", *found.near_misses]
        raise AssertionError("\n  ".join(map(str, lines)))
    return found


# --- fixtures


if pytest is not None:

    @pytest.fixture
    def opsjobs_perform_due(request: pytest.FixtureRequest) -> Callable[..., Performed]:
        """Performs every due job: `opsjobs_perform_due(at=…, limit=…, session=…)`.

        >>> job = send_invoice.enqueue(9001)
        >>> db.session.commit()
        >>> opsjobs_perform_due().jobs[0].output
        'sent 9001'
        """
        return _for_app(request, perform_due)

    @pytest.fixture
    def opsjobs_jobs(request: pytest.FixtureRequest) -> Callable[..., list[StoredJob]]:
        """Returns the jobs in the database: `opsjobs_jobs(task)`, or all.

        >>> job = send_invoice.enqueue(9001)
        >>> [job.queue for job in opsjobs_jobs()]
        ['mail']
        """
        return _for_app(request, jobs)

    @pytest.fixture
    def opsjobs_enqueued(request: pytest.FixtureRequest) -> Callable[..., list[dict[str, Any]]]:
        """Returns the arguments of a task's jobs, oldest first.

        >>> job = send_invoice.enqueue(9001)
        >>> opsjobs_enqueued(send_invoice)
        [{'invoice_id': 9001}]
        """
        return _for_app(request, enqueued)


def _for_app(request: pytest.FixtureRequest, function: Callable[P, T]) -> Callable[P, T]:
    from flask import has_app_context

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if has_app_context():
            return function(*args, **kwargs)
        with request.getfixturevalue("app").app_context():
            return function(*args, **kwargs)

    return call


# --- which connection


def _host() -> Host:
    from flask import current_app

    from ..errors import OpsJobsError

    try:
        host: Host = current_app.extensions["opsjobs"]
    except KeyError:
        raise OpsJobsError("OpsJobs has not joined the current app") from None
    return host


@contextmanager
def _alembic() -> Iterator[Any]:
    """Alembic's `op` in a transaction on the app's database."""
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    with _host().engine.begin() as connection:
        yield Operations(MigrationContext.configure(connection))


@contextmanager
def _committed(host: Host, given: AnySession | None) -> Iterator[Connection]:
    """Open a connection in autocommit that sees committed rows, or take the one that the test shares."""
    from sqlalchemy import Engine

    from ..core.db import connect_apart
    from ..engine.inline_worker import has_written
    from ..errors import OpsJobsError
    from ..jobs.record.enqueue import find_session

    host.require_schema()
    session, bind = find_session(host, given)
    if not isinstance(bind, Engine):
        yield _driver(bind)
        return
    if session.in_transaction() and has_written(_joined(host, session, bind)):
        raise OpsJobsError(
            "the session has written and not committed: jobs would not see it and might wait for its locks; "
            "commit before you call `perform_due`, as a request does"
        )
    with closing(connect_apart(host.engine)) as connection:
        yield connection


@contextmanager
def _seen(host: Host, given: AnySession | None) -> Iterator[Connection]:
    """Give a connection that sees what the session sees, also its uncommitted rows."""
    from ..jobs.record.enqueue import find_session

    session, bind = find_session(host, given)
    if session.in_transaction():
        yield _joined(host, session, bind)
        return
    with _committed(host, given) as connection:
        yield connection


def _joined(host: Host, session: Session, bind: Engine | Shared) -> Connection:
    from ..jobs.record.enqueue import join

    return _driver(join(host, session, bind))


def _driver(connection: Shared) -> Connection:
    driver: Any = connection.connection.driver_connection
    found: Connection = driver
    return found
