"""A word to an executor over RQ's command channel: beat now. It hurries what the next beat would find anyway."""

from __future__ import annotations

import json
from typing import Any

from rq.command import send_command

from .broker import Broker

# RQ's workers ignore a command that they do not know.
_BEAT = "opsjobs-beat"


def hurry(broker: Broker, queue: str, executor: str) -> None:
    """Ask the executor to beat now. Raises `RedisError`; whoever does not listen hears nothing."""
    send_command(broker.queue(queue, quick=True).connection, executor, _BEAT)


def is_hurry(message: Any) -> bool:
    """Whether a message of the channel is that word."""
    try:
        return bool(json.loads(message["data"])["command"] == _BEAT)
    except (ValueError, TypeError, KeyError):
        return False
