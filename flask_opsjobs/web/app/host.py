"""Finds the host of the current request, as the extension keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from flask import current_app

if TYPE_CHECKING:
    from ...host import Host


def host() -> Host:
    """What the extension knows of the current app."""
    return cast("Host", current_app.extensions["opsjobs"])
