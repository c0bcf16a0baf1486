"""A pooler that loses prepared statements:
the setting for it reaches every connection, and who forgot it is told.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from flask_opsjobs.core.db import connect_apart, connect_soon
from flask_opsjobs.host import Host
from tests.support.database import Databases
from tests.support.pgbouncer import MISSING, PgBouncer
from tests.support.processes import Children
from tests.support.waiting import wait_until

SETTING = '{"connect_args": {"prepare_threshold": None}}'


def test_the_hosts_setting_reaches_every_connection_of_ours(make_app: Any) -> None:
    options = {"connect_args": {"prepare_threshold": None}}
    host: Host = make_app(SQLALCHEMY_ENGINE_OPTIONS=options).extensions["opsjobs"]
    with connect_apart(host.engine) as apart, host.spare.one() as spare:
        assert (apart.prepare_threshold, spare.prepare_threshold) == (None, None)
    for engine in (host.engine, host.pages):
        with connect_soon(engine) as connection:
            assert connection.connection.driver_connection.prepare_threshold is None


@pytest.fixture
def forgetful_url(request: pytest.FixtureRequest, databases: Databases) -> Iterator[str]:
    """The URL of a database behind a PgBouncer that knows nothing of prepared statements."""
    if request.config.getoption("pgbouncer") is None:
        pytest.skip("only with --pgbouncer")
    if MISSING:
        pytest.skip(MISSING)
    pooler = PgBouncer(databases.server, max_prepared_statements=0, pool_size=4)
    url = databases.migrated()
    yield pooler.through(url).render_as_string(hide_password=False)
    pooler.close()
    databases.drop(url)


@pytest.mark.parametrize("command", ["run", "worker"])
def test_who_forgot_the_setting_is_told_so(
    children: Children, forgetful_url: str, command: str
) -> None:
    config = {
        "SQLALCHEMY_DATABASE_URI": forgetful_url,
        "SQLALCHEMY_ENGINE_OPTIONS": {},
        "OPSJOBS_HEARTBEAT_SECONDS": 0.2,
    }
    started = [children.flask("opsjobs", command, **config) for _ in range(3)]
    for each in started:
        each.wait_for(SETTING, 90)
    # Each new connection works for a while: without a bound the log would be told each time.
    began = time.monotonic()
    wait_until(lambda: time.monotonic() - began > 10, 15)
    for each in started:
        assert each.exit_code is None
        assert each.log.count(SETTING) == 1
        assert len(each.log.splitlines()) < 20, each.log
