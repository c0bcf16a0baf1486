"""Shows the page that simulates a limiter: reads its form, and tries what was typed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from flask import Response, request

from ...core.reading import Reading
from ...limits.limit import LONGEST_SECONDS, MOST_NUMBER, BadLimit, Limit
from ...limits.simulation import (
    LimitChange,
    Live,
    SimulatedJob,
    TooLong,
    Trial,
    change_limit,
    limit_of,
    read_live,
)
from ...limits.words import in_words
from ..app import pages
from ..app.host import heavy, reading
from . import outcomes
from . import view as limiters
from .outcomes import Tried
from .view import LimiterRequest

MOST_JOBS = 10_000
# Hints write `10,000`, so a person may type the comma too.
_WHOLE = re.compile(r"[0-9]{1,12}|[0-9]{1,3}(,[0-9]{3}){1,3}")
_DECIMAL = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")


@dataclass(frozen=True)
class Field:
    """A field for a number from `least` to `most`, with a `hint` below it.

    Without `may_be_least` the number must be above `least`.
    """

    name: str
    label: str
    hint: str
    least: int
    most: int
    is_whole: bool = True
    may_be_least: bool = True

    @property
    def allows(self) -> str:
        """The allowed numbers, in words."""
        if self.is_whole:
            return f"a whole number from {self.least:,} to {self.most:,}"
        begin = "from" if self.may_be_least else "above"
        return f"a number {begin} {self.least:,}, at most {self.most:,}"

    def read(self, text: str) -> float | None:
        """The typed number; None when it is not a number, or not allowed."""
        if not (_WHOLE if self.is_whole else _DECIMAL).fullmatch(text):
            return None
        value = int(text.replace(",", "")) if self.is_whole else float(text)
        is_allowed = self.least <= value <= self.most
        return value if is_allowed and (self.may_be_least or value > self.least) else None


JOBS = (
    Field("count", "Jobs at once", f"1 to {MOST_JOBS:,}", 1, MOST_JOBS),
    Field("weight", "Weight of each", "tokens and places that each takes", 1, MOST_NUMBER),
    Field("run_seconds", "Run time", "seconds that each runs", 0, LONGEST_SECONDS, is_whole=False),
    Field("workers", "Workers", "empty: as many as needed", 1, MOST_JOBS),
)
SHAPE = (
    Field("rate", "Rate", "how many start …", 0, MOST_NUMBER, is_whole=False, may_be_least=False),
    Field(
        "per",
        "Per",
        "… in this many seconds",
        0,
        LONGEST_SECONDS,
        is_whole=False,
        may_be_least=False,
    ),
    Field("burst", "Burst", "most starts at once; with another rate: that rate", 1, MOST_NUMBER),
    Field("concurrency", "Concurrency", "most jobs that run at the same time", 1, MOST_NUMBER),
)


@dataclass(frozen=True)
class Form:
    """The typed texts by field, their numbers, and the faults: sentences by field.

    `live` is whether the simulation begins with the limiter's current state.
    """

    typed: Mapping[str, str]
    numbers: Mapping[str, float]
    live: bool
    limit: Limit
    faults: dict[str, str] = field(default_factory=dict)

    def whole(self, name: str) -> int | None:
        """The whole number in a field; None when it is empty."""
        value = self.numbers.get(name)
        return None if value is None else int(value)


def read_form(args: Mapping[str, str], declared: Limit, weight: int) -> Form:
    """The form in `args`, for a limiter declared as `declared`. `weight` is the default weight of a job."""
    usual = {"count": "100", "weight": str(weight), "run_seconds": "1"}
    typed, numbers, faults = {}, {}, {}
    for each in (*JOBS, *SHAPE):
        typed[each.name] = text = args.get(each.name, "").strip() or usual.get(each.name, "")
        value = each.read(text)
        if value is not None:
            numbers[each.name] = value
        elif text:
            faults[each.name] = f"Give {each.allows}."
    limit = declared
    try:
        limit = change_limit(declared, _change(numbers), declared.name)
    except BadLimit as bad:
        # A field that has a fault already keeps it.
        for name, fault in bad.faults:
            faults.setdefault(name, f"{fault[:1].upper()}{fault[1:]}.")
    return Form(typed, numbers, bool(args.get("live")), limit, faults)


def _change(numbers: Mapping[str, float]) -> LimitChange:
    def whole(name: str) -> int | None:
        return int(numbers[name]) if name in numbers else None

    return LimitChange(
        numbers.get("rate"), numbers.get("per"), whole("burst"), whole("concurrency")
    )


def page(limiter: str) -> Response:
    """The document. Invalid values answer 400, with the form as it was typed and its faults."""
    with heavy():
        with reading() as read:
            asked = limiters.find_asked(read, limiter)
            declared = limit_of(asked.row)
            form = read_form(request.args, declared, asked.row.weight)
            live = _live(read, asked, form)
        tried = [] if form.faults else _try(form, live, asked)
    return pages.document(
        "limiter_simulate/page.html",
        "limiters",
        f"Simulate {limiter}",
        read.now,
        status=400 if form.faults else 200,
        asked=asked,
        form=form,
        declared=asked.row.shape,
        fields=(JOBS, SHAPE),
        live=live,
        tried=tried,
        numbers=outcomes.numbers(tried),
        blocks=outcomes.blocks(tried),
        chart=outcomes.make_chart(tried),
        moment=outcomes.start_in_words,
        in_words=in_words,
    )


def _live(read: Reading, asked: LimiterRequest, form: Form) -> Live | None:
    """The limiter's state and waiting jobs, if the form asks for them.

    Returns None when the form does not ask, and when they cannot be used; then the form gets a fault.
    """
    if not form.live:
        return None
    if asked.bucket is None:
        form.faults["live"] = "Each partition has a bucket of its own: choose one first."
    if form.faults or asked.bucket is None:
        return None
    room = MOST_JOBS - (form.whole("count") or 0)
    live = read_live(read.session, asked.row.name, asked.bucket, room + 1)
    if len(live.waiting) > room:
        fault = f"Together with the waiting jobs these are more than {MOST_JOBS:,} jobs"
        form.faults["live"] = f"{fault}: simulate fewer jobs, or begin without the waiting ones."
    return live


def _try(form: Form, live: Live | None, asked: LimiterRequest) -> list[Tried]:
    """The outcome with the form's shape and, when it differs, with the declared shape."""
    jobs = [SimulatedJob(0.0, form.whole("weight") or 1)] * (form.whole("count") or 0)
    trial = Trial(jobs, form.numbers["run_seconds"], form.whole("workers"), live)
    shapes = {"As tried": form.limit.shape, "As declared": asked.row.shape}
    if form.limit.shape == asked.row.shape:
        del shapes["As tried"]
    try:
        return [Tried(name, shape, trial.under(shape)) for name, shape in shapes.items()]
    except TooLong as error:
        fault = str(error)
        form.faults["count"] = f"{fault[:1].upper()}{fault[1:]}."
        return []
