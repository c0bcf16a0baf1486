"""Asks the host's access policy on every request; a policy that fails to answer means no."""

from __future__ import annotations

import logging

from flask import g, request

from ...jobs.search import ids as search_ids
from ...limits.actions import make_target
from ...policy import raised
from ..limiters import partition as _partition
from . import back as _back
from . import problems as _problems
from .host import host

_log = logging.getLogger("flask_opsjobs")

# Asked apart from any URL: without it arguments, outputs, errors, tracebacks and logs stay hidden.
PAYLOAD = "payload.view"


def actor() -> str | None:
    """Who is signed in, asked once in a request; None also when the policy raises."""
    if "opsjobs_actor" not in g:
        try:
            said = host().access.current_actor()
            # A name, or nobody: whatever else a policy answers would stand in no log and no audit.
            is_name = isinstance(said, str) and bool(said.strip()) and said.isprintable()
            if said is not None and not is_name:
                _log.error("the access policy's current_actor answered no name (%s): denied", said)
            g.opsjobs_actor = said if is_name else None
        except Exception as error:
            _note_failure("current_actor", error)
            g.opsjobs_actor = None
    found: str | None = g.opsjobs_actor
    return found


def may(permission: str, subject: str | None = None) -> bool:
    """Whether who is signed in holds `permission`, on `subject` or at all; no when the policy raises."""
    who = actor()
    return who is not None and holds(who, permission, subject)


def holds(who: str, permission: str, subject: str | None) -> bool:
    """The same of an actor who was asked for before, since an export goes on after its request has ended."""
    try:
        return host().access.can(who, permission, subject) is True
    except Exception as error:
        _note_failure(permission, error)
        return False


def _note_failure(asked: str, error: Exception) -> None:
    if "opsjobs_access_failed" not in g:  # once a request will do: a page asks for many permissions
        _log.error("the access policy raised on %s: denied (%s)", asked, raised(error))
    g.opsjobs_access_failed = True


def require_access(permission: str | None) -> None:
    """Let the request pass, or raise the `Problem` that names what is missing.

    A URL about one job is asked with that job as its subject. Denials go to the log.
    """
    if actor() is None:
        raise _problems.not_signed_in(permission, _back.sign_in())
    if permission is not None:
        require(permission, subject())


def require(permission: str, *subjects: str | None) -> None:
    """Return when `permission` is held on one of these subjects; else log the denial and raise its `Problem`."""
    if not any(may(permission, one) for one in subjects):
        _log.warning("%s was denied %s on %s", actor(), permission, request.path)
        raise _problems.denied(permission)


def subject() -> str | None:
    """What the current URL is about, as the policy is told: `job/42`, `queue/mail`; None for a list."""
    arguments = request.view_args or {}
    if "job_id" in arguments:
        # As the page reads it, so that /jobs/01 is asked about as the job that it shows.
        job_id = search_ids.read_own(arguments["job_id"])
        return f"job/{arguments['job_id'] if job_id is None else job_id}"
    if "limiter" in arguments:
        return make_target(arguments["limiter"], _partition.asked())
    if "name" not in arguments:
        return None
    # `opsjobs.queue_pause` is about a queue, `opsjobs.cron_entry_live` about a cron entry.
    domain = (request.endpoint or "").partition(".")[2].partition("_")[0]
    return f"{domain}/{arguments['name']}"


def may_see_partition(limiter: str | None, partition: str | None) -> bool:
    """Whether the partition of a job on the current page may be named: it is a value of the job's arguments."""
    if limiter is None or not partition:
        return True
    return may_see_payload() or may("limiters.view", make_target(limiter, partition))


def may_see_payload(*targets: str) -> bool:
    """Whether payload may be shown: of each of these targets, or of what the current URL is about."""
    return all(may(PAYLOAD, one) for one in targets or (subject(),))
