"""Checks what Lifeline knows, and the end of the audit: open incidents, operations, callbacks, retention."""

from __future__ import annotations

from datetime import timedelta

from ..audit.verify import verify_newest
from ..core import sql
from ..core.words import counted, span
from ..lifeline.detectors.audit_broken import find_break
from ..lifeline.queries import IncidentFilter, page_of_open_incidents
from ..lifeline.retention import list_limits
from .check import ERROR, WARNING, CheckAnswer, CheckContext, DoctorCheck, ok, warning
from .incidents import answer_with, driver_connection, look_for, state_of, state_of_class

_LONG = timedelta(hours=1)
# So many rows at the end of the audit are verified.
_TAIL = 1_000


def _incidents(context: CheckContext) -> CheckAnswer:
    with context.reading() as read:
        rows, has_more = page_of_open_incidents(read.session, IncidentFilter())
    old = [row for row in rows if read.now - row.opened_at > _LONG]
    if not old:
        return ok("No incident is open for more than an hour.")
    first, more = old[0], "+" if has_more else ""
    return CheckAnswer(
        state_of(first.severity),
        f"Incident {first.id} is open for {span((read.now - first.opened_at).total_seconds())}: "
        f"{first.title}.",
        f"{counted(len(old), 'incident', more=more)} in all that nobody has acknowledged.",
        run=f"flask opsjobs incident show {first.id}",
    )


_operations = look_for(
    "operation_stopped", "No operation stopped by itself.", "flask opsjobs operation list"
)
_callbacks = look_for(
    "callback_failed", "No callback has failed within a day.", "flask opsjobs incidents"
)


def _retention(context: CheckContext) -> CheckAnswer:
    with context.reading() as read:
        limits = list_limits(context.host.settings, read.now)
        values = {"states": list(limits), "before": list(limits.values())}
        row = driver_connection(read).execute(sql.load("find_job_to_retain"), values).fetchone()
    if row is None:
        return ok("Old jobs are removed in time.")
    state, ended_at = row
    late = (limits[state] - ended_at).total_seconds()
    return warning(
        f"{state.capitalize()} jobs are kept {span(late)} longer than the settings say.",
        "The loop retain removes them, or did not run.",
        run="flask opsjobs retain",
    )


def _tail(context: CheckContext) -> CheckAnswer:
    with context.reading() as read:
        _, found = verify_newest(read.session, context.host.secrets, _TAIL)
    if found.broken:
        broken = find_break(found.broken.sequence, found.broken.code, found.broken.says)
        return answer_with("audit_broken", [broken], "flask opsjobs audit verify")
    return ok(
        "The end of the audit is intact.",
        f"{counted(found.unknown_rows, 'row')} signed with a key that is not given."
        if found.unknown_rows
        else "",
    )


_IF_CURRENT = ("schema.version",)

CHECKS = (
    DoctorCheck(
        "lifeline.incidents",
        (WARNING, ERROR),
        "no incident is open for more than an hour",
        _incidents,
        needs=_IF_CURRENT,
    ),
    DoctorCheck(
        "lifeline.operations",
        (state_of_class("operation_stopped"),),
        "no operation stopped by itself within a day",
        _operations,
        needs=_IF_CURRENT,
    ),
    DoctorCheck(
        "lifeline.callbacks",
        (state_of_class("callback_failed"),),
        "no callback has failed within a day",
        _callbacks,
        needs=_IF_CURRENT,
    ),
    DoctorCheck(
        "lifeline.retention",
        (WARNING,),
        "old jobs are removed at most a day late",
        _retention,
        needs=_IF_CURRENT,
    ),
    DoctorCheck(
        "audit.tail",
        (state_of_class("audit_broken"),),
        "the last 1,000 rows of the audit are intact",
        _tail,
        needs=_IF_CURRENT,
    ),
)
