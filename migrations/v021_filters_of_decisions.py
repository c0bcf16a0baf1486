"""Schema version 21: indexes to find decisions by time and by request, and which page a saved view is of."""

from __future__ import annotations

from typing import Any

# name: (what it indexes, the query it is for), as in version 1.
INDEXES = {
    "audit_by_time": ("audit_events (at, sequence)", "audit: decisions of a range of time"),
    "audit_by_request": (
        "audit_events (request_id, sequence)",
        "audit: decisions of one request",
    ),
}


def upgrade(op: Any) -> None:
    """Add the column. A person may give the same name to a view of each page."""
    op.execute("ALTER TABLE opsjobs.saved_views ADD COLUMN page text DEFAULT 'jobs' NOT NULL")
    op.execute(
        "ALTER TABLE opsjobs.saved_views ADD CONSTRAINT saved_views_page_check"
        " CHECK (page IN ('jobs', 'audit'))"
    )
    op.execute(
        "ALTER TABLE opsjobs.saved_views DROP CONSTRAINT saved_views_owner_name_key,"
        " ADD CONSTRAINT saved_views_owner_page_name_key UNIQUE (owner, page, name)"
    )


def downgrade(op: Any) -> None:
    """Take away the column with the views of other pages, and the indexes."""
    op.execute("DELETE FROM opsjobs.saved_views WHERE page <> 'jobs'")
    op.execute(
        "ALTER TABLE opsjobs.saved_views DROP CONSTRAINT saved_views_owner_page_name_key,"
        " ADD CONSTRAINT saved_views_owner_name_key UNIQUE (owner, name)"
    )
    op.execute("ALTER TABLE opsjobs.saved_views DROP COLUMN page")
    for index in INDEXES:
        op.execute(f"DROP INDEX opsjobs.{index}")
