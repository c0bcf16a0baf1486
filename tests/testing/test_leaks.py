"""`assert_no_leaks` finds a canary however and wherever it is written, names the place, and nothing else."""

from __future__ import annotations

import csv
import html
import io
import json
import logging
import re
from base64 import b64encode
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from flask import Blueprint, Flask, Response, request
from flask.testing import FlaskClient

from flask_opsjobs.testing import assert_no_leaks

CANARY = 'pay "DE02-é" <to> A&B/7_x'
HALF = CANARY[: len(CANARY) // 2]


def site(**answers: Callable[[], Any]) -> FlaskClient:
    """A host whose first page leads to one page for each of these answers, and nothing else does."""
    app, pages = Flask("shop"), Blueprint("opsjobs", "shop")
    links = "".join(f'<a href="/ops/at/{name}">{name}</a>' for name in answers)
    pages.add_url_rule("/", "overview", lambda: links)
    pages.add_url_rule("/at/<name>", "page", lambda name: answers[name]())
    app.register_blueprint(pages, url_prefix="/ops")
    return app.test_client()


def as_csv(text: str) -> str:
    """A row of a CSV file."""
    file = io.StringIO()
    csv.writer(file).writerow([1, text])
    return file.getvalue()


WAYS = {
    "as it is": CANARY,
    "in another case": CANARY.upper(),
    "as HTML": f"<p>{html.escape(CANARY)}</p>",
    "as HTML with marks": f"<p>{html.escape(CANARY[:5])}<mark>{html.escape(CANARY[5:])}</mark></p>",
    "in an address": f'<a href="?q={quote(CANARY)}">',
    "in a query": f"?q={quote_plus(CANARY)}",
    "as JSON": json.dumps({"value": CANARY}),
    "as JSON in UTF-8": json.dumps({"value": CANARY}, ensure_ascii=False),
    "as CSV": as_csv(CANARY),
    "as Markdown": re.sub(r"([^\w\sé])", r"\\\1", CANARY),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_canary_is_found_however_it_is_written(way: str) -> None:
    with pytest.raises(AssertionError) as error:
        assert_no_leaks(site(page=lambda: WAYS[way]), [CANARY])
    assert f"{CANARY!r} in /ops/at/page, body" in str(error.value)


def _download() -> Response:
    headers = {"Content-Disposition": "attachment; filename=jobs.csv"}
    return Response(as_csv(CANARY), mimetype="text/csv", headers=headers)


def _log(name: str, level: int) -> str:
    logging.getLogger(name).log(level, "has %s", CANARY)
    return "nothing"


def _log_error() -> str:
    try:
        raise ValueError(CANARY)
    except ValueError:
        logging.getLogger("shop").exception("failed")
    return "nothing"


PLACES: dict[str, tuple[Callable[[], Any], str]] = {
    "body": (lambda: f"<p>{CANARY}", "body"),
    "download": (_download, "body"),
    "header": (lambda: Response("nothing", headers={"X-Why": quote(CANARY)}), "header X-Why"),
    "problem": (lambda: Response(CANARY, status=404), "body"),
    "log": (lambda: _log("shop", logging.WARNING), "log"),
    "log_of_ours": (lambda: _log("flask_opsjobs.jobs", logging.DEBUG), "log"),
    "traceback": (_log_error, "log"),
}


@pytest.mark.parametrize("name", PLACES)
def test_each_place_is_searched_and_named(name: str) -> None:
    answer, place = PLACES[name]
    with pytest.raises(AssertionError) as error:
        assert_no_leaks(site(fine=lambda: "nothing", **{name: answer}), ["another", CANARY])
    first, found = str(error.value).splitlines()
    assert first == "found in 1 place:"
    assert found.startswith(f"  {CANARY!r} in /ops/at/{name}, {place}")


def test_texts_of_the_caller_are_searched_too() -> None:
    with pytest.raises(AssertionError, match=r"in flask shop report, text: has pay"):
        assert_no_leaks(site(), [CANARY], texts={"flask shop report": f"has {CANARY}"})


@pytest.mark.parametrize(
    "text",
    [
        "nothing",
        CANARY.replace("pay", "pray").replace("7", "8"),  # a letter of each half is another one
        HALF[:5],
        b64encode(CANARY.encode()).decode(),  # docs/testing.md says that it is not read
    ],
)
def test_what_only_looks_like_a_canary_is_no_leak(text: str) -> None:
    found = assert_no_leaks(site(page=lambda: text), [CANARY])
    assert "/ops/at/page" in found.addresses
    assert (found.leaks, found.near_misses) == ([], [])


@pytest.mark.parametrize("half", [HALF, CANARY[-len(HALF) :]])
def test_half_a_canary_is_a_near_miss_that_a_failure_names(half: str) -> None:
    found = assert_no_leaks(site(page=lambda: f"has {html.escape(half)}"), [CANARY])
    (near,) = found.near_misses
    assert (near.canary, near.address) == (CANARY, "/ops/at/page")
    with pytest.raises(AssertionError) as error:
        assert_no_leaks(site(page=lambda: half, other=lambda: CANARY), [CANARY])
    told = str(error.value)
    assert told.index("/ops/at/other") < told.index("near misses, with half a canary")
    assert told.index("near misses, with half a canary") < told.index("/ops/at/page")


def test_a_canary_is_no_near_miss_because_half_of_it_needs_no_escape() -> None:
    with pytest.raises(AssertionError, match="in /ops/at/page, body without markup"):
        assert_no_leaks(site(page=lambda: "has DE02canary&amp;DE03"), ["DE02canary&DE03"])


def test_an_error_of_the_server_fails_whatever_it_holds() -> None:
    with pytest.raises(AssertionError, match="GET /ops/at/page answered 503"):
        assert_no_leaks(site(page=lambda: ("away", 503)), [CANARY])


def test_metrics_are_read_with_the_token_of_the_app() -> None:
    client = site()
    client.application.config["OPSJOBS_METRICS_TOKEN"] = "a-token-of-16-letters"
    metrics = Blueprint("opsjobs_metrics", "shop")

    @metrics.get("/metrics")
    def read() -> Any:
        is_allowed = request.headers.get("Authorization") == "Bearer a-token-of-16-letters"
        return CANARY if is_allowed else ("", 401)

    client.application.register_blueprint(metrics, url_prefix="/ops")
    with pytest.raises(AssertionError, match="in /ops/metrics, body"):
        assert_no_leaks(client, [CANARY])


@pytest.mark.parametrize("canaries", [[], ["fine", ""]])
def test_an_empty_canary_is_refused(canaries: list[str]) -> None:
    with pytest.raises(ValueError, match="canaries must be texts that are not empty"):
        assert_no_leaks(site(), canaries)


def test_an_app_without_our_pages_is_refused() -> None:
    with pytest.raises(AssertionError, match="OpsJobs serves no pages in this app"):
        assert_no_leaks(Flask("shop").test_client(), [CANARY])


def test_a_client_that_sees_no_page_is_an_error() -> None:
    client = site()
    client.application.view_functions["opsjobs.overview"] = lambda: ("refused", 403)
    with pytest.raises(AssertionError, match="none of 1 address showed a page to this client"):
        assert_no_leaks(client, [CANARY])
