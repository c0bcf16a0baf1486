"""Declares a task: a function that can be called as it is or enqueued as a job."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Unpack

from ...errors import DeclarationError
from ...limits.limit import Limit, require_alike
from . import enqueue, enqueue_many
from .arguments import Arguments
from .enqueue import Enqueued, EnqueuedMany
from .options import Changes, Options, Unique, fault_of_name, seconds_of

if TYPE_CHECKING:
    from ...host import Host

Backoff = Callable[[int], float | timedelta] | float | timedelta
Hook = Callable[..., Any]


class Task:
    """A function declared with `@opsjobs.task(…)`.

    Calling the task calls the function directly, without a job. Raises `DeclarationError` with every fault
    and its fix. `timeout` is in seconds. `backoff` is a number of seconds, or a function of the attempt,
    which counts from 1. The hooks `on_start(job)`, `on_success(job, value)` and `on_failure(job, error)` are
    called in the process that runs the job. They only observe: their errors are logged.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        host: Callable[[], Host],
        name: str | None = None,
        queue: str = "default",
        priority: int = 5,
        max_attempts: int = 5,
        backoff: Backoff | None = None,
        timeout: int | None = None,
        deadline: timedelta | None = None,
        tags: Sequence[str] = (),
        meta: Mapping[str, Any] | None = None,
        unique: Unique | None = None,
        limit: Limit | None = None,
        redact: Iterable[str] = frozenset(),
        record_output: bool = False,
        on_start: Hook | None = None,
        on_success: Hook | None = None,
        on_failure: Hook | None = None,
    ) -> None:
        if not callable(function) or isinstance(function, type):
            raise DeclarationError(f"a task is a function, got {function!r}")
        functools.update_wrapper(self, function)
        self.function = function
        self.host = host
        self.name = name or str(getattr(function, "__name__", ""))
        self.redact = _names(self.name, redact)
        self.backoff = backoff
        self.record_output = record_output
        self.on_start, self.on_success, self.on_failure = on_start, on_success, on_failure
        self.declared = Options(
            queue=queue, priority=priority, max_attempts=max_attempts, timeout=timeout,
            deadline=deadline, tags=tags, meta=meta, unique=unique, limit=limit,
        )  # fmt: skip
        self._require_legal()
        self.arguments = Arguments(self.name, function, self.redact)
        self._require_names(unique, limit)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the plain function: no job, no validation."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    def enqueue(self, /, *args: Any, **kwargs: Any) -> Enqueued:
        """Enqueue a job in the transaction of the host's session; the host commits.

        Raises `InvalidArgs` with every fault, and then nothing was written; `LimitReached` when a full
        limiter rejects the call; `SchemaBehind`; and what Postgres raises.
        """
        return enqueue.enqueue(self, self.declared, args, kwargs)

    def enqueue_many(self, rows: Iterable[Mapping[str, Any]]) -> EnqueuedMany:
        """Enqueue a job per dict of arguments, in the transaction of the host's session; the host commits.

        Takes any number of rows in constant memory: `rows` may be a generator, and it may read from the same
        session.
        Raises `InvalidArgs` with the number of the row, and whatever `rows` raises. After an error nothing is
        written, and the transaction can be used further.
        """
        return enqueue_many.enqueue_many(self, self.declared, rows)

    def options(self, **changes: Unpack[Changes]) -> Call:
        """The task with other options for the next `enqueue` or `enqueue_many`; the declaration stays as it is.

        Takes the options of the declaration, and `delay` (seconds or a `timedelta`), `scheduled_at` (with a
        time zone) and `session` (any `Session` on the same database). Raises `DeclarationError` with every
        fault.
        """
        options = self.declared.change(self.name, changes)
        self._require_names(options.unique, None)
        return Call(self, options)

    def register(self, tasks: MutableMapping[str, Task]) -> None:
        """Add the task under its name. Raises `DeclarationError` when another function has this name.

        Also raises it when another task declares the same limiter differently.
        """
        other = tasks.get(self.name)
        if other is not None and other._origin != self._origin:
            raise DeclarationError(
                f"task {self.name} is declared twice, by {other._origin} and by {self._origin}: "
                "give one of them another name="
            )
        if (limit := self.declared.limit) is not None:
            others = [
                (each.name, each.declared.limit)
                for each in tasks.values()
                if each.name != self.name
            ]
            require_alike(others, self.name, limit)
        tasks[self.name] = self

    @property
    def _origin(self) -> str:
        """The module and name of the function. An equal origin means that its module was reloaded."""
        function = self.function
        return (
            f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', function)}"
        )

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
        for hook in ("on_start", "on_success", "on_failure"):
            if getattr(self, hook) is not None and not callable(getattr(self, hook)):
                faults.append(f"{hook} must be a function")
        if not isinstance(self.record_output, bool):
            faults.append(f"record_output must be True or False, got {self.record_output!r}")
        if faults:
            raise DeclarationError(f"task {self.name}: " + "; ".join(faults))
        self.declared.require_legal(self.name)

    def _require_names(self, unique: Unique | None, limit: Limit | None) -> None:
        for declared in (unique, limit):
            if declared is not None:
                declared.require_names(self.name, self.arguments.names, self.redact)
        if limit is not None:
            limit.require_types(self.name, self.arguments.annotation_of)


class Call:
    """A task with the options of one call. `Task.options` makes it."""

    def __init__(self, task: Task, options: Options) -> None:
        self.task = task
        self.chosen = options

    def enqueue(self, /, *args: Any, **kwargs: Any) -> Enqueued:
        """Like `Task.enqueue`, with these options."""
        return enqueue.enqueue(self.task, self.chosen, args, kwargs)

    def enqueue_many(self, rows: Iterable[Mapping[str, Any]]) -> EnqueuedMany:
        """Like `Task.enqueue_many`, with these options."""
        return enqueue_many.enqueue_many(self.task, self.chosen, rows)


def _names(task: str, redact: Iterable[str]) -> frozenset[str]:
    if isinstance(redact, str):
        raise DeclarationError(
            f"task {task}: redact must be a set of parameter names, such as {{{redact!r}}}"
        )
    return frozenset(redact)
