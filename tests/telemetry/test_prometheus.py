"""A Prometheus scrapes `make demo`, and answers each expression of the boards with a series.

Asked for by `--prometheus`; it needs Debian's package `prometheus`.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from flask_opsjobs.testing.valkey import free_port
from tests.support.processes import Child
from tests.support.sources import ROOT
from tests.support.waiting import wait_until
from tests.telemetry.boards import RQ_BOARD, expressions_of, query_of

pytestmark = [pytest.mark.prometheus, pytest.mark.slow(300)]

TOKEN = "0123456789abcdef-demo"
RULES = ROOT / "examples/prometheus/alerts.yml"
_CONFIG = """
global:
  scrape_interval: 2s
rule_files: [{rules}]
scrape_configs:
  - job_name: shop
    metrics_path: /ops/jobs/metrics
    authorization: {{credentials: {token}}}
    static_configs: [{{targets: ["{target}"]}}]
"""
# The only limiter of the shop has partitions, and so no tokens of its own.
_LIMITER = """
    INSERT INTO opsjobs.limiters (name, rate, per_seconds, burst, when_full, declared_at, declared_by)
    VALUES ('api', 10, 1, 10, 'hold', now(), 'a test')
"""


class Prometheus:
    """Debian's Prometheus on a loopback port."""

    def __init__(self, folder: Path, target: str) -> None:
        program = shutil.which("prometheus")
        assert program, "Prometheus is not installed: apt-get install prometheus"
        self.url = f"http://127.0.0.1:{free_port()}"
        config = _CONFIG.format(rules=RULES, target=target, token=TOKEN)
        (folder / "prometheus.yml").write_text(config)
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

    def rules(self) -> list[Any]:
        """The alert rules, each with its expression and its health."""
        (group,) = self.get("rules")["groups"]
        rules: list[Any] = group["rules"]
        return rules

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(20)
        self._log.close()


@pytest.fixture
def demo() -> Iterator[str]:
    """The address of a demo whose app serves metrics."""
    with tempfile.TemporaryDirectory(prefix="opd-") as place:
        folder, port = Path(place, "demo"), free_port()
        child = Child(
            [sys.executable, "-m", "tools.demo", "--data-dir", str(folder), "--port", str(port)],
            Path(place, "log"),
            {"TMPDIR": place, "FLASK_OPSJOBS_METRICS_TOKEN": TOKEN},
        )
        try:
            child.wait_for("Ctrl-C stops everything", timeout=240)
            _add_limiter(folder)
            yield f"127.0.0.1:{port}"
        finally:
            child.terminate(60)
            print(f"--- {child} said:\n{child.log}")


def _add_limiter(folder: Path) -> None:
    words = shlex.split((folder / "env").read_text())
    env = dict(word.split("=", 1) for word in words if "=" in word)
    engine = create_engine(env["FLASK_SQLALCHEMY_DATABASE_URI"])
    with engine.begin() as connection:
        connection.execute(text(_LIMITER))
    engine.dispose()


@pytest.fixture
def prometheus(demo: str, tmp_path: Path) -> Iterator[Prometheus]:
    """Scrapes the demo every other second."""
    prometheus = Prometheus(tmp_path, demo)
    yield prometheus
    prometheus.close()


def test_each_expression_of_the_boards_returns_a_series(demo: str, prometheus: Prometheus) -> None:
    board = json.loads((ROOT / "examples/grafana/opsjobs.json").read_text())
    chosen = {"job": "shop", "instance": demo}
    ours = [query_of(each, **chosen) for each in expressions_of(board)]
    theirs = [query_of(each, **chosen) for each in RQ_BOARD]
    missing = {*ours, *theirs}

    def all_return_a_series() -> bool:
        missing.difference_update({each for each in missing if prometheus.query(each)})
        return not missing

    wait_until(all_return_a_series, 300, every=1, what=lambda: "\n".join(sorted(missing)))
    assert prometheus.query("up{job='shop'}")[0]["value"][1] == "1"
    wait_until(lambda: {rule["health"] for rule in prometheus.rules()} == {"ok"}, 60, every=1)
    rules = prometheus.rules()
    for rule in rules:
        prometheus.query(rule["query"])  # raises when it is refused
    print(
        f"{len(ours)} expressions of our board and {len(theirs)} of board 12196 return a series; "
        f"{len(rules)} alert rules are evaluated"
    )


def test_promtool_accepts_the_alert_rules() -> None:
    program = shutil.which("promtool")
    assert program, "Prometheus is not installed: apt-get install prometheus"
    done = subprocess.run(
        [program, "check", "rules", str(RULES)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
