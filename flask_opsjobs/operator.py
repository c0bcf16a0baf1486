"""The one door for operator changes: pages, commands and Python all pass it, and nothing else writes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .actions.shapes import Plan, Preview, Receipt
from .host import Host


class Operator:
    """An operator's changes on one app. `opsjobs.operator` is one."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def plan(
        self,
        action: str,
        targets: Iterable[str],
        *,
        actor: str,
        params: Mapping[str, Any] | None = None,
        authorize: bool = True,
    ) -> Plan:
        """What the action would do now. Writes nothing."""
        raise NotImplementedError

    def preview(
        self,
        action: str,
        targets: Iterable[str],
        *,
        actor: str,
        via: str,
        params: Mapping[str, Any] | None = None,
        authorize: bool = True,
    ) -> Preview:
        """A plan that the actor may execute within fifteen minutes."""
        raise NotImplementedError

    def execute(
        self,
        preview_id: int,
        token: str,
        *,
        actor: str,
        reason: str,
        request_id: str | None = None,
        via: str = "page",
        authorize: bool = True,
    ) -> Receipt:
        """Carry a preview out, or say why not."""
        raise NotImplementedError

    def run(
        self,
        action: str,
        targets: Iterable[str],
        *,
        actor: str,
        reason: str,
        via: str = "python",
        params: Mapping[str, Any] | None = None,
        authorize: bool = True,
        request_id: str | None = None,
    ) -> Receipt:
        """Plan and carry out at once."""
        raise NotImplementedError
