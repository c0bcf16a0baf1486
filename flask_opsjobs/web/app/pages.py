"""Renders documents, their fragments that refresh, and problems, from our own templates."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

from flask import Response, current_app, g, request, url_for
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from werkzeug.urls import iri_to_uri

from ..._folders import folder
from ...actions.registry import ACTIONS
from ...core.round_trips import values_of
from ...jobs.search.filter import PLACES
from ...operations.queries import OpenOperations
from . import access, links
from .commands import find_command
from .display import PageDisplay
from .files import file_url
from .filters import FILTERS, written
from .host import host
from .problems import Problem
from .shell import PREFERENCES, Sources, find_worst, read_preferences, read_sources


@cache
def _environment() -> Environment:
    """A Jinja environment of our own, so that no filter, setting or template of a host changes our pages."""
    environment = Environment(
        loader=FileSystemLoader(folder("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=written,
    )
    environment.filters.update(FILTERS)
    environment.globals.update(
        file_url=file_url,
        url_for=url_for,
        to_endpoint=links.to_endpoint,
        to_target=links.to_target,
        page_subject=access.subject,
        may=_may,
        csrf_field=_csrf_field,
    )
    return environment


def _may(permission: str, subject: str | None = None) -> bool:
    """Whether the actor may use a button: on `subject`, or on the current URL's subject."""
    return access.may(permission, subject or access.subject())


def part(
    template: str, now: datetime, *, display: PageDisplay | None = None, **context: Any
) -> Markup:
    """The HTML of a fragment: `opsjobs/<template>` as of `now`.

    Payload passes `display`; the default follows the actor's permission on the current URL's subject. What
    was started by `start_reading` is waited for, here and in `page` and `document`.
    """
    made = _environment().get_template(f"opsjobs/{template}")
    return Markup(made.render(now=now, display=display or _display(), **values_of(context)))


def fragment(made: Markup, *, says_sources: bool = False) -> Response:
    """A fragment with the ETag of its text, for `polls.py`.

    The list of sources that do not answer is added, unless the fragment shows it itself (`says_sources`).
    """
    text = made + _beside(says_sources)
    response = Response(text, mimetype="text/html")
    response.set_etag(_etag(text))
    return response


def page(
    template: str,
    here: str,
    title: str,
    now: datetime,
    *,
    live: Markup,
    query: Mapping[str, str] = {},
    **context: Any,
) -> Response:
    """A document around the fragment `live`, which the page refreshes from its own address + `/live`.

    `here` is the endpoint of its navigation entry, `query` the part of its query string that the fragment
    needs too. `says_sources` is as in `fragment`.
    """
    values = {**(request.view_args or {}), **query}
    context |= {
        "now": now,
        "display": _display(),
        "here": here,
        "title": title,
        "live": live,
        "live_url": url_for(f"{request.endpoint}_live", **values),
        "forensics_url": links.find_forensics(access.subject()),
        "command": find_command(),
        "ticket_url": _find_ticket(access.subject()),
        "etag": f'"{_etag(live + _beside(context.get("says_sources", False)))}"',
    }
    return Response(_document(template, **context), mimetype="text/html")


def document(
    template: str, here: str, title: str, now: datetime, *, status: int = 200, **context: Any
) -> Response:
    """A document that does not refresh. Its payload passes the display policy."""
    context.setdefault("display", _display())
    if request.method != "GET":
        # A POST has no address to go back to.
        context.setdefault("here_url", links.read_back())
    text = _document(template, here=here, title=title, now=now, **context)
    return Response(text, status=status, mimetype="text/html")


def problem(found: Problem) -> Response:
    """A problem as a document, as a fragment when a script requested a fragment, or as JSON.

    One that leads to another page is a redirect of a page; a script is told to leave its page.
    """
    kind, is_by_script = g.get("opsjobs_kind"), "HX-Request" in request.headers
    is_read = request.method in ("GET", "HEAD")
    leads_to = iri_to_uri(found.leads_to) if found.leads_to and is_read else None
    if leads_to and kind == "page" and not is_by_script:
        return Response(status=303, headers={"Location": leads_to})
    now = datetime.now(UTC)
    context: dict[str, Any] = {"problem": found, "now": now}
    mimetype = "text/html"
    if links.is_rq_json():
        text, mimetype = json.dumps({"error": found.says}), "application/json"
    elif kind == "fragment" or (request.method == "POST" and is_by_script):
        text = _environment().get_template("opsjobs/_problem.html").render(context)
        if found.status == 503 and request.method == "GET":
            # Replaces the contents of an open page, which may be out of date.
            text = f'<div class="stack" id="part">{text}</div>'
    else:
        # A page with a search keeps what was typed, to be corrected, but no place in its list.
        others = ("q", *PLACES, "row")
        context["q"] = request.args.get("q")
        context["fields"] = [
            pair for pair in request.args.items(multi=True) if pair[0] not in others
        ]
        text = _document("problem.html", here="", title=found.title, **context)
    response = Response(text, status=found.status, mimetype=mimetype)
    if found.allow:
        response.headers["Allow"] = found.allow
    if leads_to and kind == "fragment" and is_by_script:
        response.headers["HX-Redirect"] = leads_to
    if found.retry_after:
        response.headers["Retry-After"] = str(found.retry_after)
    return response


def _csrf_field() -> tuple[str, str] | None:
    """Name and value of the hidden field that Flask-WTF expects in forms; None in a host without it."""
    make: Any = current_app.jinja_env.globals.get("csrf_token")
    if make is None:
        return None
    return current_app.config.get("WTF_CSRF_FIELD_NAME", "csrf_token"), make()


def _document(template: str, **context: Any) -> str:
    actor = access.actor()
    entries = [] if actor is None else access.list_navigation()
    sources = read_sources() if entries else Sources()
    context.setdefault("badges", sources.badges)
    context.setdefault("says_sources", False)
    said = context["problem"].source if "problem" in context else None
    is_asked_for = request.method == "GET"
    context.setdefault("here_url", links.here() if is_asked_for else links.root())
    return (
        _environment()
        .get_template(f"opsjobs/{template}")
        .render(
            actor=actor,
            entries=entries,
            # The page of a problem does not say it twice.
            wrong=[one for one in sources.wrong if said is None or one.source != said],
            worst=find_worst(sources, entries),
            operations_open=_open_operations(sources),
            allowed={entry.endpoint for entry in entries},
            is_read_only=actor is not None and not any(map(access.may, ACTIONS)),
            app_name=current_app.name,
            environment=host().settings.environment,
            preferences=read_preferences(),
            choices=PREFERENCES,
            app_root=(request.script_root or "") + "/",
            **values_of(context),
        )
    )


def _beside(says_sources: bool) -> Markup:
    """The parts outside a fragment that each poll updates.

    They are the sources that do not answer, the badges, the operations in progress, and the icon of the tab.
    """
    entries = access.list_navigation()
    sources = read_sources()
    made = _environment().get_template("opsjobs/_out_of_band.html")
    return Markup(
        made.render(
            wrong=() if says_sources else sources.wrong,
            worst=find_worst(sources, entries),
            badges=sources.badges,
            operations_open=_open_operations(sources),
            now=datetime.now(UTC),
            entries=entries,
            allowed={entry.endpoint for entry in entries},
        )
    )


def _find_ticket(subject: str | None) -> str | None:
    """The address of the text for a ticket, of a job and of an incident."""
    is_one = subject is not None and subject.startswith(("job/", "incident/"))
    return links.to_export(subject, links.TICKET) if subject and is_one else None


def _open_operations(sources: Sources) -> OpenOperations | None:
    """The operations in progress, for who may see them."""
    return sources.operations if access.may(access.OPERATIONS) else None


def _display() -> PageDisplay:
    """One for the fragment and what surrounds it, so that a policy that fails is logged once a page."""
    key = host().display, access.may_see_payload()
    kept: dict[object, PageDisplay] = g.setdefault("opsjobs_displays", {})
    if key not in kept:
        kept[key] = PageDisplay(key[0], may_see=key[1])
    return kept[key]


def _etag(made: Markup) -> str:
    return hashlib.sha256(made.encode()).hexdigest()[:32]
