"""Ends jobs: the only place that moves them to a final state and notifies all that wait for the end."""

from .after_end import Ended
from .transitions import Ending, cancel, discard, expire, record, refuse, rescue, stop

__all__ = ["Ended", "Ending", "cancel", "discard", "expire", "record", "refuse", "rescue", "stop"]
