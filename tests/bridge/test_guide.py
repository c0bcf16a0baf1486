"""The guide of RQ's own view: its blocks of Python are executed, and its addresses are those of the app."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from flask import Flask

from tests.bridge.rq_site import RqSite
from tests.support.sources import ROOT

GUIDE = (ROOT / "docs/bridge.md").read_text()
CONFIG, POLICY = re.findall(r"^```python\n(.*?)^```", GUIDE, re.M | re.S)


def test_its_code_mounts_the_pages_for_whom_it_says(
    make_app: Callable[..., Flask], database_url: str, in_rq: RqSite
) -> None:
    given = Flask("given")
    exec(compile(CONFIG, "docs/bridge.md", "exec"), {"app": given})
    settings = {key: value for key, value in given.config.items() if key.startswith("OPSJOBS_")}
    assert settings["OPSJOBS_BRIDGE"] == "auto"
    names: dict[str, Any] = {}
    exec(compile(POLICY, "docs/bridge.md", "exec"), names)
    settings["OPSJOBS_RQ_REDIS_URLS"] = {"reports": "redis://127.0.0.1:1/0"}
    client = make_app(access=names["HostAccess"](), **settings).test_client()
    assert client.get("/ops/jobs/rq/1/").status_code == 503
    rows = re.findall(r"^\| (`/.+?`) \| (`/.+?`) \|$", GUIDE, re.M)
    assert len(rows) == 4
    for cells in rows:
        for path in re.findall(r"`(.+?)`", " ".join(cells)):
            answer = client.get(f"/ops/jobs/rq{path.replace('ID', in_rq.ids['queued'])}")
            assert answer.status_code == 200, path
            assert "note_plain(" not in answer.text
    assert client.get("/ops/jobs/rq/requeue/mail").status_code == 403
