"""Retries attempts and ends jobs: the only place that does, and it tells all that wait for an end."""

from .after_end import Ended
from .transitions import Ending, cancel, discard, expire, record, refuse, rescue, stop

__all__ = ["Ended", "Ending", "cancel", "discard", "expire", "record", "refuse", "rescue", "stop"]
