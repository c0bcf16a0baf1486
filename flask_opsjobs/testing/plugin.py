"""Gives a host's tests our fixtures and our marker (pytest plugin). A test that asks for none pays nothing.

pytest loads this module in every run where flask_opsjobs is installed, so heavy modules are imported at first
use. Each fixture works on the app whose context is pushed, else on the fixture `app`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import pytest

from . import Performed, StoredJob, enqueued, jobs, pass_time, perform_due

if TYPE_CHECKING:
    from flask import Flask

    from ..host import Host
    from ..policy import AccessPolicy

P = ParamSpec("P")
T = TypeVar("T")

_MARKER = (
    "opsjobs(inline=True): perform due jobs right after each commit, in the process of the test."
)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", _MARKER)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let a test with the marker use the fixture that does what it says."""
    marker = item.get_closest_marker("opsjobs")
    if marker is None or not isinstance(item, pytest.Function):
        return
    if (
        marker.args
        or [*marker.kwargs] != ["inline"]
        or not isinstance(marker.kwargs["inline"], bool)
    ):
        raise pytest.UsageError(
            f"{item.nodeid}: the marker opsjobs takes inline=True, and nothing else"
        )
    if marker.kwargs["inline"]:
        # A list of its own: tests of one function share theirs, and not every one has the marker.
        item.fixturenames = [*item.fixturenames, "opsjobs_inline"]


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


class Clock:
    """The clock of what is stored: `opsjobs_clock` is one."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._request = request

    def forward(self, **duration: float) -> None:
        """Let so much time pass: `forward(hours=1)` takes the words of `timedelta`."""
        _for_app(self._request, pass_time)(**duration)


@pytest.fixture
def opsjobs_clock(request: pytest.FixtureRequest) -> Clock:
    """Lets time pass for all that is stored of jobs and workflows.

    >>> job = send_invoice.options(delay=3600).enqueue(9001)
    >>> db.session.commit()
    >>> opsjobs_clock.forward(hours=1)
    >>> perform_due().counts
    {'finished': 1}
    """
    return Clock(request)


@pytest.fixture
def opsjobs_as(
    request: pytest.FixtureRequest,
) -> Iterator[Callable[[str | None, Iterable[str]], None]]:
    """Acts as somebody with these permissions until the test ends, in the place of your access policy.

    >>> opsjobs_as("anna", ["jobs.view"])
    >>> client = app.test_client()
    >>> client.get("/ops/jobs/jobs").status_code, client.get("/ops/jobs/audit").status_code
    (200, 403)
    """
    before: list[tuple[Host, AccessPolicy]] = []

    def act(actor: str | None, permissions: Iterable[str] = ()) -> None:
        from .acting import act_as

        host = _host_of(request)
        before.append((host, host.access))
        host.access = act_as(actor, permissions)
        _forget_actor()

    yield act
    for host, access in reversed(before):
        host.access = access
    if before:
        _forget_actor()


@pytest.fixture
def opsjobs_inline(request: pytest.FixtureRequest) -> Iterator[None]:
    """What the marker `opsjobs(inline=True)` does: each commit performs the jobs that are due.

    >>> job = send_invoice.enqueue(9001)
    >>> db.session.commit()
    >>> [job.state for job in testing.jobs()]
    ['finished']
    """
    from ..errors import OpsJobsError
    from .inline import InlineDispatcher

    host = _host_of(request)
    if host.dispatcher is not None:
        raise OpsJobsError(
            "jobs of this app are dispatched to RQ at commit: set TESTING = True, or "
            "OPSJOBS_DISPATCH = False, in its config before OpsJobs joins it"
        )
    dispatcher = InlineDispatcher(perform_due)
    host.dispatcher = dispatcher
    yield
    host.dispatcher = None
    if dispatcher.errors:
        raise dispatcher.errors[0]


@pytest.fixture(scope="session")
def opsjobs_postgres() -> Iterator[str]:
    """The URL of an empty database: on the server of `OPSJOBS_TEST_DATABASE_URL`, else on one from a wheel.

    Each process of pytest-xdist has its own.
    """
    from .postgres import TemporaryPostgres, empty_database

    if given := os.environ.get("OPSJOBS_TEST_DATABASE_URL"):
        with empty_database(given) as url:
            yield url
    else:
        with TemporaryPostgres() as server:
            yield server.url().render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def opsjobs_redis() -> Iterator[str]:
    """The URL of a Redis: `OPSJOBS_TEST_REDIS_URL`, else of a Valkey from a wheel. Nothing is emptied."""
    from .valkey import Valkey

    given = os.environ.get("OPSJOBS_TEST_REDIS_URL")
    server: AbstractContextManager[Any] = nullcontext() if given else Valkey()
    with server as valkey:
        yield given or valkey.url


# --- for which app


def _app_of(request: pytest.FixtureRequest) -> Flask:
    from flask import current_app, has_app_context

    found: Flask = (
        current_app._get_current_object()  # type: ignore[attr-defined]
        if has_app_context()
        else request.getfixturevalue("app")
    )
    return found


def _host_of(request: pytest.FixtureRequest) -> Host:
    from . import find_host

    with _app_of(request).app_context():
        return find_host()


def _for_app(request: pytest.FixtureRequest, function: Callable[P, T]) -> Callable[P, T]:
    from flask import has_app_context

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if has_app_context():
            return function(*args, **kwargs)
        with request.getfixturevalue("app").app_context():
            return function(*args, **kwargs)

    return call


def _forget_actor() -> None:
    """Requests of a test share the context that it has pushed, and what was asked in it."""
    from flask import g, has_app_context

    if has_app_context():
        g.pop("opsjobs_actor", None)
