"""Enqueues the job that reports an end of a run or a batch to the host."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ..core.db import Connection
from ..jobs.record.enqueue import load_for


def report_end(
    connection: Connection,
    call: Mapping[str, Any],
    subject: tuple[str, int],
    end_no: int,
    event: str,
    facts: Mapping[str, Any],
    now: datetime,
) -> tuple[str, str] | None:
    """Enqueue a callback in the caller's transaction; returns its lane and queue.

    None when this end was reported before. `call` is the stored task with its options, and with the trace
    context in which the run or batch began, if there was one; the job gets those of the `facts` that its task
    `accepts`. `subject` is `("workflow", 7)` or `("batch", 7)`. The job is never
    unique: a unique lock might be held by an open transaction of the host, and nobody may wait for that here.
    """
    of, of_id = subject
    options = {name: value for name, value in call.items() if name != "accepts"}
    args = json.dumps({name: facts[name] for name in call["accepts"] if name in facts})
    values = {
        **options,
        "of": of,
        "of_id": of_id,
        "end_no": end_no,
        "event": event,
        "args": args,
        "meta": json.dumps(call["meta"]),
        "now": now,
    }
    row = connection.execute(load_for("enqueue_callback", values), values).fetchone()
    return None if row is None else (row[0], row[1])
