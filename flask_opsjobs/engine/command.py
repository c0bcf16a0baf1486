"""A word to a worker over RQ's command channel: beat now. It hurries what the next beat would find anyway."""

from __future__ import annotations

import json
import logging
from typing import Any

from redis import RedisError
from rq.command import send_command

from .broker import Broker

_log = logging.getLogger("flask_opsjobs.dispatch")
# RQ's workers ignore a command that they do not know.
_BEAT = "opsjobs-beat"


def hurry(broker: Broker, queue: str, worker: str) -> None:
    """Ask the worker to beat now. Raises `RedisError`; whoever does not listen hears nothing."""
    send_command(broker.queue(queue, quick=True).connection, worker, _BEAT)


def is_hurry(message: Any) -> bool:
    """Whether a message of the channel is that word."""
    try:
        return bool(json.loads(message["data"])["command"] == _BEAT)
    except (ValueError, TypeError, KeyError):
        return False


def hurry_quietly(broker: Broker, queue: str, worker: str) -> None:
    """The same, when its next beat does as well."""
    try:
        hurry(broker, queue, worker)
    except RedisError as error:
        _log.info("worker %s was not hurried (%s)", worker, type(error).__name__)
