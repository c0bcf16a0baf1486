"""Tells seconds that are never stepped, and that go on while the machine is suspended."""

from __future__ import annotations

import time

# Other machines may rescue the jobs of a suspended one. On Linux only CLOCK_BOOTTIME goes on meanwhile. Other
# systems lack it, and their CLOCK_MONOTONIC does.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def steady_seconds() -> float:
    """Return seconds since the boot of the machine, the same in all its processes."""
    return time.clock_gettime(_CLOCK)
