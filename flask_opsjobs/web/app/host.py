"""Finds the `Host` of the current app."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from flask import current_app

if TYPE_CHECKING:
    from ...host import Host


def host() -> Host:
    """The extension's `Host` for the current app."""
    return cast("Host", current_app.extensions["opsjobs"])
