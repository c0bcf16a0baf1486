"""Writes runs of workflows by plain SQL, and ends their steps, for tests of what happens between them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from flask_opsjobs.core.db import Connection
from flask_opsjobs.endings.advance import advance, list_runs_to_advance
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.record.stored_call import store_call
from flask_opsjobs.jobs.record.task import Task
from flask_opsjobs.workflows.checks import checks

_RUN = """
    INSERT INTO opsjobs.workflows (name, state, context, shape, steps, created_at, on_end)
    VALUES ('graph', 'running', '{}', '', %s, clock_timestamp(), %s) RETURNING id
"""
_JOBS = """
    INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, created_at, due_at, workflow_id)
    SELECT task, 'default', 'default', state, '{}', 1, clock_timestamp(), clock_timestamp(), %s
    FROM jsonb_to_recordset(%s) AS s (task text, state text, position int) ORDER BY position
    RETURNING id
"""
_STEPS = """
    INSERT INTO opsjobs.steps (job_id, workflow_id, name, position, kind, pending, released_at, may_fail,
        signals, key)
    SELECT id, %s, name, position, kind, pending, CASE WHEN state = 'available' THEN clock_timestamp() END,
        may_fail, signals, key
    FROM jsonb_to_recordset(%s) AS s (id bigint, name text, position int, kind text, pending int, state text,
        may_fail boolean, signals text[], key text)
"""
_EDGES = """
    INSERT INTO opsjobs.edges (from_id, to_id, on_failure)
    SELECT * FROM jsonb_to_recordset(%s) AS e (from_id bigint, to_id bigint, on_failure text)
"""
_END = """
    WITH moved AS (
        UPDATE opsjobs.jobs SET state = %(state)s, ended_at = clock_timestamp(), ended_by = %(ended_by)s
        WHERE id = %(id)s RETURNING id, workflow_id)
    INSERT INTO opsjobs.workflow_end_events SELECT workflow_id, ARRAY[id] FROM moved
"""


def _no_host() -> Host:
    raise AssertionError("a test that writes runs by SQL has no host")


def _call(workflow_id: int, state: str) -> None: ...


_TASK = Task(_call, host=_no_host, name="call", priority=0, max_attempts=1)
# A call that reports the end of a run, as `store_callback` stores it.
CALLBACK: dict[str, Any] = {
    **store_call(_TASK, _TASK.declared),
    "accepts": list(_TASK.arguments.names),
}
ENDED_BY = {"finished": "returned", "failed": "exhausted", "canceled": "canceled"}


@dataclass
class Graph:
    """A run whose steps are known by name. Edges are "a b", or "a b continue"."""

    connection: Connection
    run: int
    ids: dict[str, int] = field(default_factory=dict)

    @classmethod
    def make(
        cls,
        connection: Connection,
        steps: str,
        edges: Iterable[str],
        *,
        may_fail: Iterable[str] = (),
        waits: Mapping[str, tuple[str, str]] = MappingProxyType({}),
        on_end: Mapping[str, Any] | None = None,
    ) -> Graph:
        """Write a run that was just started. `waits` are the signal and the key of steps that are waits."""
        names = steps.split()
        pairs = [[*edge.split(), "cancel"][:3] for edge in edges]
        call = None if on_end is None else json.dumps(on_end)
        with connection.transaction():
            (run,) = connection.execute(_RUN, [len(names), call]).fetchone() or ()
            graph = cls(connection, run)
            pending = Counter(to for _, to, _ in pairs)
            steps_of_run = [
                {
                    "name": name,
                    "position": position,
                    "pending": pending[name],
                    "may_fail": name in may_fail,
                    "kind": "wait" if name in waits else "job",
                    "task": "opsjobs.wait" if name in waits else "call",
                    "signals": [waits[name][0]] if name in waits else None,
                    "key": waits[name][1] if name in waits else "",
                    "state": "deferred" if pending[name] or name in waits else "available",
                }
                for position, name in enumerate(names)
            ]
            ids = connection.execute(_JOBS, [run, json.dumps(steps_of_run)]).fetchall()
            graph.ids = {name: id for name, (id,) in zip(names, ids, strict=True)}
            rows = [{**step, "id": graph.ids[str(step["name"])]} for step in steps_of_run]
            connection.execute(_STEPS, [run, json.dumps(rows)])
            edges_of_run = [
                {"from_id": graph.ids[source], "to_id": graph.ids[target], "on_failure": on_failure}
                for source, target, on_failure in pairs
            ]
            connection.execute(_EDGES, [json.dumps(edges_of_run)])
        return graph

    def end(self, name: str, state: str = "finished", connection: Connection | None = None) -> None:
        """End a step as a worker would, with its end event."""
        values = {"id": self.ids[name], "state": state, "ended_by": ENDED_BY[state]}
        (connection or self.connection).execute(_END, values)

    def states(self) -> dict[str, str]:
        """The state of each step's job, by name."""
        names = {id: name for name, id in self.ids.items()}
        rows = self.connection.execute(
            "SELECT id, state FROM opsjobs.jobs WHERE id = ANY (%s) ORDER BY id", [[*names]]
        )
        return {names[id]: state for id, state in rows}

    def row(self) -> dict[str, Any]:
        """The row of the run."""
        cursor = self.connection.execute(
            "SELECT * FROM opsjobs.workflows WHERE id = %s", [self.run]
        )
        assert cursor.description is not None
        names = [column.name for column in cursor.description]
        return dict(zip(names, cursor.fetchone() or (), strict=True))


def begin(graph: Graph, name: str) -> int:
    """Let an attempt of a step's job run, as a claim does; returns the job's id."""
    graph.connection.execute(
        "UPDATE opsjobs.jobs SET state = 'started', dispatch_no = dispatch_no + 1, attempt = attempt + 1,"
        " started_at = clock_timestamp() WHERE id = %s",
        [graph.ids[name]],
    )
    return graph.ids[name]


def settle_all(connection: Connection) -> list[tuple[str, str]]:
    """Advance runs as the loop does, until nothing is left to do; returns the lanes to dispatch.

    Then nothing contradicts the invariants, and no end event is left.
    """
    lanes: list[tuple[str, str]] = []
    for _ in range(100):
        done = [advance(connection, run, 1_000_000) for run in list_runs_to_advance(connection)]
        assert None not in done, "nobody else holds a run"
        lanes += [lane for one in done if one is not None for lane in one.lanes]
        if all(one is None or one.is_idle for one in done):
            break
    else:
        raise AssertionError("it never comes to rest")
    assert checks(connection) == []
    left = connection.execute("SELECT * FROM opsjobs.workflow_end_events").fetchall()
    assert left == []
    return lanes
