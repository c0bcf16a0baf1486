"""Changes what a waiting job calls: its arguments, and the limit, tags and unique keys made of them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...errors import InvalidArgs
from ...host import Host
from ...limits.limit import JobLimit, lane_of
from ...policy import describe_failure
from ..record import enqueue
from ..record.declaration import TaskDeclaration
from ..record.job_limit import job_limit_of

_log = logging.getLogger("flask_opsjobs")


class CannotEdit(ValueError):
    """The arguments cannot be changed so. The message says why, without a value."""


@dataclass(frozen=True)
class JobCall:
    """What a job calls. `args` are JSON values. `takes_results`: some of them are results of other steps.

    `new_keys` are the keys of its unique lock, when an edit moves the lock.
    """

    id: int
    args: Mapping[str, Any]
    tags: Sequence[str]
    limiter: str | None
    partition: str | None
    weight: int | None
    takes_results: bool
    new_keys: Sequence[bytes] = ()

    @property
    def job_limit(self) -> JobLimit | None:
        """Its limiter, partition and weight; None without a limit."""
        if self.limiter is None or self.partition is None or self.weight is None:
            return None
        return JobLimit(self.limiter, self.partition, self.weight)


@dataclass(frozen=True)
class Edited:
    """What an edit makes of a job. `changed` names the arguments that it changes.

    `is_served`: a live worker listens to its queue.
    """

    queue: str
    priority: int
    call: JobCall
    changed: Sequence[str] = ()
    is_served: bool = True

    @property
    def lane(self) -> str:
        """The lane in which it shall wait."""
        return lane_of(self.queue, self.call.job_limit)

    @property
    def args(self) -> dict[str, Any]:
        """The arguments that it changes, as they shall be."""
        return {name: self.call.args[name] for name in self.changed}


def change_arguments(
    host: Host, task: TaskDeclaration, call: JobCall, changed: Mapping[str, Any], key: bytes | None
) -> JobCall:
    """The call with these arguments changed, as an enqueue would store it. The others stay as they are.

    `key` is the unique key of the job. Raises `CannotEdit`.
    """
    if redacted := sorted(task.redact & changed.keys()):
        raise CannotEdit(f"argument {redacted[0]} is redacted: leave it out, and it stays as it is")
    try:
        values = task.arguments.load({**call.args, **changed})
        raw = json.loads(task.arguments.dump(values, host.settings.max_args_bytes))
        before = _load_stored(task, call)
        return replace(
            call,
            args={**call.args, **{name: raw[name] for name in changed}},
            tags=_find_tags(task, call, before, values),
            new_keys=() if key is None else _find_new_keys(host, task, before, values, key),
            **_find_limit(host, task, values),
        )
    except InvalidArgs as wrong:
        raise CannotEdit(f"its arguments would not fit: {wrong}") from None


def _find_limit(host: Host, task: TaskDeclaration, values: dict[str, Any]) -> dict[str, Any]:
    limit = task.declared.limit
    if limit is None:
        return {"limiter": None, "partition": None, "weight": None}
    return job_limit_of(task, limit, host, values)._asdict()


def _load_stored(task: TaskDeclaration, call: JobCall) -> dict[str, Any] | None:
    """The arguments before the change; None when they do not fit the task, as after a deploy."""
    try:
        return task.arguments.load(call.args)
    except InvalidArgs:
        return None


def _find_tags(
    task: TaskDeclaration, call: JobCall, before: dict[str, Any] | None, after: dict[str, Any]
) -> Sequence[str]:
    """The tags made of the arguments after the change; the stored ones, unless the task makes them."""
    declared = task.declared
    if before is None or not callable(declared.tags):
        return call.tags
    is_made = list(call.tags) == task.tags_of(declared, before)
    return task.tags_of(declared, after) if is_made else call.tags


def _find_new_keys(
    host: Host,
    task: TaskDeclaration,
    before: dict[str, Any] | None,
    after: dict[str, Any],
    key: bytes,
) -> Sequence[bytes]:
    """The keys of the unique call after the change; none when it is the same unique call."""
    unique = task.declared.unique
    try:
        old, new = (
            [] if unique is None or values is None else enqueue.keys(task, unique, host, values)
            for values in (before, after)
        )
    except InvalidArgs:
        raise
    except Exception as error:  # the host's function of the key
        _log.error(
            "task %s: the key of an edited job failed (%s)", task.name, describe_failure(error)
        )
        raise CannotEdit(f"its unique key raised {type(error).__name__}") from None
    if key not in old:
        # A call may have options of its own, and nothing stores which arguments make it unique.
        raise CannotEdit(
            "its unique lock is not the one that its task declares for this call: cancel the job, and "
            "enqueue the call with the new arguments"
        )
    return [] if new == old else new
