"""The two questions that only the host can answer: who may do this, and what may be shown."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class AccessPolicy(Protocol):
    """Who is asking, and may they. Asked on every request; an exception means no."""

    def current_actor(self) -> str | None:
        """A stable name of the signed-in operator, such as a login; None when nobody is signed in."""
        ...

    def can(self, actor: str, permission: str, subject: str | None = None) -> bool:
        """Whether `actor` holds `permission` (`jobs.view`, `job.retry`, …) on `subject` (`job/42`) or at all."""
        ...


@runtime_checkable
class DisplayPolicy(Protocol):
    """What of a job may be shown, exported or sent. An exception hides the value."""

    def is_hidden_key(self, key: str) -> bool:
        """Whether the value under this key of arguments, output or meta must not be shown."""
        ...

    def clean_text(self, text: str) -> str:
        """The text (an error, a traceback, a log line, a value) with its secrets replaced."""
        ...


def missing(policy: Any, protocol: type) -> list[str]:
    """The methods of `protocol` that `policy` lacks; empty when it will do."""
    wanted = [name for name in vars(protocol) if not name.startswith("_")]
    return [name for name in wanted if not callable(getattr(policy, name, None))]
