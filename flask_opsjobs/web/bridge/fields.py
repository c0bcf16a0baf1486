"""Writes what rq-dashboard answers as JSON, field by field, after the host's display policy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ...bridge.allowed import Kind
from ...core.display import NO_PAYLOAD, Display


def show_fields(found: Mapping[str, Any], kinds: Mapping[str, Kind], display: Display) -> Any:
    """The fields that are listed in `kinds`, each as its kind says. Others are left out."""
    return {
        key: _show(value, kinds[key], kinds, display)
        for key, value in found.items()
        if key in kinds
    }


def _show(value: Any, kind: Kind, kinds: Mapping[str, Kind], display: Display) -> Any:
    if kind == "rows":
        if isinstance(value, list):
            return [show_fields(each, kinds, display) for each in value]
        # A worker without a job has a word in its place.
        return show_fields(value, kinds, display) if isinstance(value, dict) else value
    if value is None or kind == "plain":
        return value
    if kind == "name":
        is_list = isinstance(value, list)
        return [display.clean(each) for each in value] if is_list else display.clean(value)
    if not display.may_see:
        return NO_PAYLOAD
    if kind == "text":
        return display.clean(value)
    return display.plain(value) if kind == "json" else json.loads(display.plain(json.dumps(value)))
