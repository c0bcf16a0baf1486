"""Simulates what a limiter would do with future jobs: a form and its outcome. Changes nothing."""

from __future__ import annotations

from flask import Response, request

from ...core.reading import Reading
from ...limits.simulation import Live, SimulatedJob, TooLong, Trial, limit_of, read_live
from ...limits.words import in_words
from ..app import pages
from ..app.heavy import heavy
from ..app.reading import reading
from . import outcomes
from . import view as limiters
from .outcomes import Tried
from .trial_form import JOBS, MOST_JOBS, SHAPE, Form, read_form
from .view import LimiterRequest


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

    None without them; when they cannot be used, the form gets a fault that says why.
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
        fault = f"With those that wait there are more than {MOST_JOBS:,} jobs"
        form.faults["live"] = f"{fault}: let fewer come, or begin without them."
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
