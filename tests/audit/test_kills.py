"""A process that is killed between append and commit leaves the chain whole, and nobody waiting."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy.orm import Session

from flask_opsjobs.audit.verify import verify
from flask_opsjobs.core.db import Connection
from flask_opsjobs.host import Host
from tests.support.processes import Children
from tests.support.waiting import wait_until

pytestmark = pytest.mark.chaos

APPEND_AND_HOLD = """
import signal
from flask_opsjobs.audit import transitions
from flask_opsjobs.core.db import connect_apart
from tests.audit.conftest import PAUSED
from tests.support.host import create_app

host = create_app().extensions["opsjobs"]
connection = connect_apart(host.engine)
with connection.transaction():
    print("appended", transitions.append(connection, host.secrets, PAUSED), flush=True)
    signal.pause()
"""


def test_killed_between_append_and_commit(
    append: Callable[..., int], host: Host, connection: Connection, children: Children
) -> None:
    assert append() == 1
    child = children.python("-c", APPEND_AND_HOLD)
    child.wait_for("appended 2")
    child.kill()
    held = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'"
    wait_until(lambda: connection.execute(held).fetchone() == (0,), 10)
    assert append() == 2
    with Session(host.engine) as session:
        found = verify(session, host.secrets)
    assert (found.state, found.last) == ("intact", 2)
