"""The two questions that only the host can answer: who may do this, and what may be shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import signature
from traceback import extract_tb
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class AccessPolicy(Protocol):
    """Who is asking, and may they. Asked on every request; an exception means no."""

    def current_actor(self) -> str | None:
        """A stable name of the signed-in operator, such as a login; None when nobody is signed in."""
        ...

    def can(self, actor: str, permission: str, subject: str | None = None) -> bool:
        """Whether `actor` holds `permission` (`jobs.view`, `job.retry`, …) on `subject` (`job/42`) or at all."""
        ...


@runtime_checkable
class DisplayPolicy(Protocol):
    """What of a job may be shown, exported or sent. An exception hides the value."""

    def is_hidden_key(self, key: str) -> bool:
        """Whether the value under this key of arguments, output or meta must not be shown."""
        ...

    def clean_text(self, text: str) -> str:
        """The text (an error, a traceback, a log line, a value) with its secrets replaced."""
        ...


def find_policy_fault(policy: Any, protocol: type) -> str | None:
    """Why `policy` cannot be asked the methods of `protocol`, as the end of a sentence; None when it can."""
    if isinstance(policy, type):
        return f"is a class: pass an object of it, {policy.__name__}()"
    wanted = {name: each for name, each in vars(protocol).items() if not name.startswith("_")}
    if lacking := [name for name in wanted if not callable(getattr(policy, name, None))]:
        return f"lacks {', '.join(lacking)} of {protocol.__name__}"
    for name, method in wanted.items():
        _, *parameters = signature(method).parameters
        if not _takes(getattr(policy, name), parameters):
            return (
                f"has a method {name} that does not take {len(parameters)} arguments: "
                f"write def {name}({', '.join(['self', *parameters])})"
            )
    return None


def raised(error: Exception) -> str:
    """What a policy raised and where, for one line of a log: `KeyError at /srv/shop/opsjobs_access.py:12`.

    Not its message, which may quote what the policy was asked about; only that of an error of our own.
    """
    _, *inside = extract_tb(error.__traceback__)  # the first frame is ours, which asked
    more = f" at {inside[0].filename}:{inside[0].lineno}" if inside else f": {error}"
    return f"{type(error).__name__}{more}"


def _takes(method: Callable[..., Any], arguments: Sequence[str]) -> bool:
    try:
        signature(method).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # written in C: it has no signature to be read
        return True
    return True
