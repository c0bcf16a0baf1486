"""Makes the form for a note on the page of its subject, and adds the note that it sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import redirect, request
from werkzeug import Response

from ...actions.domain import say_target
from ...actions.execution import LONGEST_REASON, SHORTEST_REASON
from ...actions.operator import Operator
from ...actions.planning import UNREADABLE
from ...actions.registry import ACTIONS
from ...errors import ActionRefused
from ..actions.view import HERE, STATUS, cut_reason
from ..app import access, links, pages
from ..app.display import PageDisplay
from ..app.host import asking, host, reading

_ADD = ACTIONS["note.add"]
_STATUS = {**STATUS, "unknown_target": 404, UNREADABLE: 404}


def form_of(subject: str, back: str | None = None) -> Mapping[str, Any]:
    """What the form for a note on a subject, such as `job/42`, shows. It leads back here, or to `back`."""
    return {
        "note_back": back or links.here(),
        "note_url": links.to_action(_ADD, subject),
        "note_permission": _ADD.permission,
        "note_subject": subject,
        "shortest_note": SHORTEST_REASON,
        "longest_note": LONGEST_REASON,
        "typed_note": "",
        "note_fault": None,
    }


def add(**_names: str) -> Response:
    """Add the note to the subject of the address, and show its page. A refusal keeps what was typed."""
    subject, actor = access.subject(), access.actor()
    assert subject is not None
    assert actor is not None  # checked before the view is called
    # A browser ends each line of a text field with both.
    typed = request.form.get("note", "").replace("\r\n", "\n")
    try:
        with asking():
            receipt = Operator(host()).run(
                _ADD.name,
                [subject],
                actor=actor,
                reason=typed,
                via="page",
                request_id=request.headers.get("X-Request-ID"),
            )
    except ActionRefused as refused:
        receipt = refused.receipt
    # The second of two clicks finds that the note is there.
    if receipt.is_done or [skip.code for skip in receipt.skipped] == ["already"]:
        return redirect(f"{links.read_back()}#notes", 303)
    fault = f"{receipt.says[:1].upper()}{receipt.says[1:]}"
    if len(typed) > LONGEST_REASON:
        fault += f"; the field keeps the first {LONGEST_REASON:,} of {len(typed):,}"
    form = {
        **form_of(subject, links.read_back()),
        "typed_note": cut_reason(typed),
        "note_fault": fault,
    }
    display = PageDisplay(host().display, may_see=access.may_see_payload(subject))
    with reading() as read:
        return pages.document(
            "note/page.html",
            HERE[subject.partition("/")[0]],
            display.name(f"Note on {say_target(subject)}"),
            read.now,
            status=_STATUS.get(receipt.code, 409),
            display=display,
            **form,
        )
