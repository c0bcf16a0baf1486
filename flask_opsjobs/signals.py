"""Signals a host may connect to; a receiver that raises is logged and changes nothing."""

import logging
from typing import Any

from blinker import NamedSignal, Namespace

_log = logging.getLogger("flask_opsjobs")
_signals = Namespace()

job_enqueued = _signals.signal(
    "job-enqueued", doc="A job was enqueued; sent inside the host's transaction."
)
worker_missing = _signals.signal("worker-missing", doc="A watcher gave a worker up.")


def send(signal: NamedSignal, sender: Any, **facts: Any) -> None:
    """Send to every receiver, whatever another one raises."""
    for receiver in signal.receivers_for(sender):
        try:
            receiver(sender, **facts)
        except Exception:
            _log.exception("a receiver of the signal %s raised", signal.name)
