"""Shows the picker of forensics, and the bundle of one subject as a page and as a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote, urljoin

from flask import Response, redirect, request, url_for
from markupsafe import Markup
from werkzeug import Response as AnyResponse

from ...actions.domain import Action
from ...actions.registry import ACTIONS
from ...core.display import Display
from ...core.reading import Reading
from ...core.round_trips import start_reading
from ...errors import UnknownSubject
from ...forensics.bundle import Bundle, Kind, Path
from ...forensics.export import FORMATS, make_file_name
from ...forensics.find import find_bundle
from ...forensics.markdown import write_bundle_markdown
from ...forensics.names import find_subjects
from ...forensics.registry import KINDS, read_kind
from ...forensics.report import describe_left_out, say_lack, say_no_path, write_cell
from ...forensics.shown import show_bundle
from ...lifeline.queries import IncidentFilter, IncidentRow, page_of_incidents
from ...notes.queries import list_notes
from ..app import access, links, pages, problems
from ..app.host import heavy, host, reading
from ..notes.view import form_of
from .looks import COMPLETENESS, look_of

_MOST_INCIDENTS = 10


def page() -> AnyResponse:
    """The picker. A word that names one subject leads to its page; one that names several lists them."""
    word = request.args.get("subject", "").strip()
    with reading() as read:
        found = [each for each in _find(read, word) if _may_see(each)] if word else []
        incidents = _recent_incidents(read)
    if len(found) == 1:
        return redirect(links.to_forensics(found[0]), 303)
    is_unknown = bool(word) and not found
    return pages.document(
        "forensics/page.html",
        "forensics",
        "Forensics",
        read.now,
        status=HTTPStatus.NOT_FOUND if is_unknown else HTTPStatus.OK,
        word=word,
        found=[(each.partition("/")[0], each, links.to_forensics(each)) for each in found],
        is_unknown=is_unknown,
        incidents=incidents,
        to_forensics=links.to_forensics,
        kinds=KINDS,
    )


def _find(read: Reading, word: str) -> Sequence[str]:
    return find_subjects(host(), read.session, word)


def _may_see(subject: str) -> bool:
    return access.may(KINDS[subject.partition("/")[0]].permission, subject)


def _recent_incidents(read: Reading) -> Sequence[IncidentRow]:
    """The incidents that began last, for who may see Lifeline."""
    if not access.may("lifeline.view"):
        return ()
    return page_of_incidents(read.session, IncidentFilter(), limit=_MOST_INCIDENTS).rows


def bundle_page(kind: str, key: str) -> Response:
    """The document about one subject."""
    with reading() as read:
        made, bundle = _part(read, kind, key)
    return pages.page(
        "forensics_subject/page.html",
        "forensics",
        f"{bundle.title}, forensics",
        read.now,
        live=made,
        bundle=bundle,
        **(form_of(f"worker/{key}") if kind == "worker" else {}),
    )


def bundle_live(kind: str, key: str) -> Response:
    """The fragment that refreshes."""
    with reading() as read:
        made, _ = _part(read, kind, key)
    return pages.fragment(made)


def export(kind: str, key: str) -> Response:
    """The bundle as a file: `?format=md`, `html` or `json`. It names its reader, its time and its hash.

    With `ticket` it is the Markdown below the address of the subject's page, as a text that a browser shows.
    """
    chosen = request.args.get("format", "md")
    known = (*FORMATS, links.TICKET)
    if chosen not in known:
        raise problems.unreadable(f"format: {chosen[:40]!r} is not one of {', '.join(known)}")
    with heavy(), reading() as read:
        bundle = _read(read, kind, key)
    reader = access.actor() or "", host().settings.environment
    if chosen == links.TICKET:
        page_url = links.to_page(bundle.subject) or links.to_forensics(bundle.subject)
        address = urljoin(request.host_url, page_url)
        return Response(write_bundle_markdown(bundle, *reader, address), mimetype="text/plain")
    written = FORMATS[chosen].write(bundle, *reader)
    response = Response(written, mimetype=FORMATS[chosen].mimetype)
    name = make_file_name(bundle, chosen)
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def _read(read: Reading, kind: str, key: str) -> Bundle:
    """The bundle as the reader may see it."""
    found, subject = _require(kind, key)
    access.require(found.permission, subject)
    bundle = find_bundle(host(), read, subject, lambda permission: access.may(permission, subject))
    display = Display(host().display, may_see=access.may_see_payload(subject))
    return show_bundle(bundle, display)


def _require(kind: str, key: str) -> tuple[Kind, str]:
    try:
        found, canonical = read_kind(f"{kind}/{key}")
    except UnknownSubject as unknown:
        raise problems.unknown_subject(str(unknown)) from unknown
    return found, f"{found.name}/{canonical}"


@dataclass(frozen=True)
class _Step:
    """A path as the page shows it: a button for its action, a link, or its words alone."""

    path: Path
    action: Action[Any] | None
    url: str | None

    @property
    def asks(self) -> bool:
        """Whether its action asks for a value first, on the page of its target."""
        return self.action is not None and bool(self.action.params)


def _part(read: Reading, kind: str, key: str) -> tuple[Markup, Bundle]:
    """The part that refreshes, and the bundle that it shows."""
    # A worker has no other page of its own.
    notes = start_reading(read.session, list_notes, f"worker/{key}") if kind == "worker" else ()
    bundle = _read(read, kind, key)
    made = pages.part(
        "forensics_subject/_live.html",
        read.now,
        bundle=bundle,
        notes=notes,
        look=look_of,
        completeness=COMPLETENESS,
        runbook_url=links.of_the_host(bundle.runbook.url) if bundle.runbook else None,
        place=None if bundle.completeness == "unknown" else links.to_page(bundle.subject),
        permalink=url_for(
            "opsjobs.forensics_subject",
            kind=bundle.kind,
            key=bundle.subject.partition("/")[2],
            _external=True,
        ),
        exports=[
            (each.title, links.to_export(bundle.subject, name)) for name, each in FORMATS.items()
        ],
        steps=[_step(path) for path in bundle.paths],
        to_forensics=_to_forensics,
        say_lack=say_lack,
        say_no_path=say_no_path,
        describe_left_out=describe_left_out,
        write_cell=write_cell,
    )
    return made, bundle


def _step(path: Path) -> _Step:
    action = ACTIONS.get(path.action) if path.action else None
    if path.kind == "bridge" and path.target is not None:
        place, _, rq_id = path.target.removeprefix("rq/").rpartition("/")
        return _Step(path, None, links.to_rq(place, unquote(rq_id)))
    if action is None or path.target is None:
        return _Step(path, None, links.of_the_host(path.url))
    if action.params:
        return _Step(path, action, links.to_target(path.target))
    return _Step(path, action, links.to_action(action, path.target))


def _to_forensics(subject: str | None) -> str | None:
    """The address of what is known of another subject; None when the reader may not see it."""
    kind = KINDS.get(subject.partition("/")[0]) if subject else None
    if subject is None or kind is None or not access.may(kind.permission, subject):
        return None
    return links.to_forensics(subject)
