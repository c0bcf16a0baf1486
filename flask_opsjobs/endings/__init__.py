"""Retries attempts and ends jobs: the only place that does, and it tells all that wait for an end."""

from .after_end import EndedAttempt, MovedJob
from .events import send_recalls
from .transitions import (
    NOT_RUN_BY_WORKER,
    WORKER_STOPPED,
    cancel,
    count_failed_deliveries,
    discard,
    expire,
    finish,
    give_back,
    receive,
    rescue,
    rescue_lost,
    rescue_reserved,
    skip,
    stop,
    write_outcomes,
)

__all__ = [
    "NOT_RUN_BY_WORKER",
    "WORKER_STOPPED",
    "EndedAttempt",
    "MovedJob",
    "cancel",
    "count_failed_deliveries",
    "discard",
    "expire",
    "finish",
    "give_back",
    "receive",
    "rescue",
    "rescue_lost",
    "rescue_reserved",
    "send_recalls",
    "skip",
    "stop",
    "write_outcomes",
]
