"""Ends jobs. Every final arrow passes here, and everything that waits for the end is told here."""

from .transitions import Ended, Ending, cancel, discard, expire, record, refuse, rescue, stop

__all__ = ["Ended", "Ending", "cancel", "discard", "expire", "record", "refuse", "rescue", "stop"]
