"""Tells the host's own code from libraries, Python's own and ours, by the name of a file. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

# Where installers put libraries, and where Python's own modules are, on whatever machine.
_INSTALLED = re.compile(r".*[\\/](?:site|dist)-packages[\\/](?P<top>[^\\/]+)", re.DOTALL)
_OF_PYTHON = re.compile(r"(?:^|[\\/])lib[\\/]python3\.[0-9]+[\\/]", re.IGNORECASE)
_OURS = str(Path(__file__).parents[1]) + os.sep


def package_of(function: Callable[..., Any]) -> str:
    """Return the top-level package of a function; "" when it does not tell one."""
    return (getattr(function, "__module__", None) or "").partition(".")[0]


@lru_cache(maxsize=4096)
def is_host_file(path: str, package: str) -> bool:
    """Return whether a source file, as a traceback names it, is the host's own code.

    `package` is the top-level package of the task's function: it is the host's wherever it is installed.
    """
    if path.startswith(("<", _OURS)):
        return False
    installed = _INSTALLED.match(path)
    if installed is not None:
        return installed["top"].removesuffix(".py") == package
    return _OF_PYTHON.search(path) is None
