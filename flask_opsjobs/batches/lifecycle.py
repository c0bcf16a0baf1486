"""Declares the states of a batch, as data."""

from __future__ import annotations

OPEN = ("open", "running")
FINAL = ("finished", "failed", "canceled")
STATES = (*OPEN, *FINAL)

MEANINGS = {
    "open": "members may still be added",
    "running": "it is closed, and members have not ended yet",
    "finished": "all members finished or were canceled one by one",
    "failed": "a member failed",
    "canceled": "it was canceled before all members had ended",
}
