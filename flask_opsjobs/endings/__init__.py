"""A job ended: the one place that every final arrow passes, whoever causes it, and that tells all who wait for it."""

from .transitions import Ended, Ending, cancel, discard, expire, record, refuse, rescue, stop

__all__ = ["Ended", "Ending", "cancel", "discard", "expire", "record", "refuse", "rescue", "stop"]
