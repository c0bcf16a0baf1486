"""Asks a worker over RQ's command channel for a heartbeat at once: the next one would find the same, but later."""

from __future__ import annotations

import json
import logging
from typing import Any

from redis import RedisError
from rq.command import send_command

from .broker import Broker

_log = logging.getLogger("flask_opsjobs.dispatch")
# RQ's workers ignore a command that they do not know.
_COMMAND = "opsjobs-heartbeat"


def request_beat(broker: Broker, queue: str, worker: str) -> None:
    """Ask the worker for a heartbeat now. Raises `RedisError`; a worker that does not listen misses it."""
    send_command(broker.queue(queue, quick=True).connection, worker, _COMMAND)


def is_beat_request(message: Any) -> bool:
    """Whether a message of the channel is this request."""
    try:
        return bool(json.loads(message["data"])["command"] == _COMMAND)
    except (ValueError, TypeError, KeyError):
        return False


def try_request_beat(broker: Broker, queue: str, worker: str) -> None:
    """As `request_beat`, but only logs when Redis does not answer: the next heartbeat does as well."""
    try:
        request_beat(broker, queue, worker)
    except RedisError as error:
        _log.info("worker %s was not asked for a heartbeat (%s)", worker, type(error).__name__)
