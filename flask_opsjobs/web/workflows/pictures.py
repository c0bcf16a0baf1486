"""Draws a run for its page: its graph and its timeline, with names that passed the display policy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from markupsafe import Markup

from ...core.display import Display
from ...core.reading import Reading
from ...core.words import counted, took
from ...jobs.lifecycle import FINAL
from ...workflows.graph import DrawnNode
from ...workflows.queries import StepRow, list_attempts_of_steps
from ..app.host import host
from .graph_svg import draw_graph
from .run import RunView
from .timeline_svg import RanFor, TimelineRow, draw_run_timeline, most_telling

# The end of the timeline of a run that goes on moves in so many steps: else each poll would draw it anew.
_MOVES = 60
_SHORTEST_MOVE = 60


def draw_run(view: RunView) -> Markup:
    """The graph of a run. Each node is a link that chooses its step."""
    display = Display(host().display, may_see=True)
    drawing = view.steps.drawing
    nodes = tuple(replace(node, name=display.clean(node.name)) for node in drawing.nodes)
    steps = view.steps.by_id
    details = {
        node.id: display.clean(detail)
        for node in nodes
        if not node.is_stack and (detail := _detail(view, steps[node.id]))
    }

    def href(node: DrawnNode) -> str:
        return view.step_url(steps[node.id])

    current = None if view.step is None else view.step.id
    return draw_graph(replace(drawing, nodes=nodes), href, details, current)


def _detail(view: RunView, step: StepRow) -> str | None:
    """What the line below the name of a step says; None when its state says enough."""
    if step.is_open_wait:
        until = f", until {_clock(step.deadline_at)}" if step.deadline_at else ""
        return f"waits for a signal{until}"
    if step.state == "retryable" and step.due_at:
        return f"backs off, at {_clock(step.due_at)}"
    if step.state in FINAL and step.started_at and step.ended_at:
        return f"{step.state}, {took((step.ended_at - step.started_at).total_seconds())}"
    if step.state == "deferred":
        left = [source for source, _ in view.waits_for(step) if source.settled is None]
        if len(left) == 1:
            return f"waits for {left[0].name}"
        return f"waits for {counted(len(left), 'step')}" if left else None
    return None


def draw_timeline_of(read: Reading, view: RunView) -> Markup:
    """The timeline of a run, from its start to its end, or to about now."""
    display = Display(host().display, may_see=True)
    run = view.run.row
    shown = {step.id for step in most_telling(view.steps.rows)}
    attempts = list_attempts_of_steps(read.session, sorted(shown))

    def ran(step: StepRow) -> Iterator[RanFor]:
        mine = attempts.get(step.id, ())
        for number, (started_at, ended_at, outcome) in enumerate(mine, 1):
            is_last = number == len(mine)
            yield RanFor(started_at, ended_at, _state_after(step, outcome, is_last=is_last))

    def row(step: StepRow) -> TimelineRow:
        if step.id not in shown:
            return TimelineRow("", step.state, "")
        is_next = step.state == "retryable" and step.due_at is not None
        return TimelineRow(
            display.clean(step.name),
            step.state,
            view.step_url(step),
            step.released_at or step.opened_at,
            step.ended_at,
            tuple(ran(step)),
            f"next at {_clock(step.due_at)}" if is_next else "",
        )

    end = run.ended_at or _round_up(run.created_at, view.now)
    return draw_run_timeline([row(step) for step in view.steps.rows], run.created_at, end)


def _state_after(step: StepRow, outcome: str | None, *, is_last: bool) -> str:
    """The state in which an attempt left its step."""
    if outcome is None:
        return "started"
    if outcome == "returned":
        return "finished"
    return step.state if is_last and step.state in FINAL else "retryable"


def _round_up(begin: datetime, now: datetime) -> datetime:
    seconds = max(0.0, (now - begin).total_seconds())
    move = max(_SHORTEST_MOVE, seconds // _MOVES)
    return begin + timedelta(seconds=(seconds // move + 1) * move)


def _clock(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%H:%M}"
