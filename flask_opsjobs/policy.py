"""Declares the policies that a host writes, and asks the access policy: who acts, and what they may do.

`core/display.py` asks the display policy which values may be shown. The loop `escalate` calls the escalation
policy, if there is one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from itertools import dropwhile
from pathlib import Path
from traceback import extract_tb
from typing import Any, Protocol, runtime_checkable

_log = logging.getLogger("flask_opsjobs")
# Frames of these files called the host's code: ours, and those of `with` in ours.
_CALLERS = (f"{Path(__file__).parent}{os.sep}", contextlib.__file__)
_LIBRARIES = tuple(map(sysconfig.get_path, ("stdlib", "purelib", "platlib")))

# Gets what the policy was asked, `current_actor` or a permission, and the exception that it raised.
NoteFailure = Callable[[str, Exception], None]


@runtime_checkable
class AccessPolicy(Protocol):
    """Tells who is signed in, and what that person may do. Asked on every request; an exception means no.

    >>> class HostAccess:
    ...     def current_actor(self):
    ...         return "anna"
    ...     def can(self, actor, permission, subject=None):
    ...         return permission.endswith(".view") or permission == "job.retry"
    >>> isinstance(HostAccess(), AccessPolicy)
    True
    """

    def current_actor(self) -> str | None:
        """A stable name of the operator who is signed in, such as a login; None when nobody is."""
        ...

    def can(self, actor: str, permission: str, subject: str | None = None) -> bool:
        """Whether `actor` has `permission` (`jobs.view`, `job.retry`, …) on `subject` (`job/42`).

        A `subject` of None asks whether the actor has it in general, as for a list.
        """
        ...


@runtime_checkable
class DisplayPolicy(Protocol):
    """Tells which values of a job may be shown, exported or sent. An exception hides the value.

    >>> class HostDisplay:
    ...     def is_hidden_key(self, key):
    ...         return key in ("iban", "password")
    ...     def clean_text(self, text):
    ...         return text.replace("s3cr3t", "[hidden]")
    >>> isinstance(HostDisplay(), DisplayPolicy)
    True
    """

    def is_hidden_key(self, key: str) -> bool:
        """Whether to hide the value under this key of arguments, output or meta."""
        ...

    def clean_text(self, text: str) -> str:
        """The text (an error, a traceback, a log line, a value) with its secrets replaced."""
        ...


@runtime_checkable
class EscalationPolicy(Protocol):
    """Tells people of an incident: by mail, a webhook, a ticket. Called in a process of its own, for 30 s.

    >>> class HostEscalation:
    ...     def escalate(self, facts):
    ...         return f"TICKET-{facts['incident']}"
    >>> isinstance(HostEscalation(), EscalationPolicy)
    True
    """

    def escalate(self, facts: Mapping[str, Any]) -> str | None:
        """Tell of what the facts say; return a reference, such as a ticket's number, or None.

        The facts have passed the display policy; `docs/escalation.md` lists them. An exception fails the
        attempt, which is made again, at most five times in all. `facts["key"]` is the same each time.
        """
        ...


def find_actor(access: AccessPolicy, note_failure: NoteFailure) -> str | None:
    """The name of the person who is signed in; None when nobody is, or when the policy raises."""
    try:
        name = access.current_actor()
        # The log and the audit store the name, so an answer that is not a printable text is denied.
        is_name = isinstance(name, str) and bool(name.strip()) and name.isprintable()
        if name is not None and not is_name:
            raise TypeError(f"it answered a {type(name).__name__} that is no name")
        return name
    except Exception as error:
        note_failure("current_actor", error)
        return None


def is_allowed(
    access: AccessPolicy,
    actor: str,
    permission: str,
    subject: str | None,
    note_failure: NoteFailure,
) -> bool:
    """Whether the policy returns exactly True for this actor. An exception of the policy means no."""
    try:
        return access.can(actor, permission, subject) is True
    except Exception as error:
        note_failure(permission, error)
        return False


def find_bound(
    access: AccessPolicy, actor: str, permission: str, note_failure: NoteFailure
) -> int | None:
    """To how many targets at once the actor may do this; None when nothing bounds it.

    A policy may have the method `most_targets(actor, permission)`. It answers a number, 0 to freeze
    all of it, or None. An exception, and any other answer, count as 0.
    """
    most_targets = getattr(access, "most_targets", None)
    if most_targets is None:
        return None
    try:
        bound = most_targets(actor, permission)
        if bound is None:
            return None
        if isinstance(bound, int) and not isinstance(bound, bool) and bound >= 0:
            return bound
        _log.error("the access policy's most_targets answered no number (%r): denied", bound)
    except Exception as error:
        note_failure("most_targets", error)
    return 0


def find_sign_in(access: AccessPolicy, back: str, note_failure: NoteFailure) -> str | None:
    """Where people sign in and come back to our path `back`; None when the policy does not say.

    A policy may have the method `sign_in_url(next)`. It answers a path of this site with the prefix under
    which the host is mounted, as `url_for` makes it, or an address with http or https; or None. An exception,
    and any other answer, count as None.
    """
    sign_in_url: Callable[[str], str | None] | None = getattr(access, "sign_in_url", None)
    if sign_in_url is None:
        return None
    try:
        address = sign_in_url(back)
        if address is None or _is_address(address):
            return address
        raise TypeError(f"it answered a {type(address).__name__} that is no address")
    except Exception as error:
        note_failure("sign_in_url", error)
    return None


def _is_address(address: Any) -> bool:
    if not isinstance(address, str) or not address.isprintable():
        return False
    # A browser reads a backslash as a slash, and two slashes as the start of another site's address.
    is_path = address.startswith("/") and not address.replace("\\", "/").startswith("//")
    return is_path or address.startswith(("https://", "http://"))


def find_policy_fault(policy: Any, protocol: type) -> str | None:
    """Why `policy` lacks the methods of `protocol`, as the end of a sentence; None when it has them."""
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


def describe_failure(error: BaseException) -> str:
    """An exception of the host's code in a few words, for a log: `KeyError at /srv/shop/policies.py:12`.

    Its message is left out, since it may quote a value, and so are its causes, since one may be the error of
    a job. The message is kept only when our own code raised.
    """
    place = find_place(error)
    return f"{type(error).__name__}{f': {error}' if place is None else f' at {place}'}"


def find_place(error: BaseException) -> str | None:
    """The innermost line of the host's file that raised; None when our own code did, which called it."""
    frames = extract_tb(error.__traceback__)
    inside = [*dropwhile(lambda frame: frame.filename.startswith(_CALLERS), frames)]
    # A library may call it for us, such as Flask a teardown function.
    inside = [*dropwhile(lambda frame: frame.filename.startswith(_LIBRARIES), inside)] or inside
    own = [frame for frame in inside if frame.filename == inside[0].filename]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else None


def _takes(method: Callable[..., Any], arguments: Sequence[str]) -> bool:
    try:
        signature(method).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # a method written in C, without a readable signature
        return True
    return True
