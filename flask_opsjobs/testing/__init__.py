"""Lets a host's tests read the enqueued jobs, and perform them without workers or Redis.

Each function works on the current app. `plugin.py` has the fixtures.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

try:
    import pytest
except ModuleNotFoundError:  # a script may call the functions of this module without pytest
    pytest = None  # type: ignore[assignment]

# The plugin loads this module in every run of pytest where flask_opsjobs is installed, so heavy modules are
# imported at first use.
if TYPE_CHECKING:
    from flask.testing import FlaskClient
    from sqlalchemy import Connection as Shared
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

    from ..core.db import Connection
    from ..host import Host
    from ..jobs.record.declaration import TaskDeclaration
    from ..jobs.record.enqueue import AnySession
    from ..jobs.record.task import Task
    from .leaks import Crawl

# Exceptions of a task that end the test too, and not only the job.
_THROUGH: tuple[type[BaseException], ...] = (KeyboardInterrupt,)
if pytest is not None:
    _THROUGH += (pytest.fail.Exception, pytest.skip.Exception, pytest.exit.Exception)


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


@dataclass(frozen=True)
class PerformedCall:
    """How a call ended that `perform` made: `outcome` is `returned`, `raised`, `retry_in`, `canceled`, ….

    `output` is what would be stored of what the task returned, if outputs of the task are recorded, and
    `delay_seconds` how long the job would wait until its next attempt.
    """

    outcome: str
    output: Any = None
    error: str | None = None
    reason: str | None = None
    delay_seconds: float = 0.0
    exception: BaseException | None = field(default=None, repr=False, compare=False)

    def assert_returned(self) -> PerformedCall:
        """Return this value when the function returned.

        Else raises `AssertionError`, caused by the exception of the function.
        """
        if self.outcome != "returned":
            raise AssertionError(
                f"the call ended as {self.outcome}: {self.error or self.reason}"
            ) from (self.exception)
        return self


def perform(task: Task | str, /, **args: Any) -> PerformedCall:
    """Make one call of a task as a worker makes it, without a job: nothing of the call is stored.

    The arguments are validated and written as JSON first, the hooks of the task are called, and the end
    becomes an outcome. The call is the first attempt, and has an app context of its own, as in a worker.
    Raises `InvalidArgs` when the arguments do not fit, and `OpsJobsError` when the session has uncommitted
    writes.

    >>> testing.perform(send_invoice, invoice_id=9001).assert_returned().output
    'sent 9001'
    >>> testing.perform(send_invoice, invoice_id="many")
    Traceback (most recent call last):
    flask_opsjobs.errors.InvalidArgs: task send_invoice: invoice_id: ...
    """
    from flask import current_app

    from .one_call import perform_call

    host = find_host()
    declared = find_task(host, task)
    surround = current_app._get_current_object().app_context  # type: ignore[attr-defined]
    with _committed(host, None) as connection:
        outcome, error = perform_call(host, declared, args, connection, surround)
    if isinstance(error, _THROUGH):
        raise error
    return PerformedCall(**outcome, exception=error)


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
    from .inline import InlineDispatcher

    if at is not None and at.utcoffset() is None:
        raise ValueError(f"at must be a datetime with a time zone, got {at!r}")
    host = find_host()
    if host.dispatcher is not None and not isinstance(host.dispatcher, InlineDispatcher):
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
    with _seen(find_host(), session) as connection:
        return [StoredJob(**row) for row in list_stored(connection, task=name)]


def enqueued(task: Task | str, *, session: AnySession | None = None) -> list[dict[str, Any]]:
    """The stored arguments of a task's jobs, oldest first: as JSON values, without redacted arguments.

    >>> job = send_invoice.enqueue(9001)
    >>> testing.enqueued(send_invoice)
    [{'invoice_id': 9001}]
    """
    return [job.args for job in jobs(task, session=session)]


def assert_enqueued(task: Task | str, /, **args: Any) -> StoredJob:
    """Return the oldest job of a task whose stored arguments include these; its other arguments may be any.

    Raises `AssertionError` with what was enqueued when there is none, and `TypeError` when the task has no
    such argument, or does not store it.

    >>> job = send_invoice.enqueue(9001)
    >>> testing.assert_enqueued(send_invoice, invoice_id=9001).state
    'available'
    >>> testing.assert_enqueued(send_invoice, invoice_id=9002)
    Traceback (most recent call last):
    AssertionError: no job of the task send_invoice has invoice_id=9002; enqueued were: ...
    """
    name, wanted = _sought(task, args)
    found = jobs(name)
    if not found:
        others = Counter(job.task for job in jobs())
        said = ", ".join(f"{number} of {other}" for other, number in sorted(others.items()))
        raise AssertionError(
            f"no job of the task {name} was enqueued; enqueued were: {said or 'none'}"
        )
    for job in found:
        if _has(job, wanted):
            return job
    raise AssertionError(
        f"no job of the task {name} has {_named(wanted)}; enqueued were: {_listed(found)}"
    )


def refute_enqueued(task: Task | str, /, **args: Any) -> None:
    """Return when no job of a task has these stored arguments, or, without any, when it has no job.

    Raises `AssertionError` with the jobs that were enqueued, and `TypeError` as `assert_enqueued` does.

    >>> job = send_invoice.enqueue(9001)
    >>> testing.refute_enqueued(send_invoice, invoice_id=9002)
    >>> testing.refute_enqueued(send_invoice)
    Traceback (most recent call last):
    AssertionError: enqueued were: ...
    """
    name, wanted = _sought(task, args)
    if found := [job for job in jobs(name) if _has(job, wanted)]:
        raise AssertionError(f"enqueued were: {_listed(found)}")


def pass_time(**duration: float) -> None:
    """Let time pass for all that is stored of jobs and workflows: it takes the words of `timedelta`.

    Due times, deadlines, unique locks and the time-outs of waits come closer by so much. What your functions
    read of a clock stays the same. Nothing is performed.

    >>> job = send_invoice.options(delay=3600).enqueue(9001)
    >>> db.session.commit()
    >>> testing.perform_due().calls
    0
    >>> testing.pass_time(hours=1)
    >>> testing.perform_due().calls
    1
    """
    from ..engine.inline_worker import move_back

    with _committed(find_host(), None) as connection:
        move_back(connection, timedelta(**duration))


def create_schema() -> None:
    """Create our tables in the app's database, for tests that use `db.create_all()` instead of migrations.

    >>> db.create_all()
    >>> testing.create_schema()
    """
    from ..install import steps

    with _alembic() as op:
        steps.upgrade(op, steps.latest())


def drop_schema() -> None:
    """Drop our tables with all rows.

    Raises `OpsJobsError` unless the app has `TESTING = True`, and `MigrationBlocked` while a worker or the
    loops run: first stop those that your tests have started.

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
        steps.downgrade(op, 0, is_test=True)


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
    as what a command printed. Raises `AssertionError` when a page answers with an error of the server, when
    every page is refused to this client, and when a canary is found: it names each canary, the address and
    the place, and near misses, which hold the first or the last half of a canary.

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

    with client.application.app_context():
        _require_visible()
    found = crawl(client, canaries, paths, texts, most)
    if found.leaks:
        lines = [f"found in {counted(len(found.leaks), 'place')}:", *found.leaks]
        if found.near_misses:
            lines += ["near misses, with half a canary:", *found.near_misses]
        raise AssertionError("\n  ".join(map(str, lines)))
    if not found.shown:
        addresses = counted(len(found.addresses), "address", "addresses")
        raise AssertionError(
            f"none of {addresses} showed a page to this client, so nothing "
            "was searched: sign it in, or let your access policy allow it to see the pages"
        )
    return found


# --- what was enqueued

# So many jobs are listed in a failure.
_MOST_LISTED = 20


def find_task(host: Host, task: Task | str) -> TaskDeclaration:
    """The declaration of a task. Raises `TypeError` when the app has no task of this name."""
    from difflib import get_close_matches

    name = task if isinstance(task, str) else task.name
    if name not in host.performable:
        close = get_close_matches(name, host.performable, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise TypeError(f"this app declares no task {name!r}{hint}")
    return host.performable[name]


def _require_visible() -> None:
    """Raise `OpsJobsError` when pages cannot see what the test has enqueued."""
    from flask import current_app
    from sqlalchemy import Engine

    from ..errors import OpsJobsError
    from ..jobs.record.enqueue import find_session

    host = current_app.extensions.get("opsjobs")
    if host is not None and not isinstance(find_session(host, None)[1], Engine):
        raise OpsJobsError(
            "there is a transaction around this test, and our pages read over connections of their own: "
            "they would show none of its jobs; let tests of pages commit"
        )


def _sought(task: Task | str, args: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name of a task, and the arguments as they would be stored. Raises `TypeError`, as said above."""
    from ..jobs.record import json_storage

    declared = find_task(find_host(), task)
    stored = declared.arguments.names
    for name in args:
        if name not in stored:
            raise TypeError(
                f"no argument {name} of the task {declared.name} is stored; those stored are: "
                f"{', '.join(stored) or 'none'}"
            )
    found: dict[str, Any] = json.loads(json_storage.dump(args))
    return declared.name, found


def _has(job: StoredJob, wanted: Mapping[str, Any]) -> bool:
    return all(name in job.args and job.args[name] == wanted[name] for name in wanted)


def _listed(found: Sequence[StoredJob]) -> str:
    lines = [f"job {job.id} of {job.task}, {job.state}: {_named(job.args)}" for job in found]
    more = [f"and {len(lines) - _MOST_LISTED} more"] if len(lines) > _MOST_LISTED else []
    return "\n  ".join(["", *lines[:_MOST_LISTED], *more])


def _named(args: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in args.items()) or "no arguments"


# --- which connection


def find_host() -> Host:
    """The state of OpsJobs in the current app. Raises `OpsJobsError` when it has not joined."""
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

    with find_host().engine.begin() as connection:
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
