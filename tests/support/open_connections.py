"""Says which test opened a connection that nobody closed.

The garbage collector finds such a connection during any later test, and that test fails.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import psycopg


def name_the_opener() -> None:
    """Let psycopg's warning about a connection that was deleted while open name the test that opened it."""
    init = psycopg.Connection.__init__

    def opened(self: psycopg.Connection[Any], *args: Any, **options: Any) -> None:
        init(self, *args, **options)
        self.__dict__["opened_in"] = os.environ.get("PYTEST_CURRENT_TEST", "no test")

    def deleted(self: psycopg.Connection[Any]) -> None:
        opened_in = self.__dict__.get("opened_in")
        if opened_in is None or self.closed:
            return
        warnings.warn(
            f"{opened_in} opened a connection, and nobody closed it", ResourceWarning, stacklevel=1
        )

    psycopg.Connection.__init__ = opened  # type: ignore[method-assign]
    psycopg.Connection.__del__ = deleted  # type: ignore[method-assign,assignment]
