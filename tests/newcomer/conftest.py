"""An empty folder, an empty database, and an environment with the wheel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.install.conftest import own_python, site
from tests.newcomer.walk import POSTGRES, REDIS, Walk

__all__ = ["own_python", "site"]


@pytest.fixture
def walk(
    tmp_path: Path, site: Path, own_python: str, empty_database_url: str, redis_url: str
) -> Iterator[Walk]:
    """Somebody who has done only what needs a package index."""
    folder = tmp_path / "shop"
    folder.mkdir()
    walk = Walk(folder, own_python, site, {POSTGRES: empty_database_url, REDIS: redis_url})
    yield walk
    for child in walk.started:
        child.kill_all()
        print(child.log)
