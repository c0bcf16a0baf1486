"""Lists the entries of the navigation, in order."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NavigationItem:
    """An entry of the navigation, shown to people with its permission. Press `g`, then `key`, to open its page."""

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
