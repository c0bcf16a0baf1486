"""Our loggers: what each of them says stands on lines of its own, whoever wrote the names and paths in it, and without
the values that a database error quotes.

The heads of the audit's chain are also written to the log, so nobody may write a line there that passes for one of
ours.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from .db import forget_values
from .visible_text import on_one_line

LOGGERS = (
    "flask_opsjobs",
    "flask_opsjobs.audit",
    "flask_opsjobs.cron",
    "flask_opsjobs.dispatch",
    "flask_opsjobs.jobs",
    "flask_opsjobs.lifeline",
    "flask_opsjobs.loops",
    "flask_opsjobs.worker",
)


class _OnOneLine(logging.Filter):
    """Writes out ends of lines and controls in what a record says. It lets every record pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = on_one_line(str(record.msg))
        if isinstance(record.args, Mapping):
            record.args = {name: _argument(value) for name, value in record.args.items()}
        else:
            record.args = tuple(map(_argument, record.args or ()))
        if record.exc_info and record.exc_info[1] is not None:
            forget_values(record.exc_info[1])
            # Where it is set, formatters take it as it is.
            record.exc_text = "".join(_lines(record.exc_info[1])).rstrip("\n")
        return True


_ON_ONE_LINE = _OnOneLine()


def keep_on_one_line() -> None:
    """From now on, whatever handlers the host has; once or more."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_ON_ONE_LINE)


def _argument(value: Any) -> Any:
    """Numbers as they are, since a record may want to format them."""
    if isinstance(value, BaseException):
        forget_values(value)
    return value if isinstance(value, int | float) else on_one_line(str(value))


def _lines(error: BaseException) -> Iterator[str]:
    """A traceback as Python prints it, each of its lines set in, and every message on one."""
    for piece in traceback.TracebackException.from_exception(error).format():
        # The lines of a frame are of our files, and those between exceptions are Python's own.
        is_python_s = piece.lstrip(" |").startswith('File "') or piece.startswith("\n")
        text = piece.removesuffix("\n")
        for line in text.split("\n") if is_python_s else [text]:
            yield f"  {on_one_line(line)}\n"
