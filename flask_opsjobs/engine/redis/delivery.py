"""Defines a delivery, the entry in RQ for a job, and its RQ id `opsjobs-<id>-<dispatch_no>`."""

from __future__ import annotations

import re
from dataclasses import dataclass

PREFIX = "opsjobs-"
# The function that a plain RQ worker calls. An OpsWorker reads the id instead, and performs the job itself.
FUNCTION = "flask_opsjobs.engine.worker.plain_worker.perform_delivery"
_ID = re.compile(r"opsjobs-([0-9]{1,19})-([0-9]{1,19})")
# The largest bigint. Any client of Redis can write a larger id, which Postgres would reject.
_LARGEST = 2**63 - 1


@dataclass(frozen=True)
class Delivery:
    """The fields of a job that RQ gets.

    Never its arguments: RQ would unpickle them and show them on screens.
    """

    id: int
    dispatch_no: int
    queue: str
    task: str
    priority: int
    timeout_seconds: int | None

    @property
    def rq_id(self) -> str:
        """Return the id of the RQ job."""
        return rq_id(self.id, self.dispatch_no)


def rq_id(job_id: int, dispatch_no: int) -> str:
    """Return the RQ id of a delivery."""
    return f"{PREFIX}{job_id}-{dispatch_no}"


def parse(text: str) -> tuple[int, int] | None:
    """Return (job id, dispatch number) of an RQ id; None when it is not a delivery of ours."""
    match = _ID.fullmatch(text)
    found = (int(match[1]), int(match[2])) if match else None
    # Only the exact spelling counts: opsjobs-007-1 is not ours.
    return found if found and max(found) <= _LARGEST and rq_id(*found) == text else None
