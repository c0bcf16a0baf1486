"""A job ended: the one place that every final arrow passes, whoever causes it, and that tells all who wait for it."""

from .transitions import Ended, Ending, expire, record, refuse, rescue

__all__ = ["Ended", "Ending", "expire", "record", "refuse", "rescue"]
