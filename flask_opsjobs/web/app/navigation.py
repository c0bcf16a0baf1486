"""Lists the entries of the navigation, in its order: only pages that exist."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NavigationItem:
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
    NavigationItem("overview", "Overview", "overview.view", "o"),
    NavigationItem("jobs", "Jobs", "jobs.view", "j"),
    NavigationItem("queues", "Queues", "queues.view", "q"),
    NavigationItem("workers", "Workers", "workers.view", "w"),
    NavigationItem("cron", "Cron", "cron.view", "c"),
    NavigationItem("limiters", "Limiters", "limiters.view", "l"),
    NavigationItem("audit", "Audit", "audit.view", "a"),
)
