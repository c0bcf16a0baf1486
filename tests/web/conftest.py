"""A host whose operator and whose permissions a test chooses, and a job of every state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from bs4 import BeautifulSoup
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from flask_opsjobs import OpsJobs
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.core.reading import Reading
from flask_opsjobs.core.round_trips import StartedRead
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.models import Job
from flask_opsjobs.overview.changes import find_changes
from flask_opsjobs.web.app import host as page_reads
from flask_opsjobs.web.app import polls
from flask_opsjobs.web.app.access import PERMISSIONS
from flask_opsjobs.web.app.references import make_reference
from flask_opsjobs.web.app.urls import Url
from tests.support.clock import Clock
from tests.support.policies import AllowAll
from tests.web.every import reads, soup
from tests.web.rows import make_one_of_each


class Access:
    """Lets `actor` do what is in `held`, but not on the subjects in `denied`; raises where told."""

    def __init__(self) -> None:
        self.actor: str | None = AllowAll.actor
        self.held = set(PERMISSIONS)
        self.denied: set[tuple[str, str | None]] = set()
        self.raises_in = ""
        self.asked: list[tuple[str, str | None]] = []

    def current_actor(self) -> str | None:
        if self.raises_in == "current_actor":
            raise RuntimeError("the directory is away")
        return self.actor

    def can(self, actor: str, permission: str, subject: str | None = None) -> bool:
        if self.raises_in == "can":
            raise RuntimeError("the directory is away")
        self.asked.append((permission, subject))
        return permission in self.held and (permission, subject) not in self.denied


@pytest.fixture
def access() -> Access:
    """The access policy of `app`."""
    return Access()


@pytest.fixture
def app(make_app: Callable[..., Flask], opsjobs: OpsJobs, access: Access) -> Flask:
    """A host that shows everything to whom `access` lets in."""
    return make_app(opsjobs=opsjobs, access=access)


@pytest.fixture
def session(host: Host) -> Iterator[Session]:
    """A session of the test's own, to make rows with."""
    with Session(host.engine, expire_on_commit=False) as session:
        yield session


@pytest.fixture
def jobs(session: Session, host: Host) -> dict[str, Job]:
    """A job of every state, by state, committed;
    and a preview that would retry all of them, the first there is.
    """
    made = make_one_of_each(session)
    assert AllowAll.actor is not None
    targets = [f"job/{job.id}" for job in made.values()]
    shown = Operator(host).preview("job.retry", targets, actor=AllowAll.actor, via="page")
    assert shown.id == 1  # as tests/web/every.py asks for
    return made


@pytest.fixture
def page_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time as of which pages are read, and as of which polls look for changes."""
    clock = Clock()
    transaction = page_reads._transaction

    @contextmanager
    def as_of_the_clock(seconds: float) -> Iterator[Reading]:
        with transaction(seconds) as read:
            yield Reading(read.session, StartedRead(None, lambda: clock.now))

    monkeypatch.setattr(page_reads, "_transaction", as_of_the_clock)
    monkeypatch.setattr(polls, "find_changes", lambda *asked: find_changes(*asked, now=clock.now))
    return clock


@pytest.fixture
def get(client: FlaskClient) -> Callable[..., Any]:
    """Asks for a path below the prefix: `get("/jobs")`."""

    def get(path: str = "", status: int = 200, **options: Any) -> Any:
        response = client.get(f"/ops/jobs{path}", **options)
        assert response.status_code == status, response.text
        return response

    return get


# Each page and fragment: its URL, its path, the answer and its tree.
Drawn = list[tuple[Url, str, TestResponse, BeautifulSoup]]
_drawn: Drawn = []


@pytest.fixture
def drawn(request: pytest.FixtureRequest) -> Drawn:
    """Every page and fragment about `jobs`, drawn and parsed once for all tests, which change nothing."""
    if not _drawn:
        client, jobs = (request.getfixturevalue(name) for name in ("client", "jobs"))
        answers = [(url, path, client.get(path)) for url, path in reads(jobs)]
        _drawn.extend([(*answer, soup(answer[2].text, with_sprite=True)) for answer in answers])
    return _drawn


@pytest.fixture
def reference(host: Host) -> Callable[..., str]:
    """What stands for a partition in an address:
    `reference("42")`; of the limiter that `make_limiter` makes.
    """

    def reference(partition: str, limiter: str = "customer-api") -> str:
        return make_reference(host.secrets[0], limiter, partition)

    return reference


@pytest.fixture
def drifted(host: Host, jobs: dict[str, Job]) -> str:
    """The path of a preview that was refused, because somebody else had retried its job meanwhile."""
    operator, target = Operator(host), [f"job/{jobs['failed'].id}"]
    shown = operator.preview("job.retry", target, actor="tester", via="page")
    operator.run("job.retry", target, actor="l.brandt", reason="the vendor answers again")
    receipt = operator.execute(shown.id, shown.token, actor="tester", reason="so it does, OPS-2291")
    assert receipt.code == "drifted"
    return f"/ops/jobs/previews/{shown.id}"


@pytest.fixture
def clock(page_clock: Clock) -> Clock:
    """It stands in the middle of a minute: charts begin a step with each."""
    page_clock.now = page_clock.now.replace(second=20, microsecond=0)
    return page_clock
