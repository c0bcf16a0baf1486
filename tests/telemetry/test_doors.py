"""The three doors to metrics: the command, the collector, the URL; and what each says without Postgres."""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Callable
from queue import SimpleQueue

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from typing_extensions import override

from flask_opsjobs import OpsJobs
from flask_opsjobs.errors import ConfigError
from flask_opsjobs.telemetry import prometheus
from flask_opsjobs.telemetry.prometheus import PrometheusCollector, exposition
from flask_opsjobs.testing.postgres import TemporaryPostgres
from flask_opsjobs.testing.valkey import free_port
from tests.support.processes import Children
from tests.support.waiting import wait_until
from tests.telemetry.reading import parse, value

TOKEN = "0123456789abcdef-token"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
MakeApp = Callable[..., Flask]


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer \xff\xfe",
    ],
)
def test_without_the_token_the_answer_is_always_the_same(
    make_app: MakeApp, given: str | None
) -> None:
    client = make_app(OPSJOBS_METRICS_TOKEN=TOKEN).test_client()
    headers = {} if given is None else {"Authorization": given}
    for method in METHODS:
        response = client.open("/ops/jobs/metrics", method=method, headers=headers)
        assert (response.status_code, response.data) == (401, b""), method
        told = {name: text for name, text in response.headers if name != "Date"}
        assert told == {
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "WWW-Authenticate": "Bearer",
            "Content-Type": "text/html; charset=utf-8",
            "Content-Length": "0",
        }


@pytest.mark.lane
def test_with_the_token_the_url_answers_with_all_metrics(make_app: MakeApp) -> None:
    client = make_app(OPSJOBS_METRICS_TOKEN=TOKEN).test_client()
    headers = {"Authorization": f"Bearer {TOKEN}"}
    response = client.get("/ops/jobs/metrics", headers=headers)
    assert response.content_type.startswith("text/plain")
    assert value(parse(response.data), "opsjobs_up") == 1
    # This process counts its scrapes. The name of a scheme has no case.
    lower = {"Authorization": f"bearer {TOKEN}"}
    found = parse(client.get("/ops/jobs/metrics", headers=lower).data)
    assert value(found, "rq_request_processing_seconds_count") == 2
    assert client.options("/ops/jobs/metrics", headers=headers).status_code == 405


def test_without_the_setting_there_is_no_such_url(app: Flask) -> None:
    rules = {rule.endpoint for rule in app.url_map.iter_rules()}
    assert not any(endpoint.startswith("opsjobs_metrics") for endpoint in rules)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert app.test_client().get("/ops/jobs/metrics", headers=headers).status_code == 404


@pytest.mark.parametrize("wrong", ["short", "with spaces in the token", 7])
def test_an_error_about_the_token_does_not_show_it(make_app: MakeApp, wrong: object) -> None:
    with pytest.raises(ConfigError, match="OPSJOBS_METRICS_TOKEN is not allowed") as error:
        make_app(OPSJOBS_METRICS_TOKEN=wrong)
    assert repr(wrong) not in str(error.value)


def test_without_the_extra_each_door_names_it(
    make_app: MakeApp, app: Flask, opsjobs: OpsJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    needs = "needs prometheus-client: run pip install 'flask-opsjobs[prometheus]'"
    with pytest.raises(ConfigError) as by_setting:
        make_app(OPSJOBS_METRICS_TOKEN=TOKEN)
    assert str(by_setting.value) == f"OPSJOBS_METRICS_TOKEN {needs}"
    with app.app_context(), pytest.raises(ConfigError) as by_method:
        opsjobs.prometheus_collector()
    assert str(by_method.value) == f"prometheus_collector {needs}"
    result = app.test_cli_runner().invoke(args=["opsjobs", "metrics"])
    assert result.exit_code == 2
    assert result.output == f"Error: flask opsjobs metrics {needs}\n"


def test_the_command_prints_once(app: Flask) -> None:
    result = app.test_cli_runner().invoke(args=["opsjobs", "metrics"])
    assert result.exit_code == 0
    assert value(parse(result.output), "opsjobs_up") == 1


@pytest.mark.parametrize(
    "address", ["9726", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:http", ":9726"]
)
def test_an_address_without_a_port_is_refused(app: Flask, address: str) -> None:
    result = app.test_cli_runner().invoke(args=["opsjobs", "metrics", "--serve", address])
    assert result.exit_code == 2
    assert "is no address and port" in result.output


def test_the_command_serves_until_it_is_stopped(children: Children) -> None:
    address = f"127.0.0.1:{free_port()}"
    command = children.flask("opsjobs", "metrics", "--serve", address)
    command.wait_for(f"metrics at http://{address}/metrics")
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        assert value(parse(answer.read()), "opsjobs_up") == 1
    assert command.terminate() == 0


@pytest.mark.slow
def test_without_postgres_opsjobs_up_is_0_within_two_seconds(
    make_app: MakeApp,
    own_postgres: TemporaryPostgres,
    own_database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each scrape waits once, and no longer than 1.8 s."""
    waits: list[float] = []

    class Answers(SimpleQueue):  # type: ignore[type-arg]
        @override
        def get(self, block: bool = True, timeout: float | None = None) -> object:
            waits.append(timeout or 0)
            return super().get(block, timeout)

    monkeypatch.setattr(prometheus, "SimpleQueue", Answers)
    app = make_app(SQLALCHEMY_DATABASE_URI=own_database_url)
    collector = PrometheusCollector(app.extensions["opsjobs"])

    def scrape() -> tuple[float, list[float], int]:
        """Whether it is up, how long the scrape waited at most each time, and the number of series."""
        waits.clear()
        found = parse(exposition(collector))
        return value(found, "opsjobs_up"), [*waits], len(found)

    assert scrape()[0] == 1
    own_postgres.freeze()  # connections stand still, and new ones get no answer
    for _ in range(2):
        assert scrape() == (0, [1.8], 3)
    own_postgres.thaw()
    wait_until(lambda: scrape()[0] == 1, 20)
    own_postgres.kill()
    assert scrape() == (0, [1.8], 3)
    result = app.test_cli_runner().invoke(args=["opsjobs", "metrics"])
    assert result.exit_code == 1
    assert "\nopsjobs_up 0.0\n" in result.output
    own_postgres.start()
    wait_until(lambda: scrape()[0] == 1, 20)


def test_a_missing_schema_is_not_up(make_app: MakeApp, empty_database_url: str) -> None:
    app = make_app(SQLALCHEMY_DATABASE_URI=empty_database_url)
    found = parse(exposition(PrometheusCollector(app.extensions["opsjobs"])))
    assert value(found, "opsjobs_up") == 0


def test_a_bug_is_raised_and_not_hidden_as_an_outage(
    db: SQLAlchemy, opsjobs: OpsJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise LookupError("a bug")

    monkeypatch.setattr("flask_opsjobs.telemetry.prometheus.find_values", broken)
    with pytest.raises(LookupError, match="a bug"):
        exposition(opsjobs.prometheus_collector())
