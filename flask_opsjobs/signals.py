"""Sends the signals that a host may connect to. An exception of a receiver is logged and changes nothing."""

import logging
from typing import Any

from blinker import NamedSignal, Namespace

_log = logging.getLogger("flask_opsjobs")
_signals = Namespace()

job_enqueued = _signals.signal(
    "job-enqueued", doc="A job was enqueued; sent inside the host's transaction."
)
worker_missing = _signals.signal(
    "worker-missing", doc="A worker stopped sending heartbeats and counts as missing."
)

loops_silent = _signals.signal(
    "loops-silent",
    doc="A worker found that no loop has made a pass for a minute; sent in the worker.",
)

incident_opened = _signals.signal(
    "incident-opened", doc="A detector found something wrong that was not known before."
)
incident_reopened = _signals.signal(
    "incident-reopened", doc="Something that was over was found again: its next episode began."
)
incident_resolved = _signals.signal(
    "incident-resolved",
    doc="An incident is over: it was cleared, given up, or resolved by a person.",
)
escalation_ended = _signals.signal(
    "escalation-ended",
    doc="The escalation policy was called and returned, or still failed after the last attempt.",
)


def send(signal: NamedSignal, sender: Any, **facts: Any) -> None:
    """Send to every receiver, also after one has raised an exception."""
    for receiver in signal.receivers_for(sender):
        try:
            receiver(sender, **facts)
        except Exception:
            _log.exception("a receiver of the signal %s raised", signal.name)
