"""Schema version 24: the trace context in which a job was enqueued, as W3C Trace Context writes it."""

from __future__ import annotations

from typing import Any

INDEXES: dict[str, tuple[str, str]] = {}


def upgrade(op: Any) -> None:
    """Add the columns. They are empty, so no row is rewritten."""
    op.execute("ALTER TABLE opsjobs.jobs ADD COLUMN traceparent text, ADD COLUMN tracestate text")


def downgrade(op: Any) -> None:
    """Take away the columns."""
    op.execute("ALTER TABLE opsjobs.jobs DROP COLUMN traceparent, DROP COLUMN tracestate")
