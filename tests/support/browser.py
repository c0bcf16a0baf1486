"""The machine's Chromium, for tests marked `browser`."""

from __future__ import annotations

import os
import shutil
from functools import cache

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")


@cache
def chromium() -> str:
    """Where Chromium lies. Without one the test skips with the reason; in CI it fails instead."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is not None:
        return found
    reason = f"no browser: none of {', '.join(_NAMES)} is on PATH (apt-get install chromium)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
