"""Tells whether Linux killed a process of this cgroup because memory ran out."""

from __future__ import annotations

from pathlib import Path


class OutOfMemory:
    """Compares the cgroup's `oom_kill` count with its value when this object was made."""

    def __init__(self) -> None:
        self._before = _count()

    def has_killed(self) -> bool:
        """Return whether the count has grown since then; False where there is no count to read."""
        now = _count()
        return now is not None and self._before is not None and now > self._before


def _count() -> int | None:
    try:
        place = Path("/proc/self/cgroup").read_text().rsplit("::", 1)[-1].strip()
        events = Path("/sys/fs/cgroup", place.lstrip("/"), "memory.events").read_text()
    except (OSError, IndexError):
        return None
    counts = dict(line.split() for line in events.splitlines() if " " in line)
    return int(counts["oom_kill"]) if "oom_kill" in counts else None
