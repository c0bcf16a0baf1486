"""A host with the bridge, whose permissions a test chooses, and a Redis with RQ jobs of every kind."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis import Redis

from tests.bridge.rq_site import RqSite, fill
from tests.web.conftest import access, app, get, session

__all__ = ["access", "app", "get", "session"]


@pytest.fixture
def in_rq(redis_client: Redis, tmp_path: Path) -> RqSite:
    """RQ jobs of every kind, in the Redis of the host."""
    return fill(redis_client, tmp_path)
