"""Fixtures of the tests of escalations: a host with a policy that acts as told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_opsjobs import OpsJobs
from flask_opsjobs.core.db import Connection, connect_apart
from flask_opsjobs.host import Host
from tests.support.escalating import Acting, HideSecret


@pytest.fixture
def policy(tmp_path: Path) -> Acting:
    """What the host's policy does, and what it was told."""
    return Acting(tmp_path)


@pytest.fixture
def app(make_app: Callable[..., Any], opsjobs: OpsJobs, policy: Acting) -> Any:
    """A host with that policy, whose display policy hides a secret."""
    return make_app(opsjobs=opsjobs, display=HideSecret(), escalation=policy)


@pytest.fixture
def connection(host: Host) -> Iterator[Connection]:
    """A connection in autocommit."""
    connection = connect_apart(host.engine)
    yield connection
    connection.close()
