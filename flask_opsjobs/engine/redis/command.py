"""Asks a worker over RQ's command channel to send its next heartbeat now, so that it learns news sooner."""

from __future__ import annotations

import json
import logging
from typing import Any

from redis import RedisError
from rq.command import send_command

from .broker import Broker

_log = logging.getLogger("flask_opsjobs.dispatch")
# Plain RQ workers ignore commands that they do not know.
_COMMAND = "opsjobs-heartbeat"


def request_beat(broker: Broker, queue: str, worker: str) -> None:
    """Ask the worker for a heartbeat now. Raises `RedisError`. A worker that is not subscribed misses it."""
    send_command(broker.queue(queue, quick=True).connection, worker, _COMMAND)


def is_beat_request(message: Any) -> bool:
    """Return whether a message of the channel asks for a heartbeat."""
    try:
        return bool(json.loads(message["data"])["command"] == _COMMAND)
    except (ValueError, TypeError, KeyError):
        return False


def try_request_beat(broker: Broker, queue: str, worker: str) -> None:
    """Call `request_beat`, but only log when Redis does not answer: the regular heartbeat follows anyway."""
    try:
        request_beat(broker, queue, worker)
    except RedisError as error:
        _log.info("worker %s was not asked for a heartbeat (%s)", worker, type(error).__name__)
