"""The kinds of subjects: each is documented, and its name is read in one way."""

from __future__ import annotations

import re

import pytest

from flask_opsjobs import UnknownSubject
from flask_opsjobs.forensics.registry import KINDS, read_kind
from tests.support.sources import ROOT

KEYS = {
    "job": ("42", "042"),
    "attempt": ("42-3", "042-03"),
    "incident": ("12", "012"),
    "failure": ("7", "07"),
    "deploy": ("3", "03"),
    "operation": ("74", "074"),
    "workflow": ("7", "07"),
    "step": ("42", "042"),
    "batch": ("7", "07"),
}


def test_the_guide_has_a_row_for_each_kind() -> None:
    guide = (ROOT / "docs" / "forensics.md").read_text()
    table = guide.partition("## Which time")[2].partition("## Support")[0]
    rows = [line.partition("| ")[2].partition(" |")[0] for line in table.splitlines()]
    named = [kind for row in rows for kind in re.findall(r"`(\w+)/", row)]
    assert sorted(named) == sorted(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_an_id_is_read_without_leading_zeros_and_a_name_as_it_is(kind: str) -> None:
    canonical, given = KEYS.get(kind, ("nightly_sync", "nightly_sync"))
    found, key = read_kind(f"{kind}/{given}")
    assert (found.name, key) == (kind, canonical)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "job",
        "job/",
        "job/abc",
        "job/9223372036854775808",
        "attempt/42",
        "queue/",
        "comet/1",
        "limiter/api/42",
        "incident/-1",
    ],
)
def test_a_text_that_can_name_nothing_is_refused(text: str) -> None:
    with pytest.raises(UnknownSubject, match="names no subject"):
        read_kind(text)
