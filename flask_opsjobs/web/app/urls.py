"""Lists all our URLs, in the order of the navigation, with the permission that each needs.

Those of RQ's own view, `BRIDGE_URLS`, are below a prefix of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ...actions.domain import Action
from ...actions.registry import ACTIONS, actions_of
from ...bridge.allowed import VIEWS, WRITES
from ..actions import view as actions
from ..audit import saved_views as audit_views
from ..audit import view as audit
from ..batches import view as batches
from ..bridge import view as bridge
from ..cron import view as cron
from ..doctor import view as doctor
from ..failures import view as failures
from ..forensics import view as forensics
from ..job import edit as job_edit
from ..job import view as job
from ..jobs import exports as job_exports
from ..jobs import saved_views, waiting
from ..jobs import view as jobs
from ..lifeline import incident
from ..lifeline import view as lifeline
from ..limiters import simulate
from ..limiters import view as limiters
from ..notes import view as notes
from ..operations import draft
from ..operations import view as operations
from ..overview import view as overview
from ..queues import view as queues
from ..tasks import enqueue
from ..tasks import view as tasks
from ..workers import view as workers
from ..workflows import compare, signals
from ..workflows import view as workflows
from . import access, files, views

# A page answers GET with a document, a fragment GET with a part of a document, a file GET with rows to
# download, an action POST with a change or with a form. An asset is a static file, the same for everybody.
Kind = Literal["page", "fragment", "action", "file", "asset"]


@dataclass(frozen=True)
class Url:
    """One URL below the prefix. With `permission` None anybody who is signed in may use it."""

    rule: str
    endpoint: str
    view: Callable[..., Any]
    kind: Kind
    permission: str | None = None

    @property
    def methods(self) -> tuple[str, ...]:
        """Its HTTP methods; Flask adds HEAD to GET.

        `missing` and `refused` take all, so that our problem page answers.
        """
        if self.endpoint in ("missing", "refused"):
            return ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
        return ("POST",) if self.kind == "action" else ("GET",)


def _actions_of(
    domain: str,
    page: str,
    make_view: Callable[[Action[Any]], Callable[..., Any]] = actions.on_named,
    **own: Callable[..., Any],
) -> Iterator[Url]:
    """Each action on one subject. `page` is its page's path, `own` are views of their own.

    `make_view` makes the view of each other action.
    """
    for action in actions_of(domain):
        rule, endpoint = f"{page}/{action.short_name}", f"{domain}_{action.short_name}"
        view = own.get(action.short_name) or make_view(action)
        yield Url(rule, endpoint, view, "action", action.permission)


def _actions_on_picked(
    page: str,
    picked: Iterable[Action[Any]],
    make_view: Callable[[Action[Any]], Callable[..., Any]] = actions.on_picked,
) -> Iterator[Url]:
    """These actions on the rows selected in the list of a page."""
    for action in picked:
        rule, endpoint = f"{page}/{action.short_name}", f"{action.plural}_{action.short_name}"
        yield Url(rule, endpoint, make_view(action), "action", action.permission)


URLS = (
    Url("", "overview", overview.page, "page", "overview.view"),
    Url("/live", "overview_live", overview.live, "fragment", "overview.view"),
    Url("/jobs", "jobs", jobs.page, "page", "jobs.view"),
    Url("/jobs/live", "jobs_live", jobs.live, "fragment", "jobs.view"),
    Url("/jobs/suggest", "jobs_suggest", jobs.suggest, "fragment", "jobs.view"),
    Url("/jobs/why", "jobs_why", waiting.waiting_page, "page", "jobs.view"),
    Url("/jobs/why/live", "jobs_why_live", waiting.waiting_live, "fragment", "jobs.view"),
    Url("/jobs.csv", "jobs_csv", job_exports.csv, "file", "jobs.view"),
    Url("/jobs.ndjson", "jobs_ndjson", job_exports.ndjson, "file", "jobs.view"),
    Url("/views", "view_save", saved_views.save, "action", "jobs.view"),
    Url("/views/<view_id>/delete", "view_delete", saved_views.delete, "action", "jobs.view"),
    Url("/jobs/<job_id>", "job", job.page, "page", "jobs.view"),
    Url("/jobs/<job_id>/live", "job_live", job.live, "fragment", "jobs.view"),
    Url("/jobs/<job_id>/raw", "job_raw", job.raw, "page", "jobs.view"),
    *_actions_on_picked("/jobs", actions_of("job")),
    Url("/edit/jobs/<job_id>", "job_change", job_edit.form, "page", "job.edit"),
    *_actions_of("job", "/jobs/<job_id>", actions.on_id, edit=job_edit.change),
    Url("/jobs/<job_id>/note", "job_note", notes.add, "action", "note.add"),
    Url("/tasks", "tasks", tasks.page, "page", "tasks.view"),
    Url("/tasks/<path:name>", "task", tasks.task_page, "page", "tasks.view"),
    # A task may be called live, as a queue may.
    Url("/live/tasks", "tasks_live", tasks.live, "fragment", "tasks.view"),
    Url("/live/tasks/<path:name>", "task_live", tasks.task_live, "fragment", "tasks.view"),
    Url("/enqueue/tasks/<path:name>", "task_form", enqueue.call_form, "page", "task.enqueue"),
    *_actions_of("task", "/tasks/<path:name>", enqueue=enqueue.start_call),
    Url("/queues", "queues", queues.page, "page", "queues.view"),
    Url("/queues/<path:name>", "queue", queues.queue_page, "page", "queues.view"),
    # A queue may be called live: what refreshes does not lie below its name.
    Url("/live/queues", "queues_live", queues.live, "fragment", "queues.view"),
    Url("/live/queues/<path:name>", "queue_live", queues.queue_live, "fragment", "queues.view"),
    *_actions_of("queue", "/queues/<path:name>"),
    Url("/workers", "workers", workers.page, "page", "workers.view"),
    Url("/workers/live", "workers_live", workers.live, "fragment", "workers.view"),
    *_actions_on_picked(
        "/workers", [ACTIONS["worker.drain"], ACTIONS["worker.stop"]], workers.on_many
    ),
    *_actions_of("worker", "/workers/<path:name>"),
    Url("/workers/<path:name>/rescue", "worker_rescue", workers.rescue, "action", "job.rescue"),
    Url("/workers/<path:name>/note", "worker_note", notes.add, "action", "note.add"),
    Url("/workflows", "workflows", workflows.page, "page", "workflows.view"),
    Url("/workflows/live", "workflows_live", workflows.live, "fragment", "workflows.view"),
    Url("/workflows/<workflow_id>", "workflow", workflows.workflow_page, "page", "workflows.view"),
    Url(
        "/workflows/<workflow_id>/live",
        "workflow_live",
        workflows.workflow_live,
        "fragment",
        "workflows.view",
    ),
    Url(
        "/workflows/<workflow_id>/compare",
        "workflow_compare",
        compare.comparison_page,
        "page",
        "workflows.view",
    ),
    *_actions_of("workflow", "/workflows/<workflow_id>", actions.on_id),
    Url("/workflows/<workflow_id>/note", "workflow_note", notes.add, "action", "note.add"),
    Url("/signals", "signals", signals.page, "page", "workflows.view"),
    Url("/signals/live", "signals_live", signals.live, "fragment", "workflows.view"),
    Url("/batches", "batches", batches.page, "page", "batches.view"),
    Url("/batches/live", "batches_live", batches.live, "fragment", "batches.view"),
    Url("/batches/<batch_id>", "batch", batches.batch_page, "page", "batches.view"),
    Url("/batches/<batch_id>/live", "batch_live", batches.batch_live, "fragment", "batches.view"),
    *_actions_of("batch", "/batches/<batch_id>", actions.on_id),
    Url("/cron", "cron", cron.page, "page", "cron.view"),
    Url("/cron/<path:name>", "cron_entry", cron.entry_page, "page", "cron.view"),
    # An entry may be called live or new, as a queue may.
    Url("/live/cron", "cron_live", cron.live, "fragment", "cron.view"),
    Url("/live/cron/<path:name>", "cron_entry_live", cron.entry_live, "fragment", "cron.view"),
    Url("/new/cron", "cron_new", cron.new, "page", "cron.create"),
    # Sent, not asked for: an address stands in logs, and what is typed may be what must not be kept.
    Url("/new/cron/runs", "cron_new_runs", cron.new, "action", "cron.create"),
    Url("/new/cron/preview", "cron_make", cron.create, "action", "cron.create"),
    Url("/edit/cron/<path:name>", "cron_change", cron.edit, "page", "cron.edit"),
    Url("/edit/cron/<path:name>/runs", "cron_change_runs", cron.edit, "action", "cron.edit"),
    *_actions_of("cron", "/cron/<path:name>", edit=cron.change),
    Url("/limiters", "limiters", limiters.page, "page", "limiters.view"),
    Url("/live/limiters", "limiters_live", limiters.live, "fragment", "limiters.view"),
    # Its name has no slash; the reference of a partition is in the query string.
    Url("/limiters/<limiter>", "limiter", limiters.limiter_page, "page", "limiters.view"),
    Url(
        "/live/limiters/<limiter>",
        "limiter_live",
        limiters.limiter_live,
        "fragment",
        "limiters.view",
    ),
    Url(
        "/limiters/<limiter>/simulate",
        "limiter_simulate",
        simulate.page,
        "page",
        "limiters.view",
    ),
    # Sent, not asked for: a partition is a value of jobs' arguments.
    Url(
        "/limiters/<limiter>/open",
        "limiter_open",
        limiters.open_partition,
        "action",
        "limiters.view",
    ),
    *_actions_of("limiter", "/limiters/<limiter>", actions.on_limiter),
    *_actions_on_picked("/leases", actions_of("lease")),
    *_actions_of("lease", "/leases/<path:name>"),
    *_actions_on_picked("/deliveries", actions_of("delivery")),
    *_actions_of("delivery", "/deliveries/<path:name>"),
    Url("/lifeline", "lifeline", lifeline.page, "page", "lifeline.view"),
    Url("/lifeline/live", "lifeline_live", lifeline.live, "fragment", "lifeline.view"),
    Url(
        "/lifeline/incidents/<incident_id>",
        "incident",
        incident.incident_page,
        "page",
        "lifeline.view",
    ),
    Url(
        "/lifeline/incidents/<incident_id>/live",
        "incident_live",
        incident.incident_live,
        "fragment",
        "lifeline.view",
    ),
    *_actions_of("incident", "/lifeline/incidents/<incident_id>", actions.on_id),
    Url(
        "/lifeline/incidents/<incident_id>/note",
        "incident_note",
        notes.add,
        "action",
        "note.add",
    ),
    Url("/lifeline/failures", "failures", failures.page, "page", "lifeline.view"),
    Url("/lifeline/failures/live", "failures_live", failures.live, "fragment", "lifeline.view"),
    Url(
        "/lifeline/failures/<failure_id>",
        "failure",
        failures.failure_page,
        "page",
        "lifeline.view",
    ),
    Url(
        "/lifeline/failures/<failure_id>/live",
        "failure_live",
        failures.failure_live,
        "fragment",
        "lifeline.view",
    ),
    *_actions_of("failure", "/lifeline/failures/<failure_id>", actions.on_id),
    Url("/lifeline/failures/<failure_id>/note", "failure_note", notes.add, "action", "note.add"),
    Url("/operations", "operations", operations.page, "page", access.OPERATIONS),
    Url("/operations/live", "operations_live", operations.live, "fragment", access.OPERATIONS),
    Url("/operations/draft", "operation_draft", draft.make, "action", "operation.start"),
    Url(
        "/operations/<operation_id>",
        "operation",
        operations.operation_page,
        "page",
        access.OPERATIONS,
    ),
    Url(
        "/operations/<operation_id>/live",
        "operation_live",
        operations.operation_live,
        "fragment",
        access.OPERATIONS,
    ),
    *_actions_of("operation", "/operations/<operation_id>", actions.on_id, start=operations.start),
    Url("/doctor", "doctor", doctor.page, "page", access.DOCTOR),
    Url("/forensics", "forensics", forensics.page, "page", "forensics.view"),
    # A name may hold slashes, and end with anything.
    Url(
        "/forensics/<kind>/<path:key>",
        "forensics_subject",
        forensics.bundle_page,
        "page",
        "forensics.view",
    ),
    Url(
        "/live/forensics/<kind>/<path:key>",
        "forensics_subject_live",
        forensics.bundle_live,
        "fragment",
        "forensics.view",
    ),
    Url(
        "/export/forensics/<kind>/<path:key>",
        "forensics_export",
        forensics.export,
        "file",
        "forensics.view",
    ),
    Url("/audit", "audit", audit.page, "page", "audit.view"),
    Url("/audit/live", "audit_live", audit.live, "fragment", "audit.view"),
    Url("/audit.csv", "audit_csv", audit.csv, "file", "audit.view"),
    Url("/audit.ndjson", "audit_ndjson", audit.ndjson, "file", "audit.view"),
    Url("/audit/views", "audit_view_save", audit_views.save, "action", "audit.view"),
    Url(
        "/audit/views/<view_id>/delete",
        "audit_view_delete",
        audit_views.delete,
        "action",
        "audit.view",
    ),
    Url("/audit/<int:sequence>", "audit_event", audit.event_page, "page", "audit.view"),
    Url("/previews/<int:preview_id>", "preview", actions.page, "page"),
    Url("/previews/<int:preview_id>/execute", "preview_execute", actions.submit, "action"),
    Url("/help", "help", views.help, "page"),
    Url("/jump", "jump", jobs.jump, "page", "jobs.view"),
    Url("/display", "display", views.display, "action"),
    Url("/static/<version>/<path:name>", "static", files.asset, "asset"),
    Url("/<path:rest>", "missing", views.missing, "page"),
)


def _list_bridge_urls() -> Iterator[Url]:
    for view in VIEWS:
        page, data = getattr(bridge, view.name), getattr(bridge, f"{view.name}_json")
        for rule in view.rules:
            endpoint = view.name if "<" in rule else "rq"
            yield Url(rule.removesuffix("/"), endpoint, page, "page", "bridge.view")
        yield Url(view.json_rule, f"{view.name}_json", data, "file", "bridge.view")
    for rule in WRITES:
        yield Url(rule, "refused", bridge.refused, "page", "bridge.view")
    yield Url("/<path:rest>", "missing", views.missing, "page", "bridge.view")


BRIDGE_URLS = tuple(_list_bridge_urls())
