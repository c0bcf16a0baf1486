"""Says in words how an attempt died: the cause, and the facts that are known of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...core.words import counted
from .filters import size


def say_death(death: str) -> str:
    """The cause as a word: `out of memory`."""
    return death.replace("_", " ")


def say_facts(facts: Mapping[str, Any] | None, peak_kb: int | None) -> str:
    """What is known of it: `SIGKILL, memory 498.0 MB of 512.0 MB`; empty when nothing is."""
    return ", ".join(_facts(facts or {}, peak_kb))


def say_memory(peak_kb: int | None, limit_kb: int | None) -> str:
    """The most memory that was used, and its limit: `498.0 MB of 512.0 MB`; empty when neither is known."""
    if peak_kb is None:
        return "" if limit_kb is None else f"of {size(limit_kb * 1024)}"
    used = size(peak_kb * 1024)
    return used if limit_kb is None else f"{used} of {size(limit_kb * 1024)}"


def _facts(facts: Mapping[str, Any], peak_kb: int | None) -> Iterator[str]:
    if facts.get("version"):
        yield f"deploy {facts['version']}"
    if by := facts.get("by"):
        # Else it is a sentence of the worker, such as "stopped with its worker".
        yield f"by {by}" if by == "an operator" else str(by).removeprefix("stopped ")
    if facts.get("limit_seconds"):
        yield f"limit {facts['limit_seconds']} s"
    if facts.get("signal"):
        yield str(facts["signal"])
    if facts.get("code") is not None:
        yield f"exit code {facts['code']}"
    if memory := say_memory(facts.get("peak_kb", peak_kb), facts.get("limit_kb")):
        yield f"memory {memory}"
    if facts.get("oom_kills"):
        yield f"Linux killed {counted(facts['oom_kills'], 'process', 'processes')} of it"
