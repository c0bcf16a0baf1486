"""The checks of the bridge; `tests/bridge/test_servers.py` shows what the bridge itself does then."""

from __future__ import annotations

import pytest
import rq_dashboard

from flask_opsjobs.bridge import status
from tests.conftest import MakeApp
from tests.doctor.conftest import Ask, shows


@shows("bridge.version")
def test_a_version_that_the_bridge_cannot_read(
    make_well: MakeApp, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask("bridge.version").state == "ok"
    monkeypatch.setattr(status, "_find_version", {"rq-dashboard": "0.10.0"}.get)
    found = ask("bridge.version", make_well())
    assert (found.state, "0.10.0 is installed" in found.sentence) == ("warning", True)
    monkeypatch.setattr(status, "_find_version", {}.get)
    assert ask("bridge.version", make_well()).state == "skipped"


@shows("bridge.host_mount")
def test_a_host_that_serves_rq_dashboard_itself(make_well: MakeApp, ask: Ask) -> None:
    assert ask("bridge.host_mount").state == "ok", "the bridge is mounted"
    app = make_well()
    app.register_blueprint(rq_dashboard.blueprint, url_prefix="/rq")
    assert app.url_map  # an app of the tests adds its blueprints when its URLs are asked for
    found = ask("bridge.host_mount", app)
    assert (found.state, "/rq/requeue/<queue_name>" in found.evidence) == ("warning", True)


@shows("bridge.redis")
def test_a_redis_of_the_bridge_that_is_away(make_well: MakeApp, redis_url: str, ask: Ask) -> None:
    near = make_well(OPSJOBS_RQ_REDIS_URLS={"reports": f"{redis_url.removesuffix('/0')}/1"})
    assert ask("bridge.redis", near).state == "ok"
    app = make_well(OPSJOBS_RQ_REDIS_URLS={"reports": "redis://me:hunter2@127.0.0.1:1/0"})
    found = ask("bridge.redis", app)
    assert found.state == "warning"
    assert found.evidence.startswith("reports at 127.0.0.1:1/0: ConnectionError. ")
    assert "hunter2" not in f"{found}"
