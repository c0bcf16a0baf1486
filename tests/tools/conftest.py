from __future__ import annotations

import pytest


@pytest.fixture
def without_pypi(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be installed: no index answers, and nothing is cached."""
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
