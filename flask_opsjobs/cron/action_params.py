"""Reads the parameters of a cron entry from a form, a command or Python into canonical values."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

import psycopg

from ..actions.numbers import read_whole, whole
from ..core.db import Connection
from ..errors import InvalidArgs
from ..host import Host
from ..jobs.record.enqueue import find_same_call
from .declaration import BadEntry, Faults, list_faults, make_entry
from .queries import CronEntryRow

_log = logging.getLogger("flask_opsjobs.cron")
MOST_CAUGHT_UP = 100


class BadParams(ValueError):
    """Parameters that no entry can have. `faults` are pairs: the parameter, and a sentence about it."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        super().__init__("; ".join(sentence for _, sentence in faults))


def read_count(value: Any) -> int:
    """The number of missed slots to catch up. Raises `ValueError` with what is allowed."""
    return read_whole(value, MOST_CAUGHT_UP, "count is {}")


def read_entry(host: Host, given: Mapping[str, Any]) -> dict[str, Any]:
    """The task, schedule, policies and arguments as they are stored. Raises `BadParams` with every fault."""
    faults = []
    name = given["task"]
    task = host.tasks.get(name) if isinstance(name, str) else None
    if task is None:
        faults.append(("task", f"there is no task {name!r} in this application"))
    args = given["args"]
    if isinstance(args, str):
        try:
            args = json.loads(args or "{}")
        except ValueError as wrong:
            faults.append(("args", f"args is not JSON: {wrong}"))
        except RecursionError:
            faults.append(("args", "args is nested too deeply"))
    policies = {
        param: usual if given[param] in (None, "") else given[param]
        for param, usual in (("zone", "UTC"), ("overlap", "skip"), ("catch_up", "none"))
    }
    number = whole(policies["catch_up"])
    policies["catch_up"] = policies["catch_up"] if number is None else number
    if task is None or faults:
        # Without a task or readable arguments, the arguments cannot be checked.
        raise BadParams([*faults, *list_faults(given["expression"], **policies)])
    try:
        entry = make_entry(task, given["expression"], args=args, name="new", **policies)
    except BadEntry as wrong:
        raise BadParams(wrong.faults) from None
    columns = entry.columns
    limit = columns.pop("catch_up_limit")
    return {**columns, "catch_up": columns["catch_up"] if limit is None else limit}


def find_call_fault(
    connection: Connection, host: Host, entry: CronEntryRow
) -> tuple[str, str] | None:
    """The skip's code and the sentence why the entry's task cannot be enqueued now; None when it can be."""
    task = host.tasks.get(entry.task)
    if task is None:
        return "illegal", f"there is no task {entry.task} in this application"
    try:
        same = find_same_call(connection, host, task, entry.args)
    except InvalidArgs as wrong:
        return "illegal", f"its arguments do not fit: {wrong}"
    except psycopg.Error:
        raise
    except Exception as error:
        # The host's code raised, such as the function of a unique key. Name only the class: the text may
        # quote a value.
        _log.exception("cron entry %s: its job could not be enqueued", entry.name)
        return "illegal", f"enqueuing its job raised {type(error).__name__}"
    return None if same is None else ("already", f"job {same} is the same unique call")
