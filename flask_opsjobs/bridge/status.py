"""Tells whether the bridge to RQ can be mounted, and why not."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from ..host import BridgeStatus

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
