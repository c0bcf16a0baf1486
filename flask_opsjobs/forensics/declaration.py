"""Declares a runbook of the host as data: what it is about, what it requires, and what to beware of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..core.words import show_value
from ..errors import DeclarationError
from ..settings import read_host_address

# Gets the subject, such as `job/42`. True: it is met. False: it is missing. None: not known.
Check = Callable[[str], bool | None]

MOST_PREREQUISITES = 20
MOST_CAUTIONS = 20
_LONGEST = 200


@dataclass(frozen=True)
class RunbookDeclaration:
    """One runbook of the host.

    `about` is a class of incidents (`poison`), a kind of subject (`cron`) or one subject
    (`cron/nightly_sync`). A prerequisite has a name, and a check unless only a person can answer it.
    """

    about: str
    title: str
    url: str | None = None
    prerequisites: Sequence[tuple[str, Check | None]] = ()
    cautions: Sequence[str] = ()


def make_runbook(
    about: Any, title: Any, url: Any, prerequisites: Any, cautions: Any, known: Collection[str]
) -> RunbookDeclaration:
    """The runbook. Raises `DeclarationError` with every fault. `known` are the classes and the kinds."""
    faults = list(_faults(about, title, prerequisites, cautions, known))
    try:
        address = read_host_address(url)
    except ValueError as error:
        faults.append(f"url must be {error}, got {show_value(url)}")
    if faults:
        raise DeclarationError(f"runbook {show_value(about)}: {'; '.join(faults)}")
    return RunbookDeclaration(about, title, address, tuple(prerequisites.items()), tuple(cautions))


def _faults(
    about: Any, title: Any, prerequisites: Any, cautions: Any, known: Collection[str]
) -> Sequence[str]:
    faults = []
    kind, _, key = about.partition("/") if isinstance(about, str) else ("", "", "")
    if kind not in known or ("/" in str(about) and not key):
        faults.append(
            "about must be a class of incidents, a kind of subject, or a subject such as "
            f"'cron/nightly_sync'; known are {', '.join(sorted(known))}"
        )
    if not _is_words(title):
        faults.append(
            f"title must be a text of 1 to {_LONGEST} characters, got {show_value(title)}"
        )
    if not isinstance(prerequisites, Mapping) or len(prerequisites) > MOST_PREREQUISITES:
        faults.append(
            f"prerequisites must be a dict from names to functions or None, at most {MOST_PREREQUISITES}"
        )
    else:
        for name, check in prerequisites.items():
            if not _is_words(name):
                faults.append(
                    f"a prerequisite's name is a text of 1 to {_LONGEST} characters, got {show_value(name)}"
                )
            if check is not None and not callable(check):
                faults.append(
                    f"the check of {show_value(name)} must be a function of the subject, or None"
                )
    if (
        isinstance(cautions, str)
        or not isinstance(cautions, Sequence)
        or len(cautions) > MOST_CAUTIONS
        or not all(map(_is_words, cautions))
    ):
        faults.append(
            f"cautions must be a list of at most {MOST_CAUTIONS} texts of 1 to {_LONGEST} characters"
        )
    return faults


def _is_words(value: Any) -> bool:
    return (
        isinstance(value, str)
        and bool(value.strip())
        and value.isprintable()
        and len(value) <= _LONGEST
    )
