"""Finds the reason why a batch has not ended that lies in the batch itself: nobody has closed it."""

from __future__ import annotations

from collections.abc import Iterator

from ..explain.evidence import BatchEvidence
from ..explain.reason_kinds import Reason, as_text


def batch_open(evidence: BatchEvidence) -> Iterator[Reason]:
    """The application has opened it, and has not closed it."""
    batch, last = evidence.batch, evidence.last_added_at
    if batch.state != "open":
        return
    yield Reason(
        code="batch_open",
        says="The application has opened it, and has not closed it yet: members may still be added.",
        read={
            "members": f"{batch.enqueued:,}",
            "last_added": "never" if last is None else as_text(last),
        },
        source="host",
        read_at=evidence.now,
        todo=f"Close it in your code with `opsjobs.batch(id={batch.id}).close()`,"
        " or close it here when no member is to come.",
        action="batch.close",
        target=f"batch/{batch.id}",
        since=batch.created_at,
    )
