"""Reads the ids that people paste: a job's own, and that of its delivery in RQ."""

from __future__ import annotations

import re

_OWN = re.compile(r"[0-9]{1,19}")
_RQ = re.compile(r"opsjobs-([0-9]{1,19})-[0-9]{1,19}")


def read_own(text: str) -> int | None:
    """The id of a job; None for anything that no job can have."""
    return int(text) if _OWN.fullmatch(text) and int(text) < 2**63 else None


def read_job_id(text: str) -> int | None:
    """The id of the job that is meant, by its own id or by that of one of its deliveries."""
    delivery = _RQ.fullmatch(text)
    return read_own(delivery[1] if delivery else text)
