"""Writes a bundle as JSON for machines: versioned, with its reader, its time and a hash over all of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from .bundle import Bundle

# As that of everything that commands print: it grows when a key goes or changes its meaning.
FORMAT = 1


def write_bundle_json(bundle: Bundle, reader: str, environment: str) -> bytes:
    """The bundle, whose texts have passed the display policy, as JSON. Equal input makes equal bytes.

    `sha256` is that of the same object without this key, as `make_canonical` writes it.
    """
    values = {
        "format": FORMAT,
        "type": "opsjobs.forensics",
        "reader": reader,
        "environment": environment,
        **_values(bundle),
    }
    values["sha256"] = hashlib.sha256(make_canonical(values)).hexdigest()
    return f"{json.dumps(values, indent=2, default=_text)}\n".encode()


def make_canonical(values: dict[str, Any]) -> bytes:
    """The object in ASCII without spaces, its keys in order: what is hashed."""
    written = json.dumps(values, sort_keys=True, separators=(",", ":"), default=_text)
    return written.encode()


def _values(bundle: Bundle) -> dict[str, Any]:
    values = asdict(bundle)
    values["kind"] = bundle.kind
    for path, row in zip(bundle.paths, values["paths"], strict=True):
        row["owner"] = path.owner
    return values


def _text(value: object) -> str:
    assert isinstance(value, datetime)
    return value.astimezone(UTC).isoformat()
