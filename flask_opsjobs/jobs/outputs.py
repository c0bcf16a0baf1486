"""What is kept of a returned value: its JSON, or why it is not kept. A job finishes either way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import storable


@dataclass(frozen=True)
class Kept:
    """JSON text and its size in bytes; or no text, and the reason why it was omitted."""

    value: str | None
    size: int
    omitted: str | None = None


def keep(value: Any, max_bytes: int) -> Kept:
    """The value as JSON, unless it has none, Postgres cannot store it, or it has more than `max_bytes`."""
    try:
        raw = storable.dump(value)
        if len(raw) > max_bytes:
            return Kept(None, len(raw), f"{len(raw)} bytes, more than OPSJOBS_MAX_OUTPUT_BYTES")
        storable.check_readable(raw)
    except storable.NotStorable as why:
        return Kept(None, 0, f"{type(value).__name__}: {why}")
    except (MemoryError, RecursionError) as error:
        return Kept(None, 0, f"{type(value).__name__}: {type(error).__name__} while it became JSON")
    return Kept(raw.decode(), len(raw))
