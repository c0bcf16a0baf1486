"""Shows the form that edits a job, and starts the edit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from flask import Response, request
from werkzeug import Response as AnyResponse

from ...actions.domain import BadParams, Request
from ...actions.operator import Operator
from ...actions.planning import make_plan
from ...actions.registry import ACTIONS
from ...core.display import Display
from ...core.reading import Reading
from ...jobs.edit.actions import PARAMS, read_edit
from ...jobs.rows import JobInFull
from ..actions import view as actions
from ..app import access, pages
from ..app.host import asking, host, reading
from .view import find

_EDIT = ACTIONS["job.edit"]


def form(job_id: str) -> Response:
    """The form with the job's queue, priority and arguments."""
    return _form(job_id, None)


def change(job_id: str) -> AnyResponse:
    """Start `job.edit` with the form's values; the form again, with its faults, when they are invalid."""
    typed = {param: request.form.get(param, "").strip() for param in PARAMS}
    if faults := _list_faults(job_id, typed):
        return _form(job_id, typed, faults, status=422)
    return actions.on_id(_EDIT)(job_id=job_id)


def _list_faults(job_id: str, typed: Mapping[str, str]) -> dict[str, str]:
    """The faults of the typed values: sentences by field."""
    with reading() as read:
        target = f"job/{find(read, job_id).id}"
    try:
        read_edit(host(), typed)
    except BadParams as wrong:
        return dict(wrong.faults)
    with asking():
        plan = Operator(host()).plan(_EDIT.name, [target], actor=access.actor() or "", params=typed)
    faults = [skip.says for skip in plan.skipped if skip.code == "invalid_args"]
    return {"args": faults[0]} if faults else {}


def _form(
    job_id: str,
    typed: Mapping[str, str] | None,
    faults: Mapping[str, str] = {},
    *,
    status: int = 200,
) -> Response:
    with reading() as read:
        job = find(read, job_id)
        refusal = _find_refusal(read, job)
    args, hidden = _list_args(job)
    shown = {"queue": job.queue, "priority": str(job.priority), "args": args}
    return pages.document(
        "job_edit/page.html",
        "jobs",
        f"Edit {job.task} {job.id}",
        read.now,
        status=status,
        job=job,
        refusal=refusal,
        typed=shown if typed is None else typed,
        faults=faults,
        hidden=hidden,
    )


def _find_refusal(read: Reading, job: JobInFull) -> str | None:
    """Why the job cannot be edited at all; None when it can."""
    connection: Any = read.session.connection().connection.driver_connection
    nothing, actor = dict.fromkeys(PARAMS), access.actor() or ""
    target = (f"job/{job.id}",)
    asked = Request(host(), _EDIT, target, nothing, actor, "page", is_trusted=True, now=read.now)
    (skip,) = make_plan(connection, asked).skipped
    return None if skip.code == "already" else f"{skip.says[0].upper()}{skip.says[1:]}."


def _list_args(job: JobInFull) -> tuple[str, Sequence[str]]:
    """The arguments that may be shown, as JSON, and the names of the others, which stay as they are."""
    args = json.loads(job.args)
    if not access.may_see_payload():
        return "", sorted(args)
    display, declared = Display(host().display, may_see=True), host().tasks.get(job.task)
    redacted = declared.redact if declared else ()
    seen = {
        name: value
        for name, value in args.items()
        if name not in redacted
        and json.loads(display.plain(json.dumps({name: value}))) == {name: value}
    }
    return json.dumps(seen, indent=2, ensure_ascii=False), sorted(args.keys() - seen)
