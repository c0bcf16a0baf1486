"""Running hosts whose jobs were enqueued and run by real workers and loops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text

from flask_opsjobs.testing.valkey import Valkey
from tests.support import host as site
from tests.support.browser import launched
from tests.support.database import Databases
from tests.support.processes import Children
from tests.support.serving import served
from tests.support.waiting import wait_until


@pytest.fixture(scope="package")
def _browser() -> Iterator[Any]:
    """Chromium for all tests of this folder."""
    with launched() as browser:
        yield browser


class Site:
    """The app, its jobs by what became of them, and the gate that a running one waits for."""

    def __init__(self, app: Flask, gate: Path) -> None:
        self.app = app
        self.gate = gate
        self.jobs: dict[str, int] = {}

    def enqueue(self, name: str, task: Any, **arguments: Any) -> int:
        """Record a call, committed, and remember it under `name`."""
        self.jobs[name] = task.enqueue(**arguments).id
        site.db.session.commit()
        return self.jobs[name]

    def state(self, name: str) -> str:
        """The state of one of its jobs."""
        found = site.db.session.execute(
            text("SELECT state FROM opsjobs.jobs WHERE id = :id"), {"id": self.jobs[name]}
        ).scalar_one()
        site.db.session.rollback()
        return str(found)

    def wait_until(self, name: str, state: str) -> None:
        """Wait until one of its jobs is in a state."""
        wait_until(lambda: self.state(name) == state, 30, what=f"{name} to be {state}")


@contextmanager
def _made(database_url: str, redis_url: str) -> Iterator[Flask]:
    """The host of tests/support/host.py, which knows the workers that the child processes run."""
    app = site.create_app(SQLALCHEMY_DATABASE_URI=database_url, OPSJOBS_REDIS_URL=redis_url)
    yield app
    with app.app_context():
        site.db.engine.dispose()
    app.extensions["opsjobs"].spare.close()
    app.extensions["opsjobs"].pages.dispose()


def _start(found: Site, children: Children, workers: int, timeout: float) -> None:
    """Let jobs finish, fail, run, wait and be scheduled; as many workers and the loops then still run."""
    found.enqueue("finished", site.add, a=2, b=3)
    found.enqueue("failed", site.fail, message="the vendor's API timed out")
    found.enqueue("killed", site.die, attempts=2)
    found.enqueue("scheduled", site.add.options(delay=3600), a=1, b=1)
    found.enqueue("nobody listens", site.add.options(queue="reports"), a=1, b=1)
    found.jobs["run"] = _start_run()
    found.jobs["batch"] = _fill_batch()
    children.flask("opsjobs", "run")
    for _ in range(workers):
        children.flask("opsjobs", "worker")
    for name, state in (("finished", "finished"), ("failed", "failed"), ("killed", "failed")):
        found.wait_until(name, state)
    found.jobs["wait"] = _send_ambiguous(found.jobs["run"])
    endless = site.progress_then_hold.options(timeout=int(timeout))
    found.enqueue("started", endless, gate=str(found.gate), timeout=timeout)
    found.wait_until("started", "started")


def _start_run() -> int:
    """Start a workflow in which a step fails, and two others wait for the same signal; its id."""
    flow = site.opsjobs.workflow("fulfil_order", context={"order_id": 1042}, on_end=None)
    pictures = flow.step("fetch", site.give, value=["front", "back", "side"])
    resized = flow.map("resize", site.give, over=pictures.result, as_="value")
    paid = flow.wait("paid", signal="payment", key="order-1042", after=pictures)
    flow.wait("paid_twice", signal="payment", key="order-1042", after=pictures)
    bill = flow.step("bill", site.fail, may_fail=True, after=pictures)
    cleanup = flow.step("clean_up", site.fail, after=pictures)
    flow.step("report", site.give, after=cleanup)
    flow.step("index", site.give, value=resized.results)
    flow.step("ship", site.give, after=[paid, bill])
    run = flow.start()
    site.opsjobs.signal("unasked", key="nobody", payload={"amount": 990})
    site.db.session.commit()
    return run.id


def _send_ambiguous(run: int) -> int:
    """Send a signal for two waits of this workflow, which are open soon; the id of the first of them."""
    open_waits = text(
        "SELECT job_id FROM opsjobs.steps WHERE workflow_id = :run AND opened_at IS NOT NULL ORDER BY job_id"
    )

    def list_open() -> list[int]:
        site.db.session.rollback()
        return list(site.db.session.scalars(open_waits, {"run": run}))

    wait_until(lambda: len(list_open()) == 2, 30, what="both waits to open")
    sent = site.opsjobs.signal("payment", key="order-1042", payload={"amount": 990})
    site.db.session.commit()
    outcome = text("SELECT outcome FROM opsjobs.signals WHERE id = :id")
    wait_until(
        lambda: (
            site.db.session.rollback()
            or site.db.session.scalar(outcome, {"id": sent.id}) == "ambiguous"
        ),
        30,
        what="the signal to be ambiguous",
    )
    return list_open()[0]


def _fill_batch() -> int:
    """Fill a batch whose members finish, fail and are due later, and which calls nobody back; its id."""
    with site.opsjobs.batch("import_prices", meta={"file": "march.csv"}) as batch:
        batch.enqueue_many(site.add, [{"a": number, "b": 1} for number in range(3)])
        batch.enqueue(site.fail, message="price '12,5O' is not a number")
        batch.enqueue(site.add.options(delay=3600), a=1, b=1)
    site.db.session.commit()
    return batch.id


@pytest.fixture(scope="package")
def _shared(
    databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Site, str]]:
    """A running site with a second worker, which has counted for an hour, and where it answers."""
    url = databases.migrated()
    database_url, folder = (
        url.render_as_string(hide_password=False),
        tmp_path_factory.mktemp("site"),
    )
    valkey = Valkey()
    valkey.start()
    children = Children(folder, {"TEST_DATABASE_URL": database_url, "TEST_REDIS_URL": valkey.url})
    try:
        with _made(database_url, valkey.url) as app, served(app) as root:
            found = Site(app, folder / "gate")
            with app.app_context():
                _start(found, children, workers=2, timeout=3600)
                wait_until(_has_counted_for_an_hour, 30, what="the loop roll_up to have begun")
            yield found, root
    finally:
        children.end()
        valkey.close()
        databases.drop(url)


def _has_counted_for_an_hour() -> bool:
    """Let the loop that counts have begun an hour earlier, once it has begun:
    before that there is no chart.
    """
    moved: Any = site.db.session.execute(
        text(
            "UPDATE opsjobs.rollup_position SET counted_from = counted_from - interval '1 hour' "
            "WHERE counted_from IS NOT NULL"
        )
    )
    site.db.session.commit()
    return moved.rowcount == 1


@pytest.fixture
def app(request: pytest.FixtureRequest) -> Iterator[Flask]:
    """The host that the test's pages are of, with an app context:
    that of `running`, or one of the test's own.
    """
    if "running" in request.fixturenames:
        found, _ = request.getfixturevalue("_shared")
        with found.app.app_context():
            yield found.app
            site.db.session.remove()
        return
    urls = (request.getfixturevalue(name) for name in ("database_url", "redis_url"))
    with _made(*urls) as app, app.app_context():
        yield app
        site.db.session.remove()


@pytest.fixture
def live_url(request: pytest.FixtureRequest, app: Flask) -> Iterator[str]:
    """The root URL of `app`."""
    if "running" in request.fixturenames:
        yield request.getfixturevalue("_shared")[1]
        return
    with served(app) as url:
        yield url


@pytest.fixture(params=[True, False], ids=["script", "no script"])
def either_page(request: pytest.FixtureRequest, page: Any, live_url: str) -> Iterator[Any]:
    """A page in a browser with JavaScript, and one in a browser without."""
    context = page.context.browser.new_context(base_url=live_url, java_script_enabled=request.param)
    yield context.new_page()
    context.close()


@pytest.fixture
def running(app: Flask, _shared: tuple[Site, str]) -> Site:
    """Jobs that finished, failed, run, wait and are scheduled; two workers and the loops still run.

    The tests share it: they may add jobs, and act on those, but leave what is there as it is. The worker that
    does not run `started` runs what they add.
    """
    return _shared[0]


@pytest.fixture
def own(app: Flask, children: Children, tmp_path: Path) -> Site:
    """The same for one test, with one worker: it may do anything."""
    found = Site(app, tmp_path / "gate")
    _start(found, children, workers=1, timeout=60)
    return found
