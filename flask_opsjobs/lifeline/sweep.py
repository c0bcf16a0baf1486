"""Describes the rescues of one pass of the watch loop for the audit: which jobs, whose, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..audit.transitions import Decision
from ..endings import Ended

# A pass may rescue a thousand jobs. Its audit row lists this many ids, and the number of all.
MOST_NAMED = 100


@dataclass(frozen=True)
class Swept:
    """The rescued jobs of one worker. `cause` is recorded in their attempts."""

    worker_id: int
    name: str | None
    cause: str
    jobs: Sequence[Ended]


def make_decision(swept: Sequence[Swept], now: datetime) -> Decision:
    """Return the audit row of a pass that rescued at least one job."""
    ids = [job.id for one in swept for job in one.jobs]
    named = ids[:MOST_NAMED]
    return Decision(
        at=now,
        actor="system",
        via="system",
        action="job.rescue",
        subject=_subject(swept, ids),
        targets=tuple(f"job/{id}" for id in named),
        outcome="done",
        reason="; ".join(dict.fromkeys(one.cause for one in swept)),
        after={f"worker/{one.worker_id}": _after(one, set(named)) for one in swept},
    )


def _after(one: Swept, named: set[int]) -> dict[str, Any]:
    """Return the number of a worker's jobs, and those of their ids in `named` by their new state."""
    states = sorted({job.state for job in one.jobs})
    ids = {state: [job.id for job in one.jobs if job.state == state] for state in states}
    return {
        "name": one.name,
        "cause": one.cause,
        "jobs": len(one.jobs),
        **{state: [id for id in of_state if id in named] for state, of_state in ids.items()},
    }


def _subject(swept: Sequence[Swept], ids: Sequence[int]) -> str:
    if len(ids) == 1:
        return f"job/{ids[0]}"
    if len(swept) > 1:
        return f"{len(ids)} jobs of {len(swept)} workers"
    return f"{len(ids)} jobs of {swept[0].name or f'worker {swept[0].worker_id}'}"
