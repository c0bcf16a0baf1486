"""Making a reason out of what was seen: its action and target by its cause, its times as text."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from .causes import CAUSES
from .seen import Seen
from .shapes import Reason

_CAUSES = {cause.code: cause for cause in CAUSES}


def make_reason(
    seen: Seen, code: str, says: str, todo: str, *, witness: str, read: dict[str, Any],
    target: str | None = None, **more: Any,
) -> Reason:  # fmt: skip
    """A reason of this code, as of when `seen` was read. What of `read` is None is left out.

    Its action is about `target`, else about the job or its queue.
    """
    action = _CAUSES[code].action
    about = f"job/{seen.job.id}" if (action or "").startswith("job.") else f"queue/{seen.job.queue}"
    return Reason(
        code=code,
        says=says,
        read={name: as_text(value) for name, value in read.items() if value is not None},
        witness=witness,
        read_at=seen.now,
        todo=todo,
        action=action,
        target=(target or about) if action else None,
        passes=_CAUSES[code].passes,
        **more,
    )


def as_text(value: Any) -> str:
    """A value as evidence: a time in UTC, yes or no, anything else in its own words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    return str(value)


def count(number: int, thing: str) -> str:
    """`3 workers`: a number and its noun."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
