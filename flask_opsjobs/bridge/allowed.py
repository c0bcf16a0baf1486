"""Lists what the bridge shows of rq-dashboard: the views that read, their addresses and their fields.

A view or a field that is not listed is not shown. `tests/bridge` compares the addresses with the URL map of
the installed rq-dashboard.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

# How a field is shown. Payload needs `payload.view` and passes the display policy: a `text`, a `value`, or a
# `json` text. A `name` passes the display policy only, `plain` is shown as it is. `rows` holds such fields.
Kind = Literal["text", "value", "json", "name", "plain", "rows"]


@dataclass(frozen=True)
class BridgeView:
    """A view of rq-dashboard, as a page and as JSON.

    `rules` and `json_rule` are its addresses, with our names for parameters; `asks` is the endpoint of
    rq-dashboard that answers both, `endpoint` the one of its own page.
    """

    name: str
    endpoint: str
    asks: str
    rules: tuple[str, ...]
    json_rule: str
    fields: Mapping[str, Kind]


REGISTRIES = ("queued", "started", "finished", "failed", "deferred", "scheduled", "canceled")

VIEWS = (
    BridgeView(
        "queues",
        "queues_overview",
        "list_queues",
        ("/", "/<int:number>/", "/<int:number>/view", "/<int:number>/view/queues"),
        "/<int:number>/data/queues.json",
        {
            "queues": "rows",
            "name": "name",
            "count": "plain",
            **{
                f"{registry}_job_registry_count": "plain"
                for registry in REGISTRIES
                if registry != "queued"
            },
            **{f"{registry}_url": "plain" for registry in REGISTRIES},
        },
    ),
    BridgeView(
        "workers",
        "workers_overview",
        "list_workers",
        ("/<int:number>/view/workers",),
        "/<int:number>/data/workers.json",
        {
            "workers": "rows",
            "name": "name",
            "queues": "name",
            **dict.fromkeys(("pid", "state", "last_heartbeat", "birth_date"), "plain"),
            **dict.fromkeys(("successful_job_count", "failed_job_count"), "plain"),
            **dict.fromkeys(("total_working_time", "version", "python_version"), "plain"),
            "current_job": "rows",
            "job_id": "name",
            "created_at": "plain",
            "description": "text",
            "call_string": "text",
        },
    ),
    BridgeView(
        "jobs",
        "jobs_overview",
        "list_jobs",
        (
            "/<int:number>/view/jobs",
            "/<int:number>/view/jobs/<path:queue>/<registry>/<int:per_page>/<order>/<int:page>",
        ),
        "/<int:number>/data/jobs/<path:queue>/<registry>/<per_page>/<order>/<page>.json",
        {
            "name": "name",
            "registry_name": "plain",
            "pagination": "plain",
            "jobs": "rows",
            "id": "name",
            **dict.fromkeys(("created_at", "started_at", "ended_at"), "plain"),
            "says": "plain",
            **dict.fromkeys(("function", "description", "exc_info"), "text"),
        },
    ),
    BridgeView(
        "job",
        "job_view",
        "job_info",
        ("/<int:number>/view/job/<path:rq_id>",),
        "/<int:number>/data/job/<path:rq_id>.json",
        {
            **dict.fromkeys(("id", "origin", "depends_on"), "name"),
            **dict.fromkeys(("created_at", "enqueued_at", "started_at", "ended_at"), "plain"),
            **dict.fromkeys(("status", "depends_on_status"), "plain"),
            **dict.fromkeys(("description", "exc_info"), "text"),
            "result": "value",
            "metadata": "json",
        },
    ),
)

# Addresses at which rq-dashboard changes something. They answer 403, whatever the method.
WRITES = (
    "/job/<path:rq_id>/delete",
    "/job/<path:rq_id>/requeue",
    "/requeue/<path:queue>",
    "/queue/<path:queue>/<registry>/empty",
    "/queue/<path:queue>/compact",
)
