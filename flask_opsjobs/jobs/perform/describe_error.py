"""Describes an exception in one line and a traceback: bounded, storable, without the values in it."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from types import TracebackType

import psycopg
from pydantic import ValidationError
from sqlalchemy.exc import PendingRollbackError, StatementError

from ...core.db import say_without_values
from ...core.words import counted
from ..record.json_storage import clean_text

MOST_ERROR_CHARACTERS = 500
MOST_TRACEBACK_BYTES = 32_000
_HEAD_BYTES = 8_000
_MOST_STATEMENT_CHARACTERS = 500
_MOST_IN_GROUP = 10
# A string literal in a statement; one without a closing quote hides the rest of the statement.
_TEXT_IN_SQL = re.compile(r"'(?:[^'\\]|\\.|'')*(?:'|$)")
_CAUSED = "\nThe above exception was the direct cause of the following exception:\n\n"
_WHILE = "\nDuring handling of the above exception, another exception occurred:\n\n"


def describe_error(error: BaseException) -> tuple[str, str | None]:
    """An error in one line, and its traceback. The traceback is None when memory or stack ran out."""
    try:
        return one_line(error), traceback_of(error)
    except (MemoryError, RecursionError):
        return type(error).__name__, None


def one_line(error: BaseException) -> str:
    """`ValueError: the message`, on one line of at most 500 characters."""
    details = message(error)
    text = f"{type(error).__qualname__}: {details}" if details else type(error).__qualname__
    line = " ".join(text[: 4 * MOST_ERROR_CHARACTERS].split())
    if len(line) > MOST_ERROR_CHARACTERS:
        line = line[: MOST_ERROR_CHARACTERS - 1] + "…"
    return clean_text(line)


def message(error: BaseException) -> str:
    """The message of an error, without the values that pydantic, SQLAlchemy and Postgres quote."""
    try:
        if isinstance(error, ValidationError):
            return _of_validation(error)
        if isinstance(error, StatementError):
            return _of_statement(error)
        if isinstance(error, PendingRollbackError):
            # After this mark follows the text of another error, with the parameters of its statement.
            return str(error).partition("Original exception was:")[0].strip()
        if isinstance(error, psycopg.Error):
            return say_without_values(error)
        return str(error)
    except Exception as another:
        return f"<its message cannot be read: {type(another).__name__}>"


def traceback_of(error: BaseException) -> str:
    """The traceback as Python prints it, with causes and groups; beyond 32 kB its middle is left out."""
    return shorten_traceback("".join(_lines(error, set())))


def shorten_traceback(text: str) -> str:
    """A traceback that can be stored; beyond 32 kB its middle is left out.

    Cuts at the ends of lines where possible: half a line may hold half a secret, which a display policy
    cannot detect.
    """
    raw = clean_text(text).encode()
    if len(raw) <= MOST_TRACEBACK_BYTES:
        return raw.decode()
    left_out = f"\n  … {len(raw) - MOST_TRACEBACK_BYTES} bytes left out …\n"
    tail = MOST_TRACEBACK_BYTES - _HEAD_BYTES - len(left_out.encode())
    first = raw[:_HEAD_BYTES].rpartition(b"\n")[0] or raw[:_HEAD_BYTES]
    last = raw[-tail:].partition(b"\n")[2] or raw[-tail:]
    return first.decode(errors="ignore") + left_out + last.decode(errors="ignore")


def _lines(error: BaseException, seen: set[int]) -> Iterator[str]:
    seen.add(id(error))
    if error.__cause__ is not None and id(error.__cause__) not in seen:
        yield from _lines(error.__cause__, seen)
        yield _CAUSED
    elif (
        error.__context__ is not None
        and not error.__suppress_context__
        and id(error.__context__) not in seen
    ):
        yield from _lines(error.__context__, seen)
        yield _WHILE
    yield "Traceback (most recent call last):\n"
    yield from traceback.format_tb(from_the_function_on(error.__traceback__))
    kind = type(error)
    module = "" if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}."
    yield f"{module}{kind.__qualname__}: {message(error)}\n"
    for note in getattr(error, "__notes__", ()):
        yield f"{note}\n"
    if isinstance(error, BaseExceptionGroup):
        yield from _group_lines(error, seen)


def _group_lines(group: BaseExceptionGroup[BaseException], seen: set[int]) -> Iterator[str]:
    for number, error in enumerate(group.exceptions[:_MOST_IN_GROUP], 1):
        yield f"  --- {number} of {len(group.exceptions)} in the group\n"
        if id(error) not in seen:
            for line in "".join(_lines(error, seen)).splitlines():
                yield f"  | {line}\n"


def from_the_function_on(found: TracebackType | None) -> TracebackType | None:
    """The traceback without our own frames, which called the function."""
    while found is not None and found.tb_next is not None and _is_ours(found):
        found = found.tb_next
    return found


def _is_ours(found: TracebackType) -> bool:
    return found.tb_frame.f_globals.get("__name__") == "flask_opsjobs.jobs.perform.perform"


def _of_validation(error: ValidationError) -> str:
    found = error.errors(include_input=False, include_context=False, include_url=False)
    # A location may contain a key of the input.
    places = ", ".join(
        f"{'.'.join(str(step) for step in one['loc'] if _is_field(step))} {one['type']}".strip()
        for one in found[:20]
    )
    errors = counted(len(found), "error")
    return f"{errors} for {error.title}: {places}"


def _is_field(step: int | str) -> bool:
    return isinstance(step, str) and step.isidentifier() and len(step) <= 50


def _of_statement(error: StatementError) -> str:
    cause = error.orig
    if isinstance(cause, psycopg.Error):
        text = f"({type(cause).__name__}) {message(cause)}"
    elif cause is not None:
        text = f"({type(cause).__name__}) a parameter of the statement could not be converted"
    else:
        text = str(error.args[0])
    statement = _TEXT_IN_SQL.sub("'[hidden]'", " ".join((error.statement or "").split()))
    if len(statement) > _MOST_STATEMENT_CHARACTERS:
        statement = f"{statement[:_MOST_STATEMENT_CHARACTERS]}…"
    return f"{text} [SQL: {statement}]" if statement else text
