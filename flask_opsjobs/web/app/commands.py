"""Writes the command line that tells of the same as the current page."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from flask import request

from ...actions.domain import name_in
from ...audit.filter import CONDITIONS
from ...errors import OpsJobsError
from ...forensics.registry import KINDS
from ...jobs.search.filter import JobFilter
from ...limits.actions import split_target
from . import access

# The command of each list, and which of the page's parameters are its options.
_LISTS: Mapping[str, tuple[str, Sequence[str]]] = {
    "overview": ("doctor", ()),
    "tasks": ("tasks", ("find", "against", "sort")),
    "queues": ("queue list", ("find",)),
    "workers": ("workers", ()),
    "cron": ("cron list", ()),
    "limiters": ("limiter list", ()),
    "lifeline": ("incidents", ("class", "severity", "state")),
    "failures": ("failures", ("state", "task")),
    "operations": ("operation list", ("state",)),
    "audit": ("audit list", CONDITIONS),
}
# The tabs of Lifeline, which the command names by the states that they list.
_STATES = {"open": "active", "ended": "resolved"}
# The command of a subject, where one is closer to its page than forensics.
_SUBJECTS = {
    "job": "why",
    "workflow": "why",
    "batch": "why",
    "incident": "incident show",
    "operation": "operation show",
    "limiter": "limiter explain",
}


def find_command() -> str | None:
    """The command for the current page with its search, quoted for a shell; None for a page without one."""
    words = _find_words()
    return shlex.join(["flask", "opsjobs", *words]) if words else None


def _find_words() -> Sequence[str]:
    endpoint = (request.endpoint or "").partition(".")[2]
    if endpoint in ("jobs", "jobs_why"):
        try:
            wanted = JobFilter.from_query(request.args.items(multi=True))
        except OpsJobsError:
            return ()
        if endpoint == "jobs_why":
            return "why", "--search", wanted.box
        return "jobs", *wanted.to_options()
    if endpoint in _LISTS:
        command, names = _LISTS[endpoint]
        given = [(name, value) for name in names if (value := request.args.get(name, "").strip())]
        if endpoint == "lifeline":
            given = [(name, _STATES.get(value, value)) for name, value in given]
        options = (f"--{_write_option(name)}={value}" for name, value in given)
        return *command.split(), *options
    if endpoint == "audit_event":
        return "audit", "export", f"--since={(request.view_args or {})['sequence']}", "--limit=1"
    subject = access.subject()
    return () if subject is None else _of_subject(subject)


def _write_option(name: str) -> str:
    return "search" if name == "q" else name.replace("_", "-")


def _of_subject(subject: str) -> Sequence[str]:
    kind, name = subject.partition("/")[0], name_in(subject)
    if request.endpoint == "opsjobs.forensics_subject" or kind not in _SUBJECTS:
        return ("forensics", subject, "--format=md") if kind in KINDS else ()
    if kind == "limiter":  # a partition is a value of jobs' arguments
        name = split_target(subject)[0]
    elif kind in ("workflow", "batch"):
        name = subject
    return *_SUBJECTS[kind].split(), name
