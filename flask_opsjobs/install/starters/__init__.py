"""Holds the files that `flask opsjobs install` copies beside a host's app, and says what changed in them."""

from __future__ import annotations

import re
from collections.abc import Mapping

# What each number of a starter brought, by the starter's name: the newest number is in its first lines.
CHANGES: Mapping[str, Mapping[int, str]] = {
    "opsjobs_access": {
        1: "the first",
        2: "has `sign_in_url`, which leads who is not signed in to your sign-in and back",
    },
    "opsjobs_display": {1: "the first"},
    "opsjobs_escalation": {1: "the first"},
}

_NUMBER = re.compile(r"\bstarter (\d+)\b")


def find_number(source: str) -> int | None:
    """The number of the starter that a file was written from; None when its first lines name none."""
    found = _NUMBER.search("\n".join(source.splitlines()[:5]))
    return int(found[1]) if found else None
