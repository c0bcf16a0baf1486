"""Draws a run for its page: its graph and its timeline, with names that passed the display policy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from markupsafe import Markup

from ...core.display import Display
from ...core.reading import Reading
from ...core.words import counted, took
from ...jobs.lifecycle import FINAL
from ...workflows.graph import DrawnNode
from ...workflows.queries import Attempt, StepRow, list_attempts_of_steps
from .graph_svg import draw_graph
from .run import RunView
from .timeline_svg import RanFor, TimelineRow, draw_run_timeline

# The end of the timeline of a run that goes on moves in so many steps: else each poll would draw it anew.
_MOVES = 60
_SHORTEST_MOVE = 60
# Beside a row that is shorter than this part of the timeline stands how long it took.
_NARROW = 0.05


def draw_run(view: RunView, display: Display) -> Markup:
    """The graph of a run. Each node is a link that chooses its step."""
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


def draw_timeline_of(read: Reading, view: RunView, display: Display) -> Markup:
    """The timeline of a run to its end, or to about now. The members of a map share its row."""
    run, steps = view.run.row, view.steps
    end = run.ended_at or _round_up(run.created_at, view.now)
    members: dict[int, list[StepRow]] = defaultdict(list)
    for step in steps.rows:
        if step.map_of is not None and step.map_of in steps.by_id:
            members[step.map_of].append(step)
    attempts = list_attempts_of_steps(read.session, sorted(step.id for step in steps.in_timeline))
    shortest = (end - run.created_at).total_seconds() * _NARROW

    def row(step: StepRow) -> TimelineRow:
        state, mine = steps.state_of(step), members.get(step.id, ())
        name = display.clean(step.name) + (f" × {len(mine):,}" if mine else "")
        begin, ended_at = step.released_at or step.opened_at, step.ended_at
        ran = tuple(_attempts_of(step, attempts.get(step.id, ())))
        if mine:
            is_open = any(member.state not in FINAL for member in mine)
            ended_at = None if is_open else max(m.ended_at for m in (step, *mine) if m.ended_at)
            ran = tuple(_run_of(mine, state, ended_at))
        note = f"next at {_clock(step.due_at)}" if step.state == "retryable" else ""
        if begin and ended_at and (ended_at - begin).total_seconds() < shortest:
            note = took((ended_at - begin).total_seconds())
        return TimelineRow(name, state, view.step_url(step), begin, ended_at, ran, note)

    rows = [row(step) for step in steps.in_timeline]
    return draw_run_timeline(rows, len(steps.own), run.created_at, end)


def _run_of(members: Sequence[StepRow], state: str, ended_at: datetime | None) -> Iterator[RanFor]:
    """From the start of the first member to the end of the last one, as one bar."""
    started = [member.started_at for member in members if member.started_at]
    if started:
        yield RanFor(min(started), ended_at, state)


def _attempts_of(step: StepRow, attempts: Sequence[Attempt]) -> Iterator[RanFor]:
    for number, (started_at, ended_at, outcome) in enumerate(attempts, 1):
        is_last = number == len(attempts)
        yield RanFor(started_at, ended_at, _state_after(step, outcome, is_last=is_last))


def _state_after(step: StepRow, outcome: str | None, *, is_last: bool) -> str:
    """The state in which an attempt left its step."""
    if outcome is None:
        return "started"
    if outcome == "returned":
        return "finished"
    return step.state if is_last and step.state in FINAL else "retryable"


def _round_up(begin: datetime, now: datetime) -> datetime:
    """When the end of the timeline moves next: in the first hour of a run, at the next full minute."""
    seconds = max(0.0, (now - begin).total_seconds())
    move = max(_SHORTEST_MOVE, seconds // _MOVES)
    past = max(begin, now).timestamp() % move
    return max(begin, now) + timedelta(seconds=move - past)


def _clock(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%H:%M}"
