"""The clock that a test moves; loops and transitions take its time as an argument."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class Clock:
    """Starts at the real time, then stands still until moved: `clock.forward(minutes=5)`."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def forward(self, **duration: float) -> datetime:
        """The new time, later by `duration`, which takes the words of `timedelta`."""
        self.now += timedelta(**duration)
        return self.now

    def back(self, **duration: float) -> datetime:
        """The new time, earlier by `duration`: a clock that was stepped back."""
        return self.forward(**{unit: -amount for unit, amount in duration.items()})
