"""The entries of the navigation, in its order: only pages that exist."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A line of the navigation, shown to those who hold its permission. `g` and then `key` lead there."""

    endpoint: str
    label: str
    permission: str
    key: str

    @property
    def icon(self) -> str:
        """The symbol in the sprite."""
        return f"i-{self.endpoint}"


NAVIGATION = (
    Entry("overview", "Overview", "overview.view", "o"),
    Entry("jobs", "Jobs", "jobs.view", "j"),
    Entry("queues", "Queues", "queues.view", "q"),
    Entry("workers", "Workers", "workers.view", "w"),
    Entry("cron", "Cron", "cron.view", "c"),
    Entry("audit", "Audit", "audit.view", "a"),
)
