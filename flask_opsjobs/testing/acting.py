"""Acts as another person, in the place of a host's access policy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from ..web.app.access import PERMISSIONS

ALL = frozenset({*PERMISSIONS, "bridge.view"})


@dataclass(frozen=True)
class Acting:
    """An access policy: `actor` is signed in, nobody when it is None, and has these permissions."""

    actor: str | None
    permissions: frozenset[str]

    def current_actor(self) -> str | None:
        """The name that the test chose."""
        return self.actor

    def can(self, actor: str, permission: str, subject: str | None = None) -> bool:  # noqa: ARG002
        """Whether the test gave this permission; on which subject is all the same."""
        return permission in self.permissions


def act_as(actor: str | None, permissions: Iterable[str]) -> Acting:
    """The policy. Raises `ValueError` when a permission does not exist."""
    given = frozenset([permissions] if isinstance(permissions, str) else permissions)
    for unknown in sorted(given - ALL):
        close = get_close_matches(unknown, ALL, n=1)
        hint = f"did you mean {close[0]}?" if close else "docs/access.md lists them"
        raise ValueError(f"there is no permission {unknown!r}: {hint}")
    return Acting(actor, given)
