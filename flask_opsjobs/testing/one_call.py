"""Makes one call of a task as a worker makes it, without a row for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ..core.db import Connection
from ..core.reading import read_clock
from ..host import Host
from ..jobs.perform.current import Claimed
from ..jobs.perform.perform import Report, perform
from ..jobs.record.declaration import TaskDeclaration


def perform_call(
    host: Host,
    task: TaskDeclaration,
    args: Mapping[str, Any],
    connection: Connection,
    surround: Callable[[], AbstractContextManager[object]],
) -> tuple[dict[str, Any], BaseException | None]:
    """The fields of a `PerformedCall`, and the exception of the function.

    The function runs in the context `surround`. Raises `InvalidArgs`.
    """
    values = task.arguments.validate((), args)
    stored = task.arguments.dump(values, host.settings.max_args_bytes).decode()
    options, now = task.declared, read_clock(connection)
    claimed = Claimed(
        id=0,
        dispatch_no=0,
        task=task.name,
        queue=options.queue,
        args=stored,
        meta=dict(options.meta or {}),
        tags=task.tags_of(options, values),
        attempt=1,
        max_attempts=options.max_attempts,
        timeout_seconds=options.timeout,
        deadline_at=None if options.deadline is None else now + options.deadline,
        created_at=now,
        claimed_at=now,
    )
    most = host.settings.max_output_bytes
    report = Report(None, most, connect=lambda: nullcontext(connection), sender=host)
    with surround():
        outcome = perform({task.name: task}, claimed, report)
    fields = {
        "outcome": outcome.kind,
        "output": None if outcome.output is None else json.loads(outcome.output),
        "error": outcome.error,
        "reason": outcome.reason,
        "delay_seconds": outcome.delay_seconds,
    }
    return fields, report.take_error()
