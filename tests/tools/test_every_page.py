"""Every page that the table of URLs lists is measured by `make bench-pages`
and pictured by `make screenshot`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flask_opsjobs.jobs.lifecycle import STATES
from flask_opsjobs.web.app.urls import URLS, Url
from tools.bench_pages import paths
from tools.screenshot import pages

KNOWN = paths.Known(
    secrets=(b"x",),
    rows=1000,
    ids={state: [7] for state in STATES},
    queues=["mail"],
    tasks=["send_receipt"],
    previews=[1],
    failures=[1],
    events=10,
    accounts=10,
)


def _add(monkeypatch: pytest.MonkeyPatch, module: Any, rule: str) -> None:
    added = Url(rule, "added", URLS[0].view, "page")
    monkeypatch.setattr(module, "URLS", (*URLS, added))


def test_every_get_is_measured_with_no_part_of_its_rule_left_open() -> None:
    asks = list(paths.asks(KNOWN))
    reads = {url.endpoint for url in URLS if url.kind not in ("action", "asset")}
    assert {ask.name.split()[0] for ask in asks} == {*reads, "metrics"}
    assert not [ask.path(1) for ask in asks if "<" in ask.path(1)]
    assert len({ask.name for ask in asks}) == len(asks)


def test_a_state_that_no_job_is_in_is_left_out() -> None:
    asks = list(paths.asks(replace(KNOWN, ids={**KNOWN.ids, "deferred": []})))
    assert "job deferred" not in {ask.name for ask in asks}


def test_a_page_that_the_bench_cannot_ask_for_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _add(monkeypatch, paths, "/comets/<comet_id>")
    with pytest.raises(LookupError, match="comet_id"):
        list(paths.asks(KNOWN))


def test_every_page_has_its_picture() -> None:
    pages.require_all_pictured()


def test_a_page_without_a_picture_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _add(monkeypatch, pages, "/batches")
    with pytest.raises(LookupError, match="added"):
        pages.require_all_pictured()
