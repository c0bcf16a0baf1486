"""What the audit's tests stand on: a connection, decisions, and a way to append them as a door does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from flask_opsjobs.audit import transitions as audit_transitions
from flask_opsjobs.audit.transitions import Decision
from flask_opsjobs.core.db import Connection, connect_apart
from flask_opsjobs.host import Host

PAUSED = Decision(
    at=datetime(2026, 11, 24, 2, 13, 37, 123456, tzinfo=UTC),
    actor="ops-demo",
    via="page",
    action="queue.pause",
    subject="queue/mail",
    targets=("queue/mail",),
    outcome="done",
    permission="queue.pause",
    reason="vendor times out — INC-2417",
    request_id="01JDC8",
    preview_id=7,
    previewed_at=datetime(2026, 11, 24, 2, 13, 11, tzinfo=UTC),
    before={"is_paused": False, "prefetch": 40},
    after={"is_paused": True, "prefetch": 40},
)


@pytest.fixture
def connection(host: Host) -> Iterator[Connection]:
    """A connection in autocommit."""
    connection = connect_apart(host.engine)
    yield connection
    connection.close()


@pytest.fixture
def append(host: Host, connection: Connection) -> Callable[..., int]:
    """Appends `PAUSED` with changes, and commits; its sequence."""

    def append(**changes: Any) -> int:
        with connection.transaction():
            return audit_transitions.append(connection, host.secrets, replace(PAUSED, **changes))

    return append
