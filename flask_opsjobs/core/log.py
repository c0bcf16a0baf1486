"""Filters what our loggers write: a name or path cannot start a new log line, and no database value is shown.

The heads of the audit's chain are also written to the log. A forged line must not look like one of them.
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
    "flask_opsjobs.batches",
    "flask_opsjobs.cron",
    "flask_opsjobs.dispatch",
    "flask_opsjobs.jobs",
    "flask_opsjobs.lifeline",
    "flask_opsjobs.loops",
    "flask_opsjobs.metrics",
    "flask_opsjobs.telemetry",
    "flask_opsjobs.worker",
    "flask_opsjobs.workflows",
)


class _OnOneLine(logging.Filter):
    """Escapes line ends and control characters in the text of a record. Lets every record pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = on_one_line(str(record.msg))
        if isinstance(record.args, Mapping):
            record.args = {name: _argument(value) for name, value in record.args.items()}
        else:
            record.args = tuple(map(_argument, record.args or ()))
        if record.exc_info and record.exc_info[1] is not None:
            forget_values(record.exc_info[1])
            # A formatter uses this text as it is when it is set.
            record.exc_text = "".join(_lines(record.exc_info[1])).rstrip("\n")
        return True


_ON_ONE_LINE = _OnOneLine()


def keep_on_one_line() -> None:
    """Add the filter to our loggers, whatever handlers the host has. Calling it again changes nothing."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_ON_ONE_LINE)


def _argument(value: Any) -> Any:
    """A number as it is, since the record may format it; anything else as text on one line."""
    if isinstance(value, BaseException):
        forget_values(value)
    return value if isinstance(value, int | float) else on_one_line(str(value))


def _lines(error: BaseException) -> Iterator[str]:
    """A traceback as Python prints it, each line indented, and each message on one line."""
    for piece in traceback.TracebackException.from_exception(error).format():
        # The lines of a frame come from source files, those between exceptions from Python: they may be
        # several.
        is_python_s = piece.lstrip(" |").startswith('File "') or piece.startswith("\n")
        text = piece.removesuffix("\n")
        for line in text.split("\n") if is_python_s else [text]:
            yield f"  {on_one_line(line)}\n"
