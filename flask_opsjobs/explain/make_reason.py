"""Makes a reason: takes its action and target from its kind, and writes times as text."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ..core.words import moment
from .evidence import Evidence
from .reason_kinds import REASON_KINDS
from .shapes import Reason

_KINDS = {kind.code: kind for kind in REASON_KINDS}


def make_reason(
    evidence: Evidence, code: str, says: str, todo: str, *, source: str, read: dict[str, Any],
    target: str | None = None, **more: Any,
) -> Reason:  # fmt: skip
    """The reason with this code, as of the time of `evidence`. Values of `read` that are None are left out.

    The target of its action is `target`, or by default the job or its queue.
    """
    action = _KINDS[code].action
    about = (
        f"job/{evidence.job.id}"
        if (action or "").startswith("job.")
        else f"queue/{evidence.job.queue}"
    )
    return Reason(
        code=code,
        says=says,
        read={name: as_text(value) for name, value in read.items() if value is not None},
        source=source,
        read_at=evidence.now,
        todo=todo,
        action=action,
        target=(target or about) if action else None,
        passes=_KINDS[code].passes,
        **more,
    )


def as_text(value: Any) -> str:
    """A value as text: a time in UTC, a flag as yes or no, anything else by `str`."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return moment(value)
    return str(value)
