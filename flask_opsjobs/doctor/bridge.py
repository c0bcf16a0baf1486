"""Checks the bridge to RQ: what is installed for it, its Redis servers, and whether the app bypasses it."""

from __future__ import annotations

from ..bridge.instances import list_instances
from .check import WARNING, CheckAnswer, CheckContext, DoctorCheck, ok, skipped, warning


def _version(context: CheckContext) -> CheckAnswer:
    status = context.host.bridge
    if status.word == "other":
        return warning(status.says, run="pip install 'flask-opsjobs[bridge]'")
    return ok(status.says) if status.is_mounted else skipped(status.says)


def _host_mount(context: CheckContext) -> CheckAnswer:
    app = context.app
    assert app is not None
    names = {
        name
        for name, blueprint in app.blueprints.items()
        if blueprint.import_name.partition(".")[0] == "rq_dashboard"
    }
    served = sorted(
        rule.rule
        for rule in app.url_map.iter_rules()
        if rule.endpoint.rpartition(".")[0] in names and "POST" in (rule.methods or ())
    )
    if not served:
        return ok("The app does not serve rq-dashboard itself.")
    return warning(
        "The app serves rq-dashboard itself, which requeues and deletes jobs for everybody who can reach it, "
        "and shows HTML of jobs as HTML.",
        f"It changes jobs at {', '.join(served)}. Take its blueprint out of the app, or ask for a sign-in "
        "before it: the bridge shows the same.",
    )


def _redis(context: CheckContext) -> CheckAnswer:
    if not context.host.bridge.is_mounted:
        return skipped(context.host.bridge.says)
    instances = list_instances(context.host)
    silent = [
        f"{instance.label} at {instance.address}: {problem}"
        for instance in instances
        if (problem := instance.find_problem())
    ]
    if silent:
        todo = "Start it, or correct OPSJOBS_RQ_REDIS_URLS."
        return warning("The bridge cannot read every Redis.", f"{'; '.join(silent)}. {todo}")
    return ok(f"Redis answers the bridge: {', '.join(one.label for one in instances)}.")


CHECKS = (
    DoctorCheck(
        "bridge.version",
        (WARNING,),
        "the bridge can read the rq-dashboard that is installed",
        _version,
    ),
    DoctorCheck(
        "bridge.host_mount",
        (WARNING,),
        "the app does not serve rq-dashboard itself",
        _host_mount,
    ),
    DoctorCheck("bridge.redis", (WARNING,), "each Redis of the bridge answers", _redis),
)
