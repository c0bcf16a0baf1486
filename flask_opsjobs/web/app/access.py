"""Decides whether a request is allowed, by the host's access policy and by its origin.

When the policy raises, the request is denied. A write is accepted only from one of our own pages.
"""

from __future__ import annotations

import logging

from flask import g, request

from ... import policy
from ...actions.registry import ACTIONS, DOMAINS
from ...forensics.registry import KINDS
from ...limits.actions import make_target
from . import links, problems, references
from .host import host
from .shell import NAVIGATION, NavigationItem

_log = logging.getLogger("flask_opsjobs")

# Parts of pages need this permission, but no URL does. Without it arguments, outputs, errors, tracebacks
# and logs stay hidden.
PAYLOAD = "payload.view"
# The pages of operations and of the doctor have no entry in the navigation: Lifeline leads to them.
OPERATIONS = "operations.view"
DOCTOR = "doctor.view"
# All that the access policy is asked for.
PERMISSIONS = (
    *(item.permission for item in NAVIGATION),
    OPERATIONS,
    DOCTOR,
    PAYLOAD,
    *dict.fromkeys(action.permission for action in ACTIONS.values()),
)


# What an id in an address names.
_BY_ID = ("job", "workflow", "batch", "incident", "failure", "operation")


def actor() -> str | None:
    """The name of the person who is signed in; None when nobody is, or when the policy raises.

    The policy is asked once per request.
    """
    if "opsjobs_actor" not in g:
        g.opsjobs_actor = policy.find_actor(host().access, _note_failure)
    found: str | None = g.opsjobs_actor
    return found


def may(permission: str, subject: str | None = None) -> bool:
    """Whether the current actor holds `permission` on `subject`, or in general when `subject` is None.

    False when nobody is signed in, and when the policy raises.
    """
    who = actor()
    return who is not None and holds(who, permission, subject)


def list_navigation() -> list[NavigationItem]:
    """The entries of the navigation that this app has and the current actor may open."""
    is_mounted = host().bridge.is_mounted
    return [
        entry
        for entry in NAVIGATION
        if may(entry.permission) and (is_mounted or entry.endpoint != "rq")
    ]


def holds(who: str, permission: str, subject: str | None) -> bool:
    """Whether `who` holds it. For an export, which goes on after its request has ended."""
    return policy.is_allowed(host().access, who, permission, subject, _note_failure)


def _note_failure(asked: str, error: Exception) -> None:
    if "opsjobs_access_failed" not in g:  # log once per request: a page asks for many permissions
        _log.error(
            "the access policy raised on %s: denied (%s)", asked, policy.describe_failure(error)
        )
    g.opsjobs_access_failed = True


def require_access(permission: str | None) -> None:
    """Raise the `Problem` that names what is missing, unless the request is allowed.

    For a URL about one job the policy gets that job as the subject. Denials are logged.
    """
    if actor() is None:
        raise problems.not_signed_in(permission, links.sign_in(), _find_sign_in())
    if permission is not None:
        require(permission, subject())


def _find_sign_in() -> str | None:
    """Where the policy sends people to sign in. None too when it failed, or names one of our own pages.

    Such an answer could lead people who are signed in from page to page without an end.
    """
    if "opsjobs_access_failed" in g:
        return None
    address = policy.find_sign_in(host().access, links.find_return(), _note_failure)
    if address is not None and links.is_below_root(address):
        _log.error("the access policy's sign_in_url answered one of our own pages: %s", address)
        return None
    return address


def require(permission: str, *subjects: str | None) -> None:
    """Log the denial and raise its `Problem`, unless the actor holds `permission` on one subject."""
    if not any(may(permission, one) for one in subjects):
        _log.warning("%s was denied %s on %s", actor(), permission, request.path)
        raise problems.denied(permission)


def subject() -> str | None:
    """The subject of the current URL, as the policy gets it: `job/42`, `queue/mail`; None for a list."""
    arguments = request.view_args or {}
    for kind in _BY_ID:
        if f"{kind}_id" in arguments:
            # Read the id as the page does, so that the policy checks /jobs/01 as job 1.
            target = f"{kind}/{arguments[f'{kind}_id']}"
            return DOMAINS[kind].read_target(target) or target
    if "kind" in arguments:
        told = KINDS.get(arguments["kind"])
        key = told.read_key(arguments["key"]) if told else None
        return f"{arguments['kind']}/{arguments['key'] if key is None else key}"
    if "limiter" in arguments:
        return make_target(arguments["limiter"], references.asked_partition())
    if "name" not in arguments:
        return None
    # The endpoint `opsjobs.queue_pause` has the domain `queue`, `opsjobs.cron_entry_live` has `cron`.
    domain = (request.endpoint or "").partition(".")[2].partition("_")[0]
    return f"{domain}/{arguments['name']}"


def may_see_partition(limiter: str | None, partition: str | None) -> bool:
    """Whether the current page may name a job's partition, which is a value of the job's arguments."""
    if limiter is None or not partition:
        return True
    return may_see_payload() or may("limiters.view", make_target(limiter, partition))


def may_see_payload(*targets: str) -> bool:
    """Whether the actor may see payload of all `targets`; without targets, of the current URL's subject."""
    return all(may(PAYLOAD, one) for one in targets or (subject(),))


def require_same_origin() -> None:
    """Raise the 403 `Problem` unless the write has the same origin.

    Browsers send `Sec-Fetch-Site`, older ones `Origin`. A write with neither is refused.
    """
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    is_ours = site == "same-origin" if site else origin == request.host_url.rstrip("/")
    if not is_ours:
        raise problems.cross_site()


def refuse_cross_site_file() -> None:
    """Raise the 403 `Problem` when the browser says that another site's page requests the export.

    An export is expensive: a page of any site could make its visitors request it again and again.
    """
    if request.headers.get("Sec-Fetch-Site") == "cross-site":
        raise problems.cross_site_file()
