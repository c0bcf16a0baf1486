"""Completes the text in the search box: from names that may be shown, never from values of jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from sqlalchemy.orm import Session

from ...batches.queries import list_recent_batches
from ...core.display import Display
from ...core.round_trips import start_reading
from ...failures.queries import list_recent_versions, page_of_failures
from ...jobs import queries
from ...jobs.lifecycle import DEATHS, STATES
from ...jobs.search.filter import ORIGINS, QUALIFIERS, write_condition
from ...jobs.search.terms import LONGEST, is_argument
from ...lifeline.queries import list_active_ids
from ...queues.queries import list_queue_names
from ...workers.queries import list_names
from ...workflows.queries import list_recent_workflows
from ..app import access
from ..app.host import host

_MOST = 12
# The values of the qualifiers that have only these, and those of which any other may be typed.
_FIXED: Mapping[str, Sequence[str]] = {
    "state": STATES,
    "origin": ORIGINS,
    "created": ("<1h", "<1d", "<7d", ">1h", ">1d", ">7d", "today", "yesterday"),
    "due": ("..now", "now..+1h", "now..+1d", "<1h"),
    "started": ("<1h", "<1d", "today"),
    "ended": ("<1h", "<1d", "-2h..-1h", "today", "yesterday"),
    "duration": (">5s", ">1m", ">1h"),
    "wait": (">5s", ">1m", ">1h"),
    "attempts": (">1", ">=3"),
    "priority": ("0", "<5", ">5"),
    "memory": (">100MB", ">500MB", ">1GB"),
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


@dataclass(frozen=True)
class Suggestion:
    """A term that completes the last word, the text of the whole box with it, and what it stands for."""

    term: str
    box: str
    note: str = ""


def suggest(session: Session, box: str) -> Sequence[Suggestion]:
    """At most 12 ways to complete the last word of the box."""
    before, last = _last_word(box)
    minus = "-" if last.startswith("-") else ""
    last = last.removeprefix("-")
    found: _Terms = (
        one for one in _terms(session, last) if one[0].lower().startswith(last.lower())
    )
    if ":" not in last and last:
        # A word without a qualifier may be the name of a task, queue or tag, or a part of an error.
        found = chain(found, _named(session, last.lower()))
    elif last.lower().startswith("failure:"):
        # Also by a word of what failed.
        found = chain(found, _failures(session, last.partition(":")[2].strip('"').lower()))
    notes: dict[str, str] = {}
    for term, note in found:
        notes.setdefault(term, note)
        if len(notes) == _MOST:
            break
    return [
        Suggestion(minus + term, f"{before}{minus}{term}", note) for term, note in notes.items()
    ]


def _last_word(box: str) -> tuple[str, str]:
    """The text before the last word, and the last word. A quoted text is one word."""
    if len(box) > 2 * LONGEST or "\0" in box:
        return "", box[: 2 * LONGEST].replace("\0", "")
    at = max(box.rfind(" "), box.rfind("\t")) + 1
    if box[:at].count('"') % 2:
        at = box.rfind(" ", 0, box.rindex('"', 0, at)) + 1
    return box[:at], box[at:]


# A term, and what it stands for.
_Terms = Iterator[tuple[str, str]]


def _terms(session: Session, last: str) -> _Terms:
    name, colon, _ = last.partition(":")
    if not colon:
        yield from ((f"{qualifier}:", "") for qualifier in QUALIFIERS if may_ask(qualifier))
        yield from ((f"{argument}:", "") for argument in _arguments())
    elif name == "failure":
        yield from _failures(session, "")
    else:
        yield from ((write_condition(name, value), "") for value in _values(session, name))


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


def _named(session: Session, part: str) -> _Terms:
    names = {
        qualifier: start_reading(session, _values, qualifier)
        for qualifier in ("task", "queue", "tag")
    }
    failures = start_reading(session, lambda session: list(_failures(session, part)))
    for qualifier, values in names.items():
        for value in values.value:
            if part in value.lower():
                yield write_condition(qualifier, value), ""
    yield from failures.value


def _failures(session: Session, part: str) -> _Terms:
    """The open failures whose title, as it may be shown, has this part: those that failed last."""
    if not (access.may("lifeline.view") and access.may_see_payload()):
        return
    display = Display(host().display, may_see=True)
    for row in page_of_failures(session, "open").rows:
        title = display.clean(row.title)
        if part in title.lower():
            yield f"failure:{row.id}", f"{title}, in {row.task}"


def _tags(session: Session) -> Iterator[str]:
    """The tags of the declared tasks, and of the newest jobs."""
    fixed = (task.declared.tags for task in host().tasks.values())
    declared = {tag for tags in fixed if not callable(tags) for tag in tags}
    return _shown(declared | set(queries.list_recent_tags(session)))


def _shown(names: Iterable[str]) -> Iterator[str]:
    """Those that the display policy leaves as they are, in order."""
    display = Display(host().display, may_see=True)
    return (name for name in sorted(names) if display.clean(name) == name)


def _arguments() -> Iterator[str]:
    """The arguments of declared tasks that the actor may search."""
    if not may_ask("error"):
        return
    display = Display(host().display, may_see=True)
    tasks = host().tasks.values()
    redacted = {name for task in tasks for name in task.redact}
    names = {name for task in tasks for name in task.arguments.names} - redacted
    yield from (f"args.{name}" for name in sorted(names) if display.hides(name) is None)


def may_ask(qualifier: str) -> bool:
    """Whether the actor may search by it: not in the payload without the permission to see it."""
    return not (qualifier == "error" or is_argument(qualifier)) or access.may_see_payload()
