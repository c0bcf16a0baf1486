"""Shows the form that enqueues a job of a task, made from the task's signature, and starts the action."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from flask import Response, request
from werkzeug import Response as AnyResponse

from ...actions.registry import ACTIONS
from ...jobs.record.declaration import TaskDeclaration
from ...jobs.record.fields import list_fields, read_typed
from ...tasks import pauses
from ...tasks.actions import BadCall, get_task, read_call, read_target
from ..actions import view as actions
from ..app import pages, problems
from ..app.host import host, reading

_ENQUEUE = ACTIONS["task.enqueue"]
# Before the name of a parameter, so that none is taken for a field of ours, such as the reason.
_PREFIX = "arg."


def call_form(name: str) -> Response:
    """The form of a task that the code declares or a job names; why there is none, when it is not allowed."""
    with reading() as read:
        connection: Any = read.session.connection().connection.driver_connection
        is_name = read_target(f"task/{name}") is not None
        if not is_name or not pauses.read(connection, [name], list(host().tasks)):
            raise problems.no_such_task(name)
    return _page(name, {})


def start_call(name: str) -> AnyResponse:
    """Start `task.enqueue` with what is typed; the form again, with its faults, when it does not fit.

    All arguments at once come as JSON in `args`: from a preview that is made again.
    """
    if "args" in request.form:
        return actions.start(_ENQUEUE, [f"task/{name}"])
    typed = {
        key.removeprefix(_PREFIX): value
        for key, value in request.form.items()
        if key.startswith(_PREFIX)
    }
    args: dict[str, Any] = {}
    faults: dict[str, str] = {}
    try:
        args, faults = read_typed(list_fields(get_task(host(), name)), typed)
        read_call(host(), name, args)
    except BadCall as bad:
        faults = {**bad.faults, **faults}
    if faults:
        return _page(name, typed, faults, status=422)
    return actions.start(_ENQUEUE, [f"task/{name}"], {"args": json.dumps(args)})


def _page(
    name: str, typed: Mapping[str, str], faults: Mapping[str, str] = {}, *, status: int = 200
) -> Response:
    try:
        task, why_not = get_task(host(), name), ""
    except BadCall as bad:
        task, why_not = None, str(bad)
    return pages.document(
        "task_form/page.html",
        "tasks",
        f"Enqueue {name}",
        datetime.now(UTC),
        status=status,
        name=name,
        task=task,
        why_not=why_not,
        says=_first_paragraph(task) if task else "",
        fields=list_fields(task) if task else (),
        prefix=_PREFIX,
        typed=typed,
        faults={field: f"{field}: {why}" if field else why for field, why in faults.items()},
        read_json=json.loads,
        action=_ENQUEUE,
    )


def _first_paragraph(task: TaskDeclaration) -> str:
    """The first paragraph of the function's docstring; empty without one."""
    return (inspect.getdoc(task.function) or "").partition("\n\n")[0]
