"""Reads the ids that people paste: the id of a job, or the RQ id of one of its deliveries."""

from __future__ import annotations

import re

_OWN = re.compile(r"[0-9]{1,19}")
_RQ = re.compile(r"opsjobs-([0-9]{1,19})-[0-9]{1,19}")


def read_own(text: str) -> int | None:
    """The id of a job; None when the text cannot be one."""
    return int(text) if _OWN.fullmatch(text) and int(text) < 2**63 else None


def read_job_id(text: str) -> int | None:
    """The id of a job, from its id or from the RQ id of one of its deliveries; None for any other text."""
    delivery = _RQ.fullmatch(text)
    return read_own(delivery[1] if delivery else text)
