"""RQ's own view in a real browser: what a job holds stays text, and no page has a barrier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Queue

from tests.bridge.rq_site import HTML, fill
from tests.support.browser import faults
from tests.support.plain import take_plain

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_html_of_a_job_stays_text_and_no_page_has_a_barrier(
    page: Any, live_url: str, redis_client: Redis, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    site = fill(redis_client, tmp_path, HTML)
    line = Queue(HTML, connection=redis_client)
    long = Queue(
        "reconcile_marketplace_settlement_reports_for_every_seller_in_every_country_twice",
        connection=redis_client,
    )
    long.enqueue(take_plain, job_id="l" * 80)
    named = line.enqueue(f"shop.{HTML}", HTML, description=None).id
    noise: list[str] = []
    page.on("console", lambda message: noise.append(message.text))
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.on("dialog", lambda dialog: noise.append("alert"))
    start = f"{live_url}/ops/jobs/rq"
    jobs = [f"/0/view/job/{rq_id}" for rq_id in (site.ids["failed"], site.ids["started"], named)]
    page.goto(start)
    links = [str(link.get_attribute("href")) for link in page.locator("td.n a").all()]
    lists = [path.partition("/rq")[2] for path in links[:4]]
    paths = ["", "/0/view/workers", *jobs, *lists]
    alike = {*jobs[1:], *lists[1:]}
    found = []
    for path in paths:
        page.goto(start + path)
        assert HTML in page.locator("main").inner_text(), path
        assert page.locator("main img").count() == 0, path
        if pytestconfig.getoption("variants") or path not in alike:
            found += faults(page)
    assert found == []
    assert noise == []
    assert not site.trap.exists()
