"""Finds the subjects that a word may mean: an id, RQ's id, a name, or a subject such as `job/42`."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from ..errors import UnknownSubject
from ..host import Host
from ..jobs.search import terms
from .name_queries import list_named
from .registry import KINDS, read_kind

_LONGEST = 200


def find_subjects(host: Host, session: Session, word: str) -> Sequence[str]:
    """The subjects that the word names, such as `queue/mail`, in the order of the kinds.

    A subject that is written out need not be stored: something may still tell of it. RQ's id of one of our
    deliveries, and a bare number, name a job.
    """
    job_id = terms.read_job_id(word)
    if job_id is not None:
        return [f"job/{job_id}"]
    try:
        kind, key = read_kind(word)
        return [f"{kind.name}/{key}"]
    except UnknownSubject:
        pass
    if not word or "\0" in word or len(word) > _LONGEST:
        return []
    found = list_named(session, word, ["default", *host.settings.rq_redis_urls])
    if word in host.tasks:  # it may have no job yet
        found.add(("task", word))
    return [f"{kind}/{key}" for name in KINDS for kind, key in sorted(found) if kind == name]
