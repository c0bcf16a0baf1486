"""Prepares the rows of a run. Finds every error of a workflow before a row is written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from ..errors import InvalidWorkflow
from ..host import Host
from ..jobs.record import json_storage
from ..jobs.record.options import seconds_of
from ..jobs.record.stored_call import StoredCall, store_callback
from ..jobs.record.task import ChainLink
from .declaration import WAIT_TASK, Map, Node, WorkflowDeclaration, is_list, references_of
from .faults import LONGEST_NAME, Faults, show_name
from .order import find_cycles, topological_order
from .prepare_step import DURATION, PreparedStep, StepPreparation
from .references import find_reference

MOST_STEPS = 10_000
MOST_EDGES = 100_000
TOO_MANY_STEPS = (
    f"a workflow has at most {MOST_STEPS:,}; a map adds elements beyond these, and a batch has any number "
    "of members"
)
# What the end of a run tells the task of its `on_end`.
FACTS = ("workflow_id", "name", "state", "end_no", "context")
# The first errors about unknown names ask whether one of so many names was meant.
_MOST_HINTS, _COMPARED = 10, 1_000
_SHOWN_OF_CYCLE = 10
_SHOWN_CYCLES = 10


@dataclass(frozen=True)
class Prepared:
    """The rows of a run. `steps` stand in the order of the graph; `positions` says as which each was built.

    `before` lists for each step the places in `steps` of those that it waits for.
    """

    steps: list[PreparedStep]
    positions: list[int]
    before: list[list[int]]
    context: bytes
    on_end: StoredCall | None
    shape: bytes


def prepare(
    host: Host, flow: WorkflowDeclaration, unique: object = None, deadline: object = None
) -> Prepared:
    """The rows of a run. Asks no database. Raises `InvalidWorkflow` with every error.

    `unique` and `deadline` are those of `start`, which are checked too.
    """
    faults = Faults()
    for fault in flow.faults:
        faults.add(None, "add", fault)
    faults.check_name(None, "its name", flow.name)
    if unique is not None:
        faults.check_name(None, "unique", unique)
    if deadline is not None and not seconds_of(deadline):
        faults.add(None, "deadline", f"deadline {DURATION}")
    context = _dump_context(flow.context, host.settings.max_args_bytes, faults)
    on_end = None if flow.on_end is None else store_callback(host, flow.on_end, FACTS)
    if isinstance(on_end, str):
        faults.add(None, "on_end", f"its on_end {on_end}")
    before = _Edges(flow.nodes, faults).before
    preparation = StepPreparation(host, faults)
    steps = [preparation.prepare(node) for node in flow.nodes]
    order = _find_order(flow.nodes, before, faults)
    if faults.all:
        raise InvalidWorkflow(show_name(flow.name), faults.all)
    assert not isinstance(on_end, str)
    return _in_order(steps, before, order, context, on_end)


def _in_order(
    steps: Sequence[PreparedStep | None],
    before: Sequence[Sequence[int]],
    order: list[int],
    context: bytes,
    on_end: StoredCall | None,
) -> Prepared:
    place_of = {position: place for place, position in enumerate(order)}
    whole = [step for step in steps if step is not None]
    for step, positions in zip(whole, before, strict=True):
        step.pending = len(positions)
    return Prepared(
        steps=[whole[position] for position in order],
        positions=order,
        before=[sorted(place_of[one] for one in before[position]) for position in order],
        context=context,
        on_end=on_end,
        shape=_shape_of([step.node for step in whole], before),
    )


def edges_of(prepared: Prepared) -> Iterator[tuple[int, int, bytes]]:
    """Each edge as the places of its two steps, and what happens when the first does not finish."""
    for place, (step, sources) in enumerate(zip(prepared.steps, prepared.before, strict=True)):
        for source in sources:
            goes_on = prepared.steps[source].node.may_fail or step.node.on_failure == "continue"
            yield source, place, b"continue" if goes_on else b"cancel"


def _dump_context(context: object, limit: int, faults: Faults) -> bytes:
    try:
        if not isinstance(context, Mapping):
            raise json_storage.NotStorable("not_json", "must be a dict")
        if find_reference(dict(context)) is not None:
            why = "holds the result of a step, but it is written when the run starts"
            raise json_storage.NotStorable("reference", why)
        raw = json_storage.dump(dict(context))
        json_storage.check_readable(raw)
        json_storage.check_keys(dict(context))
        if len(raw) > limit:
            why = f"is {len(raw)} bytes as JSON, more than OPSJOBS_MAX_ARGS_BYTES = {limit}"
            raise json_storage.NotStorable("too_large", why)
    except json_storage.NotStorable as error:
        faults.add(None, error.kind, f"its context {error}")
        return b""
    return raw


class _Edges:
    """Finds which step waits for which: `before` lists for each step the positions of others, each once."""

    def __init__(self, nodes: Sequence[Node], faults: Faults) -> None:
        self._faults = faults
        self._hints = 0
        self._named = self._find_names(nodes)
        self._positions = {id(node): position for position, node in enumerate(nodes)}
        self.before = [self._find_sources(node) for node in nodes]

    def _find_names(self, nodes: Sequence[Node]) -> dict[str, int]:
        named: dict[str, int] = {}
        for position, node in enumerate(nodes):
            if not self._faults.check_name(node, "its name", node.name):
                continue
            if named.setdefault(node.name, position) != position:
                self._faults.add(
                    node, "duplicate", "another step has this name too: give each its own"
                )
        self._check_names_of_members(nodes, named)
        return named

    def _check_names_of_members(self, nodes: Sequence[Node], named: Mapping[str, int]) -> None:
        """A map adds steps that are called after it: `resize[0]`, `resize[1]`, …"""
        numbered = (item for item in named.items() if item[0].endswith("]"))
        for name, position in numbered:
            of_map, bracket, number = name.removesuffix("]").rpartition("[")
            is_of_map = of_map in named and isinstance(nodes[named[of_map]], Map)
            if bracket and is_of_map and number.isdecimal():
                sentence = f"map {show_name(of_map)} adds a step with this name"
                self._faults.add(nodes[position], "duplicate", sentence)

    def _find_sources(self, node: Node) -> list[int]:
        found: dict[int, None] = {}
        for one in (*node.after, *(reference.node for reference in references_of(node))):
            known = self._named.get(one) if isinstance(one, str) else self._positions.get(id(one))
            if known is None:
                self._add_unknown(node, one)
            else:
                found[known] = None
        return list(found)

    def _add_unknown(self, node: Node, one: object) -> None:
        if isinstance(one, str):
            sentence = f"it waits for {show_name(one)}, which is no step{self._hint(one)}"
        elif isinstance(one, Node):
            sentence = (
                f"it waits for {show_name(one.name)}, a step of workflow {show_name(one.flow.name)}: "
                "add that workflow to this one with add(…)"
            )
        elif one is None:
            sentence = (
                "previous is the result of the link before: use it in a chain, after the first link"
            )
        elif is_list(one):
            sentence = "after has a list that contains itself"
        else:
            sentence = f"after takes steps, names of steps and lists, got {type(one).__name__}"
        self._faults.add(node, "unknown_step", sentence)

    def _hint(self, name: str) -> str:
        self._hints += 1
        known = list(self._named)[:_COMPARED] if self._hints <= _MOST_HINTS else []
        close = get_close_matches(name[:LONGEST_NAME], known, n=1)
        return f": did you mean {show_name(close[0])}?" if close else ""


def _find_order(
    nodes: Sequence[Node], before: Sequence[Sequence[int]], faults: Faults
) -> list[int]:
    """The order of the graph. Adds errors: of its size, and of its cycles."""
    steps, edges = len(nodes), sum(map(len, before))
    if not steps:
        faults.add(None, "empty", "it has no step")
    if steps > MOST_STEPS:
        faults.add(None, "too_many_steps", f"it has {steps:,} steps: {TOO_MANY_STEPS}")
    if edges > MOST_EDGES:
        sentence = (
            f"its steps wait for each other {edges:,} times, more than {MOST_EDGES:,}: put one step "
            "between many and many"
        )
        faults.add(None, "too_many_edges", sentence)
    for cycle in find_cycles(before, _SHOWN_CYCLES):
        names = [show_name(nodes[position].name) for position in cycle]
        more = len(names) - _SHOWN_OF_CYCLE
        shown = names[:_SHOWN_OF_CYCLE] + ([f"({more:,} more)"] if more > 0 else [])
        path = " → ".join([*shown, names[0]])
        faults.add(None, "cycle", f"its steps wait for each other in a cycle: {path}")
    return topological_order(before)


def _shape_of(nodes: Sequence[Node], before: Sequence[Sequence[int]]) -> bytes:
    """A hash of names, tasks and edges. Equal workflows have equal shapes, whatever their arguments."""
    digest = hashlib.blake2b(digest_size=16)
    for node, positions in zip(nodes, before, strict=True):
        link = getattr(node, "link", None)
        task = link.task.name if isinstance(link, ChainLink) else WAIT_TASK
        edges = ",".join(map(str, sorted(positions)))
        digest.update(f"{len(node.name)} {node.name} {node.kind} {task} {edges}\n".encode())
    return digest.digest()
