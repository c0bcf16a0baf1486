"""Finds the reasons in a batch itself why it has not ended: it is open, or nobody counts its members."""

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
        " or close it here if no more members will come.",
        action="batch.close",
        target=f"batch/{batch.id}",
        since=batch.created_at,
    )


def fold_silent(evidence: BatchEvidence) -> Iterator[Reason]:
    """The loop that counts its members did not run."""
    fold = evidence.fold
    if evidence.batch.is_final or (fold is not None and fold.is_running):
        return
    yield Reason(
        code="loop_silent",
        says="The loop fold is not running, so the counts are old."
        " Only a worker that ends the last member counts too.",
        read={"loop": "fold", "last_ran": "never" if fold is None else as_text(fold.last_at)},
        source="inferred",
        read_at=evidence.now,
        todo="Start the loops with `flask opsjobs run`.",
        since=None if fold is None else fold.last_at,
    )
