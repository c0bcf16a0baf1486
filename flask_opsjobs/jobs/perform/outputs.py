"""Writes a returned value as JSON, or explains why that fails. The job finishes in both cases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..record import json_storage


@dataclass(frozen=True)
class Kept:
    """JSON text and its size in bytes; or no text, and the reason why it was omitted."""

    value: str | None
    size: int
    omitted: str | None = None


def dump_output(value: Any, max_bytes: int) -> Kept:
    """The value as JSON, or the reason: no JSON, not storable in Postgres, or more than `max_bytes`.

    Never raises.
    """
    try:
        raw = json_storage.dump(value)
        if len(raw) > max_bytes:
            return Kept(None, len(raw), f"{len(raw)} bytes, more than OPSJOBS_MAX_OUTPUT_BYTES")
        json_storage.check_readable(raw)
    except json_storage.NotStorable as why:
        return Kept(None, 0, f"{type(value).__name__}: {why}")
    except (MemoryError, RecursionError) as error:
        return Kept(None, 0, f"{type(value).__name__}: {type(error).__name__} while it became JSON")
    return Kept(raw.decode(), len(raw))
