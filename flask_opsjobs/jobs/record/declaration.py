"""Declares a task as data: its function, its options, arguments and hooks. `Task` adds what enqueues it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any

from ...errors import DeclarationError, InvalidArgs
from ...limits.limit import Limit
from ..failure_key import FailureKey
from .arguments import Arguments
from .options import Options, Tags, Unique, fault_of_made_tags, fault_of_name, seconds_of

Backoff = Callable[[int], float | timedelta] | float | timedelta
Hook = Callable[..., Any]


class TaskDeclaration:
    """What `@opsjobs.task(…)` declares about a function.

    Raises `DeclarationError` with every fault and its fix. `timeout` is in seconds. `backoff` is a number of
    seconds, or a function of the attempt, which counts from 1. `tags` are texts, or a function that gets the
    arguments as a dict and returns texts, once when a job is enqueued. The hooks `on_start(job)`,
    `on_success(job, value)` and `on_failure(job, error)` are called in the process that runs the job. They
    only observe: their errors are logged. `failure_key(error)` returns a text that is equal for failures with
    the same cause, or None for the default. With `enqueue_from_page` an operator may enqueue jobs of it.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        queue: str = "default",
        priority: int = 5,
        max_attempts: int = 5,
        backoff: Backoff | None = None,
        timeout: int | None = None,
        deadline: timedelta | None = None,
        tags: Tags = (),
        meta: Mapping[str, Any] | None = None,
        unique: Unique | None = None,
        limit: Limit | None = None,
        redact: Iterable[str] = frozenset(),
        record_output: bool = False,
        enqueue_from_page: bool = False,
        on_start: Hook | None = None,
        on_success: Hook | None = None,
        on_failure: Hook | None = None,
        failure_key: FailureKey | None = None,
    ) -> None:
        if not callable(function) or isinstance(function, type):
            raise DeclarationError(f"a task is a function, got {function!r}")
        self.function = function
        self.is_async = inspect.iscoroutinefunction(function)
        self.name = name or str(getattr(function, "__name__", ""))
        self.redact = _names(self.name, redact)
        self.backoff = backoff
        self.record_output = record_output
        self.enqueue_from_page = enqueue_from_page
        self.on_start, self.on_success, self.on_failure = on_start, on_success, on_failure
        self.failure_key = failure_key
        self.declared = Options(
            queue=queue,
            priority=priority,
            max_attempts=max_attempts,
            timeout=timeout,
            deadline=deadline,
            tags=tags,
            meta=meta,
            unique=unique,
            limit=limit,
        )
        self._require_legal()
        self.arguments = Arguments(self.name, function, self.redact)
        self.require_names(unique, limit)

    def _require_legal(self) -> None:
        faults = []
        if fault := fault_of_name("its name", self.name):
            faults.append(f"{fault}; give name=…")
        if (
            self.backoff is not None
            and not callable(self.backoff)
            and seconds_of(self.backoff) is None
        ):
            faults.append(
                "backoff must be a function of the attempt that returns seconds, or seconds from 0 "
                f"to 100 years, got {self.backoff!r}"
            )
        for hook in ("on_start", "on_success", "on_failure", "failure_key"):
            if getattr(self, hook) is not None and not callable(getattr(self, hook)):
                faults.append(f"{hook} must be a function")
        for flag in ("record_output", "enqueue_from_page"):
            if not isinstance(value := getattr(self, flag), bool):
                faults.append(f"{flag} must be True or False, got {value!r}")
        if faults:
            raise DeclarationError(f"task {self.name}: " + "; ".join(faults))
        self.declared.require_legal(self.name)

    def require_names(self, unique: Unique | None, limit: Limit | None) -> None:
        """Raise `DeclarationError` unless both name only stored arguments."""
        for declared in (unique, limit):
            if declared is not None:
                declared.require_names(self.name, self.arguments.names, self.redact)
        if limit is not None:
            limit.require_types(self.name, self.arguments.annotation_of)

    def tags_of(self, options: Options, values: Mapping[str, Any]) -> list[str]:
        """The tags of a call with these validated arguments, each once.

        A function gets the arguments as a dict, defaults included, without those that the task redacts.
        Raises `InvalidArgs`, without any value, when it raises or returns no tags.
        """
        if not callable(options.tags):
            return list(options.tags)
        arguments = self.arguments.with_defaults(values)
        shown = {name: value for name, value in arguments.items() if name not in self.redact}
        try:
            made = options.tags(shown)
        except Exception as error:
            is_redacted = isinstance(error, KeyError) and error.args[0] in self.redact
            why = ": it gets no redacted argument" if is_redacted else ""
            fault: str | None = f"its function raised {type(error).__name__}{why}"
        else:
            fault = fault_of_made_tags(made)
        if fault is None:
            return list(dict.fromkeys(made))
        # Outside of `except`: the error of a host's function must not become the context of this one.
        raise InvalidArgs(self.name, [{"loc": "tags", "msg": fault, "type": "tags"}])


def _names(task: str, redact: Iterable[str]) -> frozenset[str]:
    if isinstance(redact, str):
        raise DeclarationError(
            f"task {task}: redact must be a set of parameter names, such as {{{redact!r}}}"
        )
    return frozenset(redact)
