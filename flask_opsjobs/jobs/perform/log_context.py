"""Gives the log records of an attempt its job, task, queue and number, also those of structlog."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from typing_extensions import override

from .current import Claimed, find_claimed

# What a record gets, by the name that the claim has for it.
_NAMES = {"id": "job_id", "task": "task", "queue": "queue", "attempt": "attempt"}
_NOTHING = nullcontext()


class AttemptFilter(logging.Filter):
    """Gives each record `job_id`, `task`, `queue` and `attempt` of the attempt that logs it; else None.

    Processes that perform jobs add it to the handlers that they find. Add it to your own handlers, so that a
    format may name these outside of attempts too. What a record has of these by `extra` stays.

    >>> import logging
    >>> handler = logging.StreamHandler()
    >>> handler.addFilter(AttemptFilter())
    >>> handler.setFormatter(logging.Formatter("%(levelname)s job=%(job_id)s %(message)s"))
    """

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        """Complete the record, and let it pass."""
        claimed = find_claimed()
        for ours, name in _NAMES.items():
            record.__dict__.setdefault(name, getattr(claimed, ours, None))
        return True


_FILTER = AttemptFilter()
# Whether the handlers of loggers other than the root logger have got the filter in this process.
_has_looked = False


def log_attempt(claimed: Claimed) -> AbstractContextManager[object]:
    """Let the records of the attempt that begins tell of it: those of structlog inside the returned block."""
    global _has_looked
    if not _has_looked:
        _has_looked = True
        for logger in list(logging.root.manager.loggerDict.values()):
            _complete(getattr(logger, "handlers", ()))
    _complete(logging.root.handlers)
    structlog: Any = sys.modules.get("structlog")
    if structlog is None:
        return _NOTHING
    facts = {name: getattr(claimed, ours) for ours, name in _NAMES.items()}
    bound: AbstractContextManager[object] = structlog.contextvars.bound_contextvars(**facts)
    return bound


def _complete(handlers: Iterable[logging.Handler]) -> None:
    for handler in handlers:
        if _FILTER not in handler.filters:
            handler.addFilter(_FILTER)
