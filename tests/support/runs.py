"""Reads what a started run wrote, as other sessions see it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import create_engine, text

from flask_opsjobs.host import Host

_STEPS = """
    SELECT s.*, j.*, s.timeout_seconds AS wait_seconds
    FROM opsjobs.steps s JOIN opsjobs.jobs j ON j.id = s.job_id
    WHERE s.workflow_id = :run ORDER BY j.id
"""
_EDGES = """
    SELECT f.name AS source, t.name AS target, e.on_failure FROM opsjobs.edges e
    JOIN opsjobs.steps f ON f.job_id = e.from_id JOIN opsjobs.steps t ON t.job_id = e.to_id
"""
WRITTEN = ("workflows", "steps", "edges", "jobs", "unique_locks", "job_count_deltas")


def read(host: Host, statement: str, **values: Any) -> list[dict[str, Any]]:
    """The committed rows of a statement."""
    engine = create_engine(host.engine.url)
    with engine.connect() as connection:
        rows = [dict(row) for row in connection.execute(text(statement), values).mappings()]
    engine.dispose()
    return rows


def steps_of(host: Host, run: int) -> dict[str, dict[str, Any]]:
    """The steps of a run with their jobs, by name, in the order of their ids."""
    return {row["name"]: row for row in read(host, _STEPS, run=run)}


def edges(host: Host) -> set[tuple[str, str, str]]:
    """All edges by the names of their steps: who is waited for, who waits, on_failure."""
    return {(row["source"], row["target"], row["on_failure"]) for row in read(host, _EDGES)}


def count_rows(host: Host) -> dict[str, int]:
    """How many committed rows each table has to which `start` writes."""
    columns = ", ".join(f"(SELECT count(*) FROM opsjobs.{name}) AS {name}" for name in WRITTEN)
    return {name: int(number) for name, number in read(host, f"SELECT {columns}")[0].items()}
