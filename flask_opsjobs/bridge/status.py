"""Tells whether the bridge is mounted, and what is wrong with it, for the help and for the doctor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from flask import Flask
from redis import RedisError

from ..host import BridgeStatus, Host
from .instances import list_instances

# The versions that the bridge can read. Another one may write, or answer with other fields.
_READABLE = "0.9."
_INSTALL = "pip install 'flask-opsjobs[bridge]' installs what it needs"
_FAST = "rq-dashboard-fast"


def find_status(setting: str) -> BridgeStatus:
    """Whether the bridge can be mounted with this `OPSJOBS_BRIDGE`, and why not, as a sentence."""
    if setting == "off":
        return BridgeStatus("off", "The bridge to RQ is switched off: OPSJOBS_BRIDGE is 'off'.")
    found = _find_version("rq-dashboard")
    if found is None and _find_version(_FAST) is not None:
        says = f"The bridge to RQ cannot read {_FAST}, which is ASGI: {_INSTALL}."
        return BridgeStatus("other", says)
    if found is None:
        return BridgeStatus("missing", f"The bridge to RQ is not installed: {_INSTALL}.")
    if not found.startswith(_READABLE):
        says = f"The bridge to RQ reads rq-dashboard {_READABLE}x, and {found} is installed: {_INSTALL}."
        return BridgeStatus("other", says)
    if find_spec("six") is None:
        return BridgeStatus("missing", f"The bridge to RQ lacks the package six: {_INSTALL}.")
    return BridgeStatus("mounted", f"The bridge to RQ reads with rq-dashboard {found}.")


def _find_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@dataclass(frozen=True)
class BridgeCheck:
    """What a check of the bridge found: `result` is `ok`, `warning` or `skipped`.

    `evidence` are short texts, `todo` what to do about a warning.
    """

    id: str
    result: str
    says: str
    evidence: Sequence[str] = ()
    todo: str = ""


def check_version(host: Host) -> BridgeCheck:
    """Check that the bridge can read the rq-dashboard that is installed."""
    status = host.bridge
    result = {"mounted": "ok", "other": "warning"}.get(status.word, "skipped")
    return BridgeCheck("bridge.version", result, status.says, todo=_todo(status))


def _todo(status: BridgeStatus) -> str:
    return "pip install 'flask-opsjobs[bridge]'" if status.word == "other" else ""


def check_host_mount(app: Flask) -> BridgeCheck:
    """Check whether the app serves rq-dashboard itself, whose addresses change jobs without permission."""
    names = [
        name
        for name, blueprint in app.blueprints.items()
        if blueprint.import_name.partition(".")[0] == "rq_dashboard"
    ]
    served = sorted(
        rule.rule
        for rule in app.url_map.iter_rules()
        if rule.endpoint.rpartition(".")[0] in names and "POST" in (rule.methods or ())
    )
    if not served:
        says = "The app does not serve rq-dashboard itself."
        return BridgeCheck("bridge.host_mount", "ok", says)
    return BridgeCheck(
        "bridge.host_mount",
        "warning",
        "The app serves rq-dashboard itself, which requeues and deletes jobs for everybody who can reach it, "
        "and shows HTML of jobs as HTML.",
        served,
        "Take the blueprint out of the app, or ask for a sign-in before it: the bridge shows the same.",
    )


def check_redis(host: Host) -> BridgeCheck:
    """Check that each Redis of the bridge answers."""
    if not host.bridge.is_mounted:
        return BridgeCheck("bridge.redis", "skipped", host.bridge.says)
    silent = []
    instances = list_instances(host)
    for instance in instances:
        try:
            instance.redis.ping()
        except RedisError as error:
            silent.append(f"{instance.label} at {instance.address}: {type(error).__name__}")
    if silent:
        says = "The bridge cannot read every Redis: some do not answer."
        todo = "Start it, or correct OPSJOBS_RQ_REDIS_URLS."
        return BridgeCheck("bridge.redis", "warning", says, silent, todo)
    number = len(instances)
    says = f"Redis answers the bridge: {', '.join(one.label for one in instances)}."
    return BridgeCheck("bridge.redis", "ok", says, [f"{number} Redis"])
