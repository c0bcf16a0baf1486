"""A Prometheus scrapes a running host, and answers each expression of the boards with a series.

Asked for by `--prometheus`; it needs Debian's package `prometheus`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text

from flask_opsjobs.testing.valkey import free_port
from tests.support import host as host_module
from tests.support.processes import Children
from tests.support.sources import ROOT
from tests.support.waiting import wait_until
from tests.telemetry.boards import RQ_BOARD, expressions_of, query_of

pytestmark = [pytest.mark.prometheus, pytest.mark.slow(300)]

_CONFIG = """
global:
  scrape_interval: 1s
rule_files: [{rules}]
scrape_configs:
  - job_name: shop
    static_configs: [{{targets: ["{target}"]}}]
"""


class Prometheus:
    """Debian's Prometheus on a loopback port."""

    def __init__(self, folder: Path, target: str) -> None:
        self.folder, self.target = folder, target
        program = shutil.which("prometheus")
        assert program, "Prometheus is not installed: apt-get install prometheus"
        self.url = f"http://127.0.0.1:{free_port()}"
        rules = ROOT / "examples/prometheus/alerts.yml"
        (folder / "prometheus.yml").write_text(_CONFIG.format(rules=rules, target=target))
        self._log = (folder / "prometheus.log").open("wb")
        self._process = subprocess.Popen(
            [
                program,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={self.url.removeprefix('http://')}",
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def get(self, path: str, **query: str) -> Any:
        """The answer of its API; None while it does not listen. Raises when it refuses a query."""
        words = urllib.parse.urlencode(query)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{words}", timeout=10) as answer:
                return json.load(answer)["data"]
        except ConnectionError:
            return None
        except urllib.error.HTTPError:
            raise
        except urllib.error.URLError:
            return None

    def query(self, expression: str) -> list[Any]:
        """The series of an expression now."""
        found = self.get("query", query=expression)
        return [] if found is None else found["result"]

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(20)
        self._log.close()


@pytest.fixture
def host_app(database_url: str, redis_url: str) -> Iterator[Flask]:
    """The app of the child processes, to enqueue with."""
    app = host_module.create_app(SQLALCHEMY_DATABASE_URI=database_url, OPSJOBS_REDIS_URL=redis_url)
    with app.app_context():
        yield app
        host_module.db.engine.dispose()
    app.extensions["opsjobs"].spare.close()
    app.extensions["opsjobs"].pages.dispose()


@pytest.fixture
def prometheus(children: Children, tmp_path: Path) -> Iterator[Prometheus]:
    """Scrapes `flask opsjobs metrics --serve` of the host once a second."""
    target = f"127.0.0.1:{free_port()}"
    children.flask("opsjobs", "metrics", "--serve", target).wait_for("metrics at")
    prometheus = Prometheus(tmp_path, target)
    yield prometheus
    prometheus.close()


def _enqueue() -> None:
    for number in range(20):
        host_module.add.enqueue(a=1, b=number)
    host_module.fail.options(max_attempts=1).enqueue()
    host_module.db.session.commit()


_LIMITER = """
    INSERT INTO opsjobs.limiters (name, rate, per_seconds, burst, when_full, declared_at, declared_by)
    VALUES ('api', 10, 1, 10, 'hold', now(), 'a test')
"""


def test_each_expression_of_the_boards_returns_a_series(
    children: Children, host_app: Flask, prometheus: Prometheus
) -> None:
    operator = host_module.opsjobs.operator
    host_module.db.session.execute(text(_LIMITER))
    canceled = host_module.add.options(delay=3600).enqueue(a=1, b=1).id
    _enqueue()
    operator.cancel([canceled], actor="ops-demo", reason="a decision that is counted")
    children.flask("opsjobs", "run").wait_for("runs the loops", 30)
    for _ in range(2):
        children.flask("opsjobs", "worker").wait_for("listens to", 30)
    # One is busy whenever it is scraped.
    gate = prometheus.folder / "gate"
    host_module.progress_then_hold.enqueue(gate=str(gate), timeout=600)
    host_module.db.session.commit()
    wait_until(lambda: prometheus.query("opsjobs_jobs_ended_total > 0"), 240, every=1)
    # What ends from now on is an increase.
    _enqueue()
    board = json.loads((ROOT / "examples/grafana/opsjobs.json").read_text())
    chosen = {"job": "shop", "instance": prometheus.target}
    wanted = [query_of(each, **chosen) for each in (*expressions_of(board), *RQ_BOARD)]
    missing = set(wanted)

    def all_return_a_series() -> bool:
        missing.difference_update({each for each in missing if prometheus.query(each)})
        return not missing

    wait_until(all_return_a_series, 240, every=1, what=lambda: "\n".join(sorted(missing)))
    print(f"{len(wanted)} expressions return a series")
    assert prometheus.query("up{job='shop'}")[0]["value"][1] == "1"
    (group,) = prometheus.get("rules")["groups"]
    assert {rule["health"] for rule in group["rules"]} == {"ok"}
    gate.touch()


def test_promtool_accepts_the_alert_rules() -> None:
    program = shutil.which("promtool")
    assert program, "Prometheus is not installed: apt-get install prometheus"
    done = subprocess.run(
        [program, "check", "rules", str(ROOT / "examples/prometheus/alerts.yml")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
