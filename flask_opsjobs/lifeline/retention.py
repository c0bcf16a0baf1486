"""Deletes old rows by their retention time, in bounded batches, oldest first."""

from __future__ import annotations

from datetime import datetime, timedelta

from ..core import sql
from ..core.db import Connection
from ..jobs.lifecycle import FINAL, MANAGED_FINAL
from ..settings import Settings

BATCH = 10_000
# By table, the statement that deletes its old rows, in the order in which they run.
_STATEMENTS = {
    "outputs": "retain_outputs",
    "unique_locks": "retain_unique_locks",
    "workers": "retain_workers",
    "loop_runs": "retain_loop_runs",
    "previews": "retain_previews",
    # The rows first: an operation is removed with the last of them.
    "operation_rows": "retain_operation_rows",
    "operations": "retain_operations",
    "rollups": "retain_rollups",
    "depths": "retain_depths",
    "cron_slots": "retain_cron_slots",
    "limit_minutes": "retain_limit_minutes",
    "limit_rejections": "retain_limit_rejections",
    "buckets": "retain_buckets",
    "rq_places": "retain_rq_places",
    # Before the incidents: to remove an incident removes its escalations without counting them.
    "escalations": "retain_escalations",
    "incidents": "retain_incidents",
    "evidence": "retain_evidence",
    "pending_findings": "retain_pending_findings",
    "failure_minutes": "retain_failure_minutes",
    "failure_hours": "retain_failure_hours",
    "task_ends": "retain_task_ends",
    "task_deaths": "retain_task_deaths",
    "task_minutes": "retain_task_minutes",
    "task_hours": "retain_task_hours",
    # Before the failures, because those keep the deploys that they name.
    "deploys": "retain_deploys",
    "failures": "retain_failures",
}
WORKER_DAYS = 7
LOOP_RUN_DAYS = 30
NUMBER_DAYS = 30
# The minutes of failures are for the trend of a day.
_FAILURE_MINUTE_DAYS = 2
# The minutes of tasks are for the last day beside the day before.
_TASK_MINUTE_DAYS = 3
_DEPLOY_DAYS = 400
# A bucket without a row counts as full, so this only bounds the size of the table.
_BUCKET_DAYS = 1
# Of a Redis that nobody asks any more, such as one that the settings no longer name.
_RQ_PLACE_DAYS = 30
# A pending finding is found again within minutes, or it holds no longer.
_PENDING_SPAN = timedelta(days=1)
# Until then its own page shows its result, and the page of its decision what it said.
_PREVIEW_SPAN = timedelta(days=30)


def retain(
    connection: Connection, settings: Settings, now: datetime, limit: int = BATCH
) -> dict[str, int]:
    """Remove at most `limit` old rows of all tables together; return how many of each. The caller commits.

    A run of a workflow is removed whole, so its last one may exceed the limit. There is more to do when the
    sum reaches `limit`. Outputs are removed before jobs, so that they are counted as outputs: removing a job
    removes its output without counting it.
    """
    removed: dict[str, int] = {}
    for what, (statement, parameters) in _steps(settings, now).items():
        left = limit - sum(removed.values())
        if left <= 0:
            break
        cursor = connection.execute(sql.load(statement), {**parameters, "limit": left})
        removed[what] = cursor.rowcount
    return removed


def count_retainable(connection: Connection, settings: Settings, now: datetime) -> dict[str, int]:
    """Return how many rows `retain` would remove in all, if repeated until none is left. Writes nothing."""
    limits = {**_limits(settings, now), "now": now}
    return dict(connection.execute(sql.load("count_retainable"), limits).fetchall())


def list_limits(settings: Settings, now: datetime) -> dict[str, datetime]:
    """Return, for each final state, the time before whose end jobs are removed."""
    limits = _limits(settings, now)
    return {state: limits[state] for state in FINAL}


def _steps(settings: Settings, now: datetime) -> dict[str, tuple[str, dict[str, object]]]:
    limits = _limits(settings, now)
    steps: dict[str, tuple[str, dict[str, object]]] = {
        table: (statement, {"before": limits[table], "now": now})
        for table, statement in _STATEMENTS.items()
    }
    for state in FINAL:
        old: dict[str, object] = {"state": state, "before": limits[state]}
        steps[f"{state} jobs"] = ("retain_jobs", old)
        if state not in MANAGED_FINAL:
            continue  # an adopted job is in no workflow and no batch
        steps[f"jobs of {state} workflows"] = ("retain_workflows", old)
        steps[f"members of {state} batches"] = ("retain_batches", old)
    signals: dict[str, object] = {
        "before": limits["signals"],
        "unmatched_before": limits["unmatched_signals"],
    }
    steps["signals"] = ("retain_signals", signals)
    return steps


def _limits(settings: Settings, now: datetime) -> dict[str, datetime]:
    """Return, for each kind of row, the time before which rows are removed."""
    return {
        "outputs": now - timedelta(days=settings.keep_output_days),
        "unique_locks": now,
        "workers": now - timedelta(days=WORKER_DAYS),
        "loop_runs": now - timedelta(days=LOOP_RUN_DAYS),
        "previews": now - _PREVIEW_SPAN,
        "operation_rows": now - timedelta(days=settings.keep_operations_days),
        "operations": now - timedelta(days=settings.keep_operations_days),
        "rollups": now - timedelta(days=NUMBER_DAYS),
        "depths": now - timedelta(days=NUMBER_DAYS),
        "cron_slots": now - timedelta(days=settings.keep_slots_days),
        "limit_minutes": now - timedelta(days=NUMBER_DAYS),
        "limit_rejections": now - timedelta(days=NUMBER_DAYS),
        "buckets": now - timedelta(days=_BUCKET_DAYS),
        "rq_places": now - timedelta(days=_RQ_PLACE_DAYS),
        "escalations": now - timedelta(days=settings.keep_escalations_days),
        "incidents": now - timedelta(days=settings.keep_incidents_days),
        "evidence": now - timedelta(days=settings.keep_incidents_days),
        "pending_findings": now - _PENDING_SPAN,
        "failure_minutes": now - timedelta(days=_FAILURE_MINUTE_DAYS),
        "failure_hours": now - timedelta(days=NUMBER_DAYS),
        "task_ends": now - timedelta(days=NUMBER_DAYS),
        "task_deaths": now - timedelta(days=NUMBER_DAYS),
        "task_minutes": now - timedelta(days=_TASK_MINUTE_DAYS),
        "task_hours": now - 2 * timedelta(days=NUMBER_DAYS),
        "deploys": now - timedelta(days=_DEPLOY_DAYS),
        "failures": now - timedelta(days=settings.keep_failed_days),
        "signals": now - timedelta(days=settings.keep_signals_days),
        "unmatched_signals": now - 2 * timedelta(days=settings.keep_signals_days),
        "finished": now - timedelta(days=settings.keep_finished_days),
        "canceled": now - timedelta(days=settings.keep_canceled_days),
        "failed": now - timedelta(days=settings.keep_failed_days),
        # It may have failed.
        "unknown": now - timedelta(days=settings.keep_failed_days),
    }
