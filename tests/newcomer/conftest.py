"""An empty folder, an empty database, and an empty environment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.install.conftest import site
from tests.newcomer.environment import Environment
from tests.newcomer.walk import POSTGRES, REDIS, Walk

__all__ = ["site"]


@pytest.fixture
def walk(tmp_path: Path, site: Path, empty_database_url: str, redis_url: str) -> Iterator[Walk]:
    """Somebody who has installed nothing so far."""
    folder = tmp_path / "shop"
    folder.mkdir()
    environment = Environment(tmp_path / "environment", site)
    walk = Walk(folder, environment, {POSTGRES: empty_database_url, REDIS: redis_url})
    yield walk
    for child in walk.started:
        child.kill_all()
        print(child.log)
