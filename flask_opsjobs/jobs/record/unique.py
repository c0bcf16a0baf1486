"""Declares how long a call of a task is unique, and computes the keys of a call."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic_core import to_jsonable_python

from ...core.signing import sign
from ...errors import DeclarationError
from .durations import is_span


@dataclass(frozen=True)
class Unique:
    """Allows one job per task and chosen arguments, for a time. Raises `DeclarationError` with every fault.

    Give exactly one lifetime: `within=timedelta(…)` counts from the enqueue; `until="ended"` lasts until the
    job has ended, retries included; `until="forever"` lasts even after the job was deleted. `by` names the
    arguments that are compared: all by default, none for `[]`. `key`, given instead of `by`, is a function
    that gets the arguments as a dict, defaults included, and returns the value to compare.
    """

    by: Sequence[str] | None = None
    within: timedelta | None = None
    until: str | None = None
    key: Callable[[dict[str, Any]], Any] | None = None

    def __post_init__(self) -> None:
        faults = []
        if (self.within is None) == (self.until is None):
            faults.append('give exactly one of within=timedelta(…), until="ended", until="forever"')
        if self.until not in (None, "ended", "forever"):
            faults.append(f'until must be "ended" or "forever", got {self.until!r}')
        if self.within is not None and not is_span(self.within):
            faults.append(f"within must be a timedelta above 0, got {self.within!r}")
        if self.by is not None and (isinstance(self.by, str) or not isinstance(self.by, Sequence)):
            faults.append(f"by must be a list of argument names, got {self.by!r}")
        if self.by is not None and self.key is not None:
            faults.append("by and key exclude each other: key chooses for itself")
        if self.key is not None and not callable(self.key):
            faults.append("key must be a function of the arguments")
        if faults:
            raise DeclarationError("Unique: " + "; ".join(faults))

    @property
    def lifetime(self) -> str:
        """The word that a unique lock stores: `within`, `ended` or `forever`."""
        return self.until or "within"

    def require_names(self, task: str, names: Iterable[str], redact: Iterable[str]) -> None:
        """Return when `by` names only stored arguments; else raise `DeclarationError`."""
        for name in self.by or ():
            if name in redact:
                raise DeclarationError(
                    f"task {task}: unique by {name!r}, which is redacted: a key derived from a "
                    "secret could reveal it; choose other arguments"
                )
            if name not in names:
                raise DeclarationError(
                    f"task {task}: unique by {name!r}, which is not a parameter of it"
                )


def keys_of(secrets: Sequence[bytes], task: str, chosen: Any) -> list[bytes]:
    """The keys of one call, one per secret: first the current secret, then each older one.

    Uses HMAC-SHA256, so that a reader of the table cannot guess arguments. Raises `TypeError` or `ValueError`
    when the chosen value cannot be written as JSON.
    """
    plain = to_jsonable_python(_in_order(chosen), bytes_mode="base64", inf_nan_mode="constants")
    text = json.dumps([task, plain], sort_keys=True, separators=(",", ":"))
    return [sign(secret, "unique", text.encode()) for secret in dict.fromkeys(secrets)]


def _in_order(value: Any) -> Any:
    """The value with every set sorted: the order of a set differs from process to process."""
    if isinstance(value, Mapping):
        return {key: _in_order(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_in_order(one) for one in value]
    if isinstance(value, set | frozenset):
        items = [to_jsonable_python(_in_order(one), bytes_mode="base64") for one in value]
        return sorted(items, key=lambda one: json.dumps(one, sort_keys=True))
    return value
