"""Declares the limit of a task, and finds the limiter, the partition and the lane of one call."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import Enum
from typing import Any, NamedTuple
from uuid import UUID

from ..errors import DeclarationError
from .bucket import Shape
from .models import WHEN_FULL

_NAME = re.compile(r"[A-Za-z0-9_.:\-]{1,200}")
MOST_NUMBER = 2**31 - 1
_SHORTEST_SECONDS, LONGEST_SECONDS = 1e-6, 366 * 86_400
# With a longer fill time, the date when the bucket is full could pass the year 9999.
_LONGEST_FILL_SECONDS = 100 * LONGEST_SECONDS
_LONGEST_PARTITION = 200
# A lane as text is `queue`, or `queue|limiter|partition`: names of queues and limiters have no bar.
_BAR = "|"

Chooser = str | Callable[[dict[str, Any]], Any]


class JobLimit(NamedTuple):
    """The limiter of one job, its partition ('' without one) and its weight."""

    limiter: str
    partition: str
    weight: int


def lane_of(queue: str, job_limit: JobLimit | None) -> str:
    """The lane of a job in this queue."""
    return (
        queue if job_limit is None else _BAR.join((queue, job_limit.limiter, job_limit.partition))
    )


def bucket_of(lane: str) -> tuple[str, str] | None:
    """The limiter and partition of the bucket that limits a lane; None for a lane without a limit."""
    parts = lane.split(_BAR, 2)
    return (parts[1], parts[2]) if len(parts) == 3 else None


class BadJobLimit(ValueError):
    """A call has no valid partition or weight.

    `what` names which; the message says why, without the value.
    """

    def __init__(self, what: str, message: str) -> None:
        self.what = what
        super().__init__(message)


class BadLimit(DeclarationError):
    """A declared limit is invalid.

    `faults` are pairs of an option ("" for the whole limit) and a sentence.
    """

    def __init__(self, name: str, faults: Sequence[tuple[str, str]]) -> None:
        self.faults = faults
        super().__init__(f"Limit {name!r}: " + "; ".join(sentence for _, sentence in faults))


@dataclass(frozen=True)
class Limit:
    """A named limiter of a rate, a concurrency, or both. Raises `BadLimit` with every fault.

    The rate is `rate` starts per `per` seconds, at most `burst` (by default `rate`) of them at once. At most
    `concurrency` jobs run at the same time.

    `partition` is the name of an argument or a function of the arguments: each of its values has a limit of
    its own.
    `weight` is a number, the name of an argument or a function: how much one job counts. `when_full="reject"`
    raises `LimitReached` at enqueue instead of holding the job. Tasks whose limits have the same name share
    the limiter, and must declare the same numbers.

    >>> @opsjobs.task(limit=Limit("customer-api", rate=10, per=60, partition="account_id"))
    ... def sync_account(account_id: int) -> None:
    ...     print("syncing")
    >>> Limit("customer-api", rate=10)
    Traceback (most recent call last):
    flask_opsjobs.limits.limit.BadLimit: Limit 'customer-api': ...
    """

    name: str
    rate: float | None = None
    per: float | timedelta | None = None
    burst: int | None = None
    concurrency: int | None = None
    partition: Chooser | None = None
    weight: int | Chooser = 1
    when_full: str = "hold"

    def __post_init__(self) -> None:
        faults = [*self._faults_of_name(), *self._faults_of_rate(), *self._faults_of_choices()]
        if faults:
            raise BadLimit(self.name, faults)
        most = self.shape.most
        if isinstance(self.weight, int) and most is not None and self.weight > most:
            raise BadLimit(self.name, [("weight", _too_heavy(self.weight, self.shape))])

    @property
    def shape(self) -> Shape:
        """The numbers of the limiter; without a `burst`, the rate rounded down, at least 1."""
        if self.rate is None or self.per is None:
            return Shape(concurrency=self.concurrency)
        burst = self.burst if self.burst is not None else max(1, math.floor(self.rate))
        return Shape(float(self.rate), _seconds(self.per), burst, self.concurrency)

    @property
    def stored(self) -> dict[str, Any]:
        """The columns that are stored: the numbers, and the names of what chooses partition and weight."""
        shape = self.shape
        return {
            "name": self.name,
            "rate": shape.rate,
            "per_seconds": shape.per_seconds,
            "burst": shape.burst,
            "concurrency": shape.concurrency,
            "partition_by": _in_words(self.partition),
            "weight_by": _in_words(self.weight),
            "when_full": self.when_full,
        }

    @property
    def shared(self) -> tuple[Any, ...]:
        """The values that must be equal in all tasks that share the limiter."""
        return self.shape, self.when_full, self.partition is None

    def require_names(self, task: str, names: Iterable[str], redact: Iterable[str]) -> None:
        """Raise `DeclarationError` unless partition and weight name only stored arguments."""
        known = tuple(names)
        for what, chosen in (("partition", self.partition), ("weight", self.weight)):
            if not isinstance(chosen, str) or chosen in known:
                continue
            if chosen in set(redact):
                fault = f"is redacted: its value is never stored, so it cannot be the {what}"
            else:
                fault = f"is not an argument of it; there are {', '.join(known) or 'none'}"
            raise DeclarationError(f"task {task}: limit {self.name}: {what}={chosen!r} {fault}")

    def require_types(self, task: str, annotation_of: Callable[[str], Any]) -> None:
        """Raise `DeclarationError` when partition or weight names an argument annotated `float`.

        Every call would then be refused.
        """
        allowed = {
            "partition": "a text, a whole number, a UUID or a date",
            "weight": "a whole number",
        }
        for what, chosen in (("partition", self.partition), ("weight", self.weight)):
            if isinstance(chosen, str) and annotation_of(chosen) is float:
                raise DeclarationError(
                    f"task {task}: limit {self.name}: {what}={chosen!r} is annotated float, "
                    f"which cannot be a {what}: name an argument that is {allowed[what]}, "
                    "or give a function that returns one"
                )

    def of_job(self, arguments: dict[str, Any]) -> JobLimit:
        """The limiter, partition and weight of a call with these arguments. Raises `BadJobLimit`.

        `arguments` has the defaults filled in and the redacted ones left out.
        """
        partition = _partition(_choose("partition", self.partition, arguments))
        weight = (
            self.weight
            if isinstance(self.weight, int)
            else _choose("weight", self.weight, arguments)
        )
        if (
            isinstance(weight, bool)
            or not isinstance(weight, int)
            or not 1 <= weight <= MOST_NUMBER
        ):
            raise BadJobLimit(
                "weight", f"the weight must be a whole number from 1 to {MOST_NUMBER:,}"
            )
        most = self.shape.most
        if most is not None and weight > most:
            raise BadJobLimit("weight", f"limit {self.name}: " + _too_heavy(weight, self.shape))
        return JobLimit(self.name, partition, weight)

    def _faults_of_name(self) -> list[tuple[str, str]]:
        if (
            isinstance(self.name, str)
            and _NAME.fullmatch(self.name)
            and self.name not in (".", "..")
        ):
            return []
        return [("name", "its name must be 1 to 200 letters, digits and _ - . :")]

    def _faults_of_rate(self) -> list[tuple[str, str]]:
        faults = []
        if (self.rate is None) != (self.per is None):
            sentence = "rate and per go together: rate=10, per=60 is ten starts a minute"
            faults.append(("rate" if self.rate is None else "per", sentence))
        if self.rate is not None and not _is_number(self.rate, MOST_NUMBER):
            sentence = f"rate must be a number above 0, at most {MOST_NUMBER:,}, got {self.rate!r}"
            faults.append(("rate", sentence))
        if self.per is not None and not _seconds(self.per) >= _SHORTEST_SECONDS:
            sentence = (
                "per must be seconds or a timedelta, at least a microsecond and at most a year"
            )
            faults.append(("per", f"{sentence}, got {self.per!r}"))
        if self.burst is not None and self.rate is None:
            faults.append(("burst", "burst bounds a rate: give rate= and per=, or leave it out"))
        for what in ("burst", "concurrency"):
            if getattr(self, what) is not None and not _is_whole(getattr(self, what)):
                value = getattr(self, what)
                sentence = f"{what} must be a whole number from 1 to {MOST_NUMBER:,}, got {value!r}"
                faults.append((what, sentence))
        is_rate = not faults and self.rate is not None
        if is_rate and _fill_seconds(self.shape) > _LONGEST_FILL_SECONDS:
            sentence = "it takes more than a century to fill: give a higher rate or a lower burst"
            faults.append(("rate", sentence))
        if self.rate is None and self.per is None and self.concurrency is None:
            faults.append(("", "it limits nothing: give rate= and per=, or concurrency=, or both"))
        return faults

    def _faults_of_choices(self) -> list[tuple[str, str]]:
        faults = []
        if (
            self.partition is not None
            and not isinstance(self.partition, str)
            and not callable(self.partition)
        ):
            sentence = "partition must be the name of an argument or a function of the arguments"
            faults.append(("partition", sentence))
        if not (isinstance(self.weight, str) or callable(self.weight) or _is_whole(self.weight)):
            sentence = (
                f"weight must be a whole number from 1 to {MOST_NUMBER:,}, the name of an argument, "
                "or a function"
            )
            faults.append(("weight", sentence))
        if self.when_full not in WHEN_FULL:
            sentence = f'when_full must be "hold" or "reject", got {self.when_full!r}'
            faults.append(("when_full", sentence))
        return faults


def require_alike(limits: Iterable[tuple[str, Limit | None]], task: str, limit: Limit) -> None:
    """Raise `DeclarationError` when another task declares a limiter of this name differently.

    `limits` are pairs of the name of another task and its limit.
    """
    for other, found in limits:
        if found is not None and found.name == limit.name and found.shared != limit.shared:
            raise DeclarationError(
                f"limit {limit.name} differs between task {other} and task {task}: tasks that share it give "
                "the same rate, per, burst, concurrency and when_full, and all of them a partition or none. "
                "Use one Limit(…) object in both tasks, or give one of the limits another name"
            )


def _choose(what: str, chosen: Chooser | None, arguments: Mapping[str, Any]) -> Any:
    if chosen is None:
        return None
    if isinstance(chosen, str):
        return arguments[chosen]
    try:
        return chosen(dict(arguments))
    except Exception as error:
        # Only the class of the error: its message may quote a value.
        raised = type(error).__name__
    raise BadJobLimit(what, f"its function raised {raised}")


def _partition(value: Any) -> str:
    if isinstance(value, Enum):
        value = value.value
    if value is None:
        return ""
    if not isinstance(value, str | int | UUID | date):
        raise BadJobLimit(
            "partition",
            f"{type(value).__name__} cannot be a partition: give a text, a whole number, a UUID or a date",
        )
    # Python refuses to convert an integer of thousands of digits to text.
    is_endless = isinstance(value, int) and abs(value) >= 10**_LONGEST_PARTITION
    text = "" if is_endless else str(value)
    if (
        is_endless
        or len(text) > _LONGEST_PARTITION
        or "\0" in text
        or (not text.isascii() and _is_torn(text))
    ):
        raise BadJobLimit(
            "partition",
            f"a partition is a text of at most {_LONGEST_PARTITION} characters, all of them Unicode and none "
            "NUL",
        )
    return text


def _is_torn(text: str) -> bool:
    return text.encode("utf-8", "replace") != text.encode("utf-8", "surrogatepass")


def _too_heavy(weight: int, shape: Shape) -> str:
    bound = "burst" if shape.most == shape.burst else "concurrency"
    return f"a weight of {weight} can never start, since its {bound} is {shape.most}"


def _seconds(per: float | timedelta) -> float:
    """The span in seconds; NaN when it is not a span from above 0 to a year."""
    seconds = per.total_seconds() if isinstance(per, timedelta) else per
    return float(seconds) if _is_number(seconds, LONGEST_SECONDS) else math.nan


def _fill_seconds(shape: Shape) -> float:
    """How long an empty bucket takes to fill."""
    assert shape.burst is not None
    return shape.burst / shape.per_second if shape.per_second else math.inf


def _is_number(value: object, most: float) -> bool:
    # The comparison refuses NaN.
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= most


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_NUMBER


def _in_words(chosen: object) -> str | None:
    if chosen is None or isinstance(chosen, str):
        return chosen
    return (
        str(chosen)
        if isinstance(chosen, int)
        else f"{getattr(chosen, '__qualname__', 'a function')}()"
    )
