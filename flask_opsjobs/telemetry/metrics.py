"""Lists the metrics for Prometheus: name, kind, labels and meaning. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from ..errors import ConfigError

Kind = Literal["gauge", "counter", "histogram", "summary"]


@dataclass(frozen=True)
class Metric:
    """One metric, by the name under which Prometheus stores it. The meaning is its line `# HELP`."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    meaning: str


METRICS = (
    Metric("opsjobs_up", "gauge", (), "1 when Postgres answered this scrape, else 0."),
    Metric(
        "opsjobs_info", "gauge", ("version", "schema", "rq"), "1, with the versions as its labels."
    ),
    Metric("opsjobs_jobs", "gauge", ("queue", "state"), "Jobs that are in this state now."),
    Metric(
        "opsjobs_jobs_enqueued_total", "counter", ("queue",), "Managed jobs that were enqueued."
    ),
    Metric(
        "opsjobs_jobs_ended_total",
        "counter",
        ("queue", "state"),
        "Jobs that finished, failed for good or were canceled.",
    ),
    Metric(
        "opsjobs_job_wait_seconds",
        "histogram",
        ("queue",),
        "From due to started, of jobs whose function returned or failed for good.",
    ),
    Metric(
        "opsjobs_job_run_seconds",
        "histogram",
        ("queue",),
        "From started to ended, of jobs whose function returned or failed for good.",
    ),
    Metric(
        "opsjobs_oldest_due_seconds",
        "gauge",
        ("queue",),
        "How long the first due job has waited; 0 when none is due. Paused tasks do not count.",
    ),
    Metric("opsjobs_queue_paused", "gauge", ("queue",), "1 when the queue is paused or draining."),
    Metric(
        "opsjobs_task_paused", "gauge", ("task",), "1 for a paused task; others have no series."
    ),
    Metric(
        "opsjobs_queue_listeners", "gauge", ("queue",), "Live workers that listen to the queue."
    ),
    Metric(
        "opsjobs_workers",
        "gauge",
        ("state", "kind"),
        "Workers that are alive or late, or went missing within a day.",
    ),
    Metric(
        "opsjobs_loop_age_seconds",
        "gauge",
        ("loop",),
        "How long ago the loop last ended a pass, in any process.",
    ),
    Metric(
        "opsjobs_integrity_difference",
        "gauge",
        ("queue",),
        "Managed jobs that were enqueued, not deleted, and are not stored; below 0 when there are too many.",
    ),
    Metric(
        "opsjobs_incidents_open",
        "gauge",
        ("class",),
        "Incidents that are open or acknowledged.",
    ),
    Metric(
        "opsjobs_limiter_tokens",
        "gauge",
        ("limiter",),
        "Starts that a limiter without partitions has left now; below 0 when some were taken early.",
    ),
    Metric(
        "opsjobs_cron_slots_total",
        "counter",
        ("result",),
        "Slots of cron entries by what became of them.",
    ),
    Metric(
        "opsjobs_actions_total",
        "counter",
        ("action", "outcome"),
        "Decisions in the audit.",
    ),
    Metric(
        "rq_jobs",
        "gauge",
        ("queue", "status"),
        "Jobs by RQ's status: queued also counts available, scheduled also retryable.",
    ),
    Metric(
        "rq_workers", "gauge", ("name", "state", "queues"), "1 for each live worker, busy or idle."
    ),
    Metric(
        "rq_workers_success_total",
        "counter",
        ("name", "queues"),
        "Jobs that finished in a live worker.",
    ),
    Metric(
        "rq_workers_failed_total",
        "counter",
        ("name", "queues"),
        "Attempts that failed in a live worker.",
    ),
    Metric(
        "rq_workers_working_time_total",
        "counter",
        ("name", "queues"),
        "Seconds for which a live worker ran jobs.",
    ),
    Metric(
        "rq_request_processing_seconds",
        "summary",
        (),
        "Time that this process has spent on scrapes.",
    ),
)
# The label of all queues that have no series of their own.
OTHERS = "(other)"
# RQ's statuses, each with the states of jobs that it counts.
STATES_OF_RQ = {
    "queued": ("available", "queued"),
    "started": ("started",),
    "finished": ("finished",),
    "failed": ("failed",),
    "deferred": ("deferred",),
    "scheduled": ("scheduled", "retryable"),
    "canceled": ("canceled",),
}


def require_prometheus(what: str) -> None:
    """Return when the extra `prometheus` is installed. Else raises `ConfigError`: `what` needs it."""
    if find_spec("prometheus_client") is None:
        raise ConfigError(
            f"{what} needs prometheus-client: run pip install 'flask-opsjobs[prometheus]'"
        )
