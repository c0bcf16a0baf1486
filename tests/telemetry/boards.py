"""Lists the expressions of Grafana boards, and makes queries of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_CHOSEN = '{job="$job", instance="$instance"}'
_STATUSES = ("queued", "started", "finished", "failed", "deferred", "scheduled")


def _of_status(status: str) -> str:
    return f'rq_jobs{{status="{status}", job="$job", instance="$instance"}}'


def _of_state(state: str) -> str:
    return f'rq_workers{{state="{state}", job="$job", instance="$instance"}}'


# The expressions of Grafana's board 12196, as its file says them: grafana/rq-dashboard.json in
# https://github.com/mdawar/rq-exporter at commit 9de25f8cfecc5c3902146ccde1908fc4f606d915.
RQ_BOARD = (
    f"count(rq_workers{_CHOSEN}) or vector(0)",
    *(
        f"(count({_of_state(state)}) / count(rq_workers{_CHOSEN})) * 100"
        for state in ("busy", "idle")
    ),
    *(f"sum({_of_status(status)}) by (queue)" for status in _STATUSES),
    "rate(rq_request_processing_seconds_sum[$__range]) /rate(rq_request_processing_seconds_count[$__range])",
    *(f"sum({_of_status(status)}) / sum(rq_jobs{_CHOSEN})" for status in _STATUSES),
    f"sum by (status) (rq_jobs{_CHOSEN}) / ignoring(status) group_left sum(rq_jobs{_CHOSEN})",
    f"sum(rq_jobs{_CHOSEN}) by (status)",
    f"sum by (queue) (rq_jobs{_CHOSEN}) / ignoring(queue) group_left sum(rq_jobs{_CHOSEN})",
    f"sum(rq_jobs{_CHOSEN}) by (queue)",
    f"sum by (status, queue) (rq_jobs{_CHOSEN})"
    f" / ignoring(status) group_left sum by (queue) (rq_jobs{_CHOSEN})",
    f"sum(rq_jobs{_CHOSEN}) by (queue, status)",
)


def expressions_of(board: Any) -> Iterator[str]:
    """Each expression of a board, from its file."""
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


def query_of(expression: str, job: str, instance: str) -> str:
    """The query that Grafana sends for an expression, over the last 15 minutes."""
    values = {"$job": job, "$instance": instance, "$__range": "15m"}
    for name, chosen in values.items():
        expression = expression.replace(name, chosen)
    return expression
