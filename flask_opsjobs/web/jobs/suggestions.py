"""Completes the text in the search box: from names that may be shown, never from values of jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice

from sqlalchemy.orm import Session

from ...batches.queries import list_recent_batches
from ...core.display import Display
from ...failures.queries import list_recent_versions
from ...jobs import queries
from ...jobs.lifecycle import DEATHS, STATES
from ...jobs.search.filter import ORIGINS, QUALIFIERS
from ...jobs.search.terms import LONGEST, write_term
from ...lifeline.queries import list_active_ids
from ...queues.queries import list_queue_names
from ...workers.queries import list_names
from ...workflows.queries import list_recent_workflows
from ..app import access
from ..app.host import host

_MOST = 12
# The values of the qualifiers that have only these, and those of which any other may be typed.
_FIXED = {
    "state": STATES,
    "origin": ORIGINS,
    "created": ("<1h", "<1d", "<7d", ">1h", ">1d", ">7d"),
    "death": tuple(DEATHS),
}
# Those of a kind that has pages of its own: the permission to see them, and what lists some.
_LISTED: Mapping[str, tuple[str, Callable[[Session], Iterable[object]]]] = {
    "workflow": ("workflows.view", list_recent_workflows),
    "batch": ("batches.view", list_recent_batches),
    "deploy": ("lifeline.view", list_recent_versions),
    "worker": ("workers.view", list_names),
    "incident": ("lifeline.view", list_active_ids),
}


def suggest(session: Session, box: str) -> Sequence[str]:
    """At most 12 texts for the whole box, with its last word completed."""
    before, last = _last_word(box)
    found: Iterator[str] = (
        term for term in _terms(session, last) if term.lower().startswith(last.lower())
    )
    if (
        ":" not in last and last
    ):  # a word without a qualifier may be the name of a task, queue or tag
        found = chain(found, _named(session, last.lower()))
    return [f"{before}{term}" for term in islice(dict.fromkeys(found), _MOST)]


def _last_word(box: str) -> tuple[str, str]:
    """The text before the last word, and the last word. A quoted text is one word."""
    if len(box) > 2 * LONGEST or "\0" in box:
        return "", box[: 2 * LONGEST].replace("\0", "")
    at = max(box.rfind(" "), box.rfind("\t")) + 1
    if box[:at].count('"') % 2:
        at = box.rfind(" ", 0, box.rindex('"', 0, at)) + 1
    return box[:at], box[at:]


def _terms(session: Session, last: str) -> Iterator[str]:
    name, colon, _ = last.partition(":")
    if not colon:
        yield from (f"{qualifier}:" for qualifier in QUALIFIERS if _may_ask(qualifier))
        yield from (f"{argument}:" for argument in _arguments())
        return
    for value in _values(session, name):
        yield write_term(name, value)


def _values(session: Session, qualifier: str) -> Iterable[str]:
    if qualifier in _FIXED:
        return _FIXED[qualifier]
    match qualifier:
        case "queue":
            return list_queue_names(session)
        case "task":
            return queries.list_task_names(session)
        case "tag":
            return _tags(session)
    if qualifier in _LISTED:
        permission, list_some = _LISTED[qualifier]
        return _shown(map(str, list_some(session))) if access.may(permission) else ()
    return ()


def _named(session: Session, part: str) -> Iterator[str]:
    for qualifier in ("task", "queue", "tag"):
        for value in _values(session, qualifier):
            if part in value.lower():
                yield write_term(qualifier, value)


def _tags(session: Session) -> Iterator[str]:
    """The tags of the declared tasks, and of the newest jobs."""
    declared = {tag for task in host().tasks.values() for tag in task.declared.tags}
    return _shown(declared | set(queries.list_recent_tags(session)))


def _shown(names: Iterable[str]) -> Iterator[str]:
    """Those that the display policy leaves as they are, in order."""
    display = Display(host().display, may_see=True)
    return (name for name in sorted(names) if display.clean(name) == name)


def _arguments() -> Iterator[str]:
    """The arguments of declared tasks that the actor may search."""
    if not _may_ask("error"):
        return
    display = Display(host().display, may_see=True)
    tasks = host().tasks.values()
    redacted = {name for task in tasks for name in task.redact}
    names = {name for task in tasks for name in task.arguments.names} - redacted
    yield from (f"args.{name}" for name in sorted(names) if display.hides(name) is None)


def _may_ask(qualifier: str) -> bool:
    return qualifier != "error" or access.may_see_payload()
