"""Makes a task of a declaration: a function that can be called as it is or enqueued as a job."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Unpack

from ...errors import DeclarationError
from ...host import Host
from ...limits.limit import require_alike
from . import enqueue, enqueue_many
from .declaration import TaskDeclaration
from .enqueue import Enqueued, EnqueuedMany
from .options import OptionChanges, Options, require_options

_OPTIONS = tuple(inspect.signature(TaskDeclaration).parameters)[1:]  # without the function


class Task(TaskDeclaration):
    """A function declared with `@opsjobs.task(…)`. `TaskDeclaration` lists and checks the options.

    Calling the task calls the function directly, without a job.

    >>> send_invoice
    <Task send_invoice>
    >>> send_invoice(9001)
    'sent 9001'
    """

    def __init__(
        self, function: Callable[..., Any], *, host: Callable[[], Host], **options: Any
    ) -> None:
        # First: it copies the attributes of the function, which must not replace our own.
        functools.update_wrapper(self, function)
        name = options.get("name") or getattr(function, "__name__", "")
        require_options(str(name), options, _OPTIONS)
        super().__init__(function, **options)
        self.host = host

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the plain function: no job, no validation."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    def enqueue(self, /, *args: Any, **kwargs: Any) -> Enqueued:
        """Enqueue a job in the transaction of the host's session; the host commits.

        Raises `InvalidArgs` with every fault, and then nothing was written; `LimitReached` when a full
        limiter rejects the call; `SchemaBehind`; and what Postgres raises.

        >>> job = send_invoice.enqueue(invoice_id=9001)
        >>> db.session.commit()
        >>> job.state, job.conflict
        ('available', False)
        >>> send_invoice.enqueue(invoice_id="many")
        Traceback (most recent call last):
        flask_opsjobs.errors.InvalidArgs: task send_invoice: invoice_id: ...
        """
        return enqueue.enqueue(self.host(), self, self.declared, args, kwargs)

    def enqueue_many(self, rows: Iterable[Mapping[str, Any]]) -> EnqueuedMany:
        """Enqueue a job per dict of arguments, in the transaction of the host's session; the host commits.

        Takes any number of rows in constant memory: `rows` may be a generator, and it may read from the same
        session.
        Raises `InvalidArgs` with the number of the row, and whatever `rows` raises. After an error nothing is
        written, and the transaction can be used further.

        >>> send_invoice.enqueue_many({"invoice_id": number} for number in range(1000))
        EnqueuedMany(count=1000, conflicts=0)
        >>> db.session.commit()
        """
        return enqueue_many.enqueue_many(self.host(), self, self.declared, rows)

    def options(self, **changes: Unpack[OptionChanges]) -> Call:
        """The task with other options for one `enqueue` or `enqueue_many`; the declaration stays as it is.

        Takes the options of the declaration, and `delay` (seconds or a `timedelta`), `scheduled_at` (with a
        time zone) and `session` (any `Session` on the same database). Raises `DeclarationError` with every
        fault.

        >>> send_invoice.options(delay=60, priority=1).enqueue(invoice_id=9002).state
        'scheduled'
        """
        options = self.declared.change(self.name, changes)
        self.require_names(options.unique, None)
        return Call(self, options)

    def s(self, /, *args: Any, **kwargs: Any) -> ChainLink:
        """The call with its arguments, to be made later: a link of a chain, or a step of a workflow.

        Nothing is checked or written before the workflow starts.

        >>> send_invoice.s(invoice_id=9001)
        <link send_invoice>
        >>> opsjobs.chain("invoices", send_invoice.s(9001), send_invoice.s(9002)).start().steps
        2
        """
        return ChainLink(self, self.declared, args, kwargs)

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


class Call:
    """A task with the options of one call. `Task.options` makes it."""

    def __init__(self, task: Task, options: Options) -> None:
        self.task = task
        self.chosen = options

    def enqueue(self, /, *args: Any, **kwargs: Any) -> Enqueued:
        """Like `Task.enqueue`, with these options."""
        return enqueue.enqueue(self.task.host(), self.task, self.chosen, args, kwargs)

    def enqueue_many(self, rows: Iterable[Mapping[str, Any]]) -> EnqueuedMany:
        """Like `Task.enqueue_many`, with these options."""
        return enqueue_many.enqueue_many(self.task.host(), self.task, self.chosen, rows)

    def s(self, /, *args: Any, **kwargs: Any) -> ChainLink:
        """Like `Task.s`, with these options."""
        return ChainLink(self.task, self.chosen, args, kwargs)


@dataclass(frozen=True, eq=False, slots=True)
class ChainLink:
    """A call with its options and arguments, to be made later. `Task.s` makes it.

    >>> send_invoice.options(queue="slow").s(9001)
    <link send_invoice>
    """

    task: Task
    chosen: Options
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __repr__(self) -> str:
        return f"<link {self.task.name}>"
