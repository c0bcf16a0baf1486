"""Makes the key that groups failures of the same cause, and takes values out of messages. Pure.

A key has sixteen bytes: the number of the algorithm, and the beginning of a SHA-256. Line numbers and values
are no part of it, so it stays the same when lines move between two deploys. A new algorithm gets a new
number: it never regroups what is stored.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections import deque
from collections.abc import Callable
from typing import Any

from ..policy import describe_failure
from . import host_code
from .perform import describe_error

_log = logging.getLogger("flask_opsjobs.jobs")

ALGORITHM = 1
# The innermost functions of the host's code that count.
_FRAMES = 3
_LONGEST_GIVEN = 1_000
# The key of a task's failures beyond those that may be new in an hour.
OTHER = "other"

FailureKey = Callable[[BaseException], str | None]

# Parts of a message that differ from one failure to the next. Each alternative begins where no word goes on,
# so that a long word is looked at once.
_VALUE = re.compile(
    r"""
      (?<![\w-]) \w+://\S+                                                    # an address
    | (?<!\w) (?: '[^'\n]*' | "[^"\n]*" | `[^`\n]*` | “[^”\n]*” ) (?!\w)        # quoted
    | (?<![\w./\\-]) (?:[A-Za-z]:)? (?: [\\/]+ [\w.@~+-]+ )+ [\\/]*              # a path
    | (?<![\w.+-]) [\w.+-]++ @ [\w.-]+                                        # an address of e-mail
    | …                                                                       # hidden already
    | (?<![\w-]) (?=[\w-]*\d) [\w-]++ (?: [.,:] (?=\d) [\w-]++ )*               # a number, an id, a time
    """,
    re.VERBOSE,
)
HIDDEN = "…"


def key_of_error(
    task: str, error: BaseException, package: str, given: FailureKey | None = None
) -> str:
    """Return the key of an error that a task raised, as 32 hexadecimal digits. Never raises.

    Of the task's own `given`, if it returns a text; else of the type and the innermost three functions of the
    host's code; else of the type and the message without its values. `package` is the top-level package of
    the task's function.
    """
    if (own := _ask(task, error, given)) is not None:
        return _hash(task, "given", own)
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    if frames := _host_frames(error, package):
        return _hash(task, "raised", kind, *frames)
    return _hash(task, "message", kind, hide_values(describe_error.one_line(error)))


def key_of_end(task: str, outcome: str, death: str | None) -> str:
    """Return the key of an attempt that raised nothing, by its outcome and its cause of death.

    `rescue_jobs.sql` makes the same keys.
    """
    return _hash(task, "end", outcome, death or "")


def key_of_others(task: str) -> str:
    """Return the key of the failures of a task that are too many to be told apart."""
    return _hash(task, OTHER)


def hide_values(message: str) -> str:
    """Return a message with `…` in the place of its numbers, ids, quotes, paths and addresses.

    >>> hide_values("invoice 7 of 'ada' is not in /tmp/a.csv")
    'invoice … of … is not in …'
    """
    return _VALUE.sub(HIDDEN, message)


def merge_messages(known: str, new: str) -> str:
    """Return what two messages of one failure have in common: values that differ become `…`.

    When they differ in more than values, all values of the known one are hidden.

    >>> merge_messages("KeyError: 'a' in 7", "KeyError: 'a' in 8")
    "KeyError: 'a' in …"
    """
    if known == new:
        return known
    values, others = _VALUE.findall(known), _VALUE.findall(new)
    between = re.split(HIDDEN, hide_values(known))
    if len(values) != len(others) or between != re.split(HIDDEN, hide_values(new)):
        return hide_values(known)
    kept = (mine if mine == other else HIDDEN for mine, other in zip(values, others, strict=True))
    return "".join(text + value for text, value in zip(between, [*kept, ""], strict=True))


def _ask(task: str, error: BaseException, given: FailureKey | None) -> str | None:
    if given is None:
        return None
    try:
        own: Any = given(error)
    except Exception as failed:
        why = describe_failure(failed)
        _log.error("the failure_key of task %s raised (%s); the default is taken", task, why)
        return None
    if own is None or isinstance(own, str):
        return own and own[:_LONGEST_GIVEN]
    _log.error(
        "the failure_key of task %s is a %s, not a text; the default is taken",
        task,
        type(own).__name__,
    )
    return None


def _host_frames(error: BaseException, package: str) -> list[str]:
    """Return the innermost functions of the host's code, the innermost last."""
    frames: deque[str] = deque(maxlen=_FRAMES)
    found = error.__traceback__
    while found is not None:
        frame = found.tb_frame
        if host_code.is_host_file(frame.f_code.co_filename, package):
            frames.append(f"{frame.f_globals.get('__name__')}:{frame.f_code.co_qualname}")
        found = found.tb_next
    return list(frames)


def _hash(*parts: str) -> str:
    text = "\n".join(parts).encode(errors="backslashreplace")
    return f"{ALGORITHM:02x}{hashlib.sha256(text).hexdigest()[:30]}"
