"""Builds links: to the page of a target, to the page to go back to, and to the host's sign-in page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

from flask import g, request, url_for

from ...actions.domain import Action, name_in
from ...bridge.instances import list_instances
from ...core.db import LARGEST_ID
from ...forensics.registry import KINDS
from ...forensics.runbooks import find_declared
from ...limits.actions import split_target
from .host import host

# The kinds of targets that an address names by an id of their own, as in `job_id`.
_WITH_ID = ("job", "workflow", "batch", "incident", "failure", "operation")


_LONGEST_QUERY = 4_000


def is_too_long() -> bool:
    """Whether the query string of the current address is longer than any that our pages make."""
    return len(request.query_string) > _LONGEST_QUERY


def root() -> str:
    """The path of our first page, including the prefix that a proxy added. All other pages are below it."""
    return url_for("opsjobs.overview")


def to_endpoint(endpoint: str, **values: Any) -> str:
    """The address of a page by its endpoint, which for RQ's own view is `rq`."""
    blueprint = "opsjobs_bridge" if endpoint == "rq" else "opsjobs"
    return url_for(f"{blueprint}.{endpoint}", **values)


def to_jobs(ids: Iterable[int]) -> dict[int, str]:
    """The addresses of the pages of these jobs, by id.

    One address is made, and each id is put into it: `url_for` would take a tenth of the time of a list.
    """
    before, _, after = url_for("opsjobs.job", job_id=LARGEST_ID).rpartition(str(LARGEST_ID))
    return {job_id: f"{before}{job_id}{after}" for job_id in ids}


def is_rq_json() -> bool:
    """Whether the current request asks for JSON of RQ's own view: its addresses are `…/rq/0/data/…`."""
    if request.blueprint != "opsjobs_bridge":
        return False
    below = request.path.removeprefix(f"{host().settings.url_prefix}/rq")
    return re.match("/[0-9]+/data/", below) is not None


def to_rq(place: str, rq_id: str) -> str | None:
    """The address of a job in RQ's own view, by the name of its Redis; None when that view has it not."""
    if not host().bridge.is_mounted:
        return None
    number = next((one.number for one in list_instances(host()) if one.label == place), None)
    if number is None:
        return None
    return url_for("opsjobs_bridge.job", number=number, rq_id=rq_id)


def to_target(target: str) -> str:
    """The address of a target's page."""
    domain, name = target.partition("/")[0], name_in(target)
    if domain in _WITH_ID:
        return _of_row(domain, domain, name)
    if domain == "worker":
        return url_for("opsjobs.workers")
    if domain in ("lease", "delivery"):  # 42-3 or opsjobs-42-3, of job 42
        return url_for("opsjobs.job", job_id=name.split("-")[-2])
    if domain == "limiter":
        limiter, partition = split_target(target)
        return url_for("opsjobs.limiter", limiter=limiter, partition=partition)
    return url_for("opsjobs.cron_entry" if domain == "cron" else f"opsjobs.{domain}", name=name)


def to_action(action: Action[Any], target: str) -> str:
    """The address to which the button of an action on one target is sent."""
    domain, name = target.partition("/")[0], name_in(target)
    # What is added to a target of another domain, such as a note to a job, is called by its own.
    what = action.short_name if domain == action.domain else action.domain
    if domain in _WITH_ID:
        return _of_row(f"{domain}_{what}", domain, name)
    endpoint = f"opsjobs.{domain}_{what}"
    if domain == "limiter":
        limiter, partition = split_target(target)
        return url_for(endpoint, limiter=limiter, partition=partition)
    return url_for(endpoint, name=name)


def _of_row(endpoint: str, domain: str, id_: str) -> str:
    """The address of a page or an action about one row."""
    values: dict[str, Any] = {f"{domain}_id": id_}
    return url_for(f"opsjobs.{endpoint}", **values)


# The kinds of subjects that have a page of their own beside that of forensics.
_WITH_PAGE = {
    "job",
    "task",
    "queue",
    "worker",
    "workflow",
    "batch",
    "cron",
    "limiter",
    "incident",
    "failure",
    "operation",
}


def to_page(subject: str) -> str | None:
    """The address of a subject's own page; None for one without."""
    return to_target(subject) if subject.partition("/")[0] in _WITH_PAGE else None


def to_forensics(subject: str) -> str:
    """The address of what forensics knows of a subject, such as `job/42`."""
    kind, _, key = subject.partition("/")
    return url_for("opsjobs.forensics_subject", kind=kind, key=key)


def find_forensics(target: str | None) -> str | None:
    """The address of what forensics knows of the target of the current page; None where it knows nothing."""
    if target is None or request.endpoint == "opsjobs.forensics_subject":
        return None
    kind = target.partition("/")[0]
    # A partition is a value of jobs' arguments, and no subject.
    subject = f"limiter/{split_target(target)[0]}" if kind == "limiter" else target
    return to_forensics(subject) if kind in KINDS else None


def runbook_of(subject: str, classes: Sequence[str]) -> tuple[str, str | None] | None:
    """Title and address of the host's runbook of a subject or of classes of incidents; None without one."""
    declared = find_declared(host(), subject, classes)
    return None if declared is None else (declared.title, of_the_host(declared.url))


# The format of an export that stands in a page's *Hand over*.
TICKET = "ticket"


def to_export(subject: str, format: str) -> str:
    """The address of the same as a file, or as a text for a ticket."""
    kind, _, key = subject.partition("/")
    return url_for("opsjobs.forensics_export", kind=kind, key=key, format=format)


def here() -> str:
    """Path and query string of the current request, including the prefix that a proxy added."""
    return _below_host(urlsplit(request.url))


def read_back() -> str:
    """The page to go back to: the request's field `back`, or else its referrer.

    Only pages of ours are accepted, so that nobody is sent to another site. Otherwise the first page.
    """
    back = request.values.get("back") or _referrer()
    return back if is_below_root(back) else root()


def find_return() -> str:
    """The page to return to after signing in: the current one.

    For a fragment, a file or a form that was sent it is the page that requested it.
    """
    if g.get("opsjobs_kind") != "page" or request.method not in ("GET", "HEAD"):
        return read_back()
    return here() if is_below_root(here()) else root()


def _referrer() -> str:
    found = urlsplit(request.referrer or "")
    if f"{found.scheme}://{found.netloc}/" != request.host_url:
        return ""
    return _below_host(found)


def _below_host(url: SplitResult) -> str:
    return url.path + (f"?{url.query}" if url.query else "")


def is_below_root(back: str) -> bool:
    """Whether a path is that of one of our pages."""
    is_below = back == root() or back.startswith((f"{root()}/", f"{root()}?"))
    # A browser resolves dot segments, which could lead out of our pages.
    path = back.partition("?")[0].replace("%2e", ".").replace("%2E", ".")
    return back.isprintable() and is_below and ".." not in path


def sign_in() -> str | None:
    """The host's sign-in page, with `next` set to the page to return to. None without `OPSJOBS_SIGN_IN_URL`.

    `next` is the page to return to.
    """
    address = of_the_host(host().settings.sign_in_url)
    if address is None:
        return None
    return f"{address}{'&' if '?' in address else '?'}next={quote(find_return(), safe='/')}"


def of_the_host(address: str | None) -> str | None:
    """The address of a setting as a link. A path gets the prefix under which the host is mounted."""
    if address is None or not address.startswith("/"):
        return address
    return request.script_root + address
