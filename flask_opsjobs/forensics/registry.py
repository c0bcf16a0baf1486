"""Gathers the kinds of subjects, and reads the name of a subject, such as `job/42`."""

from __future__ import annotations

from collections.abc import Mapping

from ..core.words import show_value
from ..errors import UnknownSubject
from .bundle import Kind
from .subjects import (
    actor,
    attempt,
    batch,
    cron,
    deploy,
    failure,
    incident,
    job,
    limiter,
    operation,
    queue,
    step,
    task,
    worker,
    workflow,
)

# In the order of the design: what runs, what it runs on, what went wrong.
KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        job.KIND,
        attempt.KIND,
        task.KIND,
        queue.KIND,
        worker.KIND,
        cron.KIND,
        limiter.KIND,
        incident.KIND,
        failure.KIND,
        deploy.KIND,
        operation.KIND,
        actor.KIND,
        workflow.KIND,
        step.KIND,
        batch.KIND,
    )
}


def read_kind(text: str) -> tuple[Kind, str]:
    """The kind and the canonical key of a subject. Raises `UnknownSubject` for a text that names none."""
    name, _, key = text.partition("/") if isinstance(text, str) else ("", "", "")
    kind = KINDS.get(name)
    canonical = kind.read_key(key) if kind else None
    if kind is None or canonical is None:
        kinds = ", ".join(f"{each}/…" for each in KINDS)
        raise UnknownSubject(f"{show_value(text)} names no subject: write one of {kinds}")
    return kind, canonical
