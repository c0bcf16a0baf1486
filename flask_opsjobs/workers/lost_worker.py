"""Says what is known of a worker that has ended or is unknown, and which of its jobs it cannot run any more.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from .lifecycle import ENDED


@dataclass(frozen=True)
class LostWorker:
    """A worker that still has jobs, and has ended or is unknown (then without name, kind and state)."""

    worker_id: int
    name: str | None
    kind: str | None
    state: str | None
    heartbeat_at: datetime | None
    ended_at: datetime | None

    @property
    def is_lost(self) -> bool:
        """Whether it has ended or is unknown."""
        return self.state is None or self.state in ENDED

    @property
    def cause(self) -> str:
        """The cause to record for the end of its jobs' attempts."""
        if self.name is None:
            return f"its worker {self.worker_id} is unknown"
        if self.state == "stopped":
            return f"its worker {self.name} stopped before the job ended"
        if self.kind == "plain":
            return f"worker vanished: RQ's key of {self.name} is gone"
        assert self.heartbeat_at is not None
        last = f"{self.heartbeat_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
        return f"worker vanished: no heartbeat after {last}"

    def lost_claims_before(
        self, last_claim_at: datetime | None, now: datetime, missing_seconds: float
    ) -> datetime:
        """The time before which its claims may be rescued: its end or `missing_seconds` ago, the later.

        Newer claims are left alone: a frozen worker that goes on may claim just before its heartbeat makes it
        alive.
        """
        if last_claim_at is not None and last_claim_at >= now:
            # Made before the clock was stepped back: its time cannot be compared with others.
            return last_claim_at + timedelta(microseconds=1)
        long_ago = now - timedelta(seconds=missing_seconds)
        return long_ago if self.ended_at is None else max(self.ended_at, long_ago)

    def lost_reservations_before(self, now: datetime, missing_seconds: float) -> datetime:
        """The time before which its reservations may be taken back.

        A worker that seems missing may have lost only its heartbeats: it can begin a job until a quarter of
        `missing_seconds` after it took the job.
        """
        return now if self.state == "stopped" else now - timedelta(seconds=missing_seconds / 4)
