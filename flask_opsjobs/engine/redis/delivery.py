"""Names deliveries, `opsjobs-<id>-<dispatch_no>`: what RQ gets of a job, without its arguments."""

from __future__ import annotations

import re
from dataclasses import dataclass

PREFIX = "opsjobs-"
# What RQ calls. An OpsWorker never does: it reads the id and performs the job itself.
FUNCTION = "flask_opsjobs.engine.worker.plain_worker.perform_delivery"
_ID = re.compile(r"opsjobs-([0-9]{1,19})-([0-9]{1,19})")
# What a bigint holds: whoever may write to Redis may name a job that Postgres cannot be asked about.
_LARGEST = 2**63 - 1


@dataclass(frozen=True)
class Delivery:
    """What RQ is told of a job: never its arguments, which would have to be unpickled and would be on screen."""

    id: int
    dispatch_no: int
    queue: str
    task: str
    priority: int
    timeout_seconds: int | None

    @property
    def rq_id(self) -> str:
        """The id of the RQ job."""
        return rq_id(self.id, self.dispatch_no)


def rq_id(job_id: int, dispatch_no: int) -> str:
    """The RQ id of a delivery."""
    return f"{PREFIX}{job_id}-{dispatch_no}"


def parse(text: str) -> tuple[int, int] | None:
    """The (job id, dispatch number) in an RQ id; None when the delivery is not ours."""
    match = _ID.fullmatch(text)
    found = (int(match[1]), int(match[2])) if match else None
    # Written in one way only: opsjobs-007-1 is somebody else's.
    return found if found and max(found) <= _LARGEST and rq_id(*found) == text else None
