"""The page that says what a limiter would do:
the numbers of the command, faults at their fields, no write.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from flask_opsjobs.limits.words import WAITS
from flask_opsjobs.web.limiters.outcomes import start_in_words
from tests.limits.conftest import Limited, commit, limited  # noqa: F401
from tests.support.engine import Bench
from tests.support.policies import ShowAll
from tests.web.conftest import Access
from tests.web.every import soup
from tests.web.rows import make_limited, make_limiter
from tests.web.test_reads_are_pure import _fingerprint

Get = Callable[..., Any]
Reference = Callable[..., str]
Commit = Callable[..., int]
ODD = ["", "a/b", "naïve ☂", "<b>&'\"", '"><script>alert(1)</script>', "100%", "a?b#c", "{{7*7}}"]


def _path(limiter: str = "customer-api", **asked: Any) -> str:
    return f"/limiters/{limiter}/simulate?{urlencode(asked)}"


def _tree(get: Get, path: str, status: int = 200) -> Any:
    return soup(get(path, status).text)


def _column(tree: Any, which: str = "as declared") -> dict[str, str]:
    """The cells of one shape by the label of their row."""
    return {
        row.th.get_text(" ", strip=True): row.select_one(f"td[data-label='{which}']").text
        for row in tree.select("section[aria-labelledby=outcome] tbody tr")
        if row.td
    }


def _said(tree: Any) -> str:
    return " ".join(tree.select_one("section[aria-labelledby=outcome] .pad p").text.split())


def _faults(tree: Any) -> dict[str, str]:
    """What stands beside each field that is wrong."""
    return {
        field.input["name"]: field.small.text
        for field in tree.select("div.field")
        if field.input.get("aria-invalid") == "true"
    }


@pytest.fixture
def whole(session: Session) -> None:
    """A limiter with one bucket: 10 a minute, 5 at once, 3 at the same time."""
    make_limiter(session, partition_by=None)
    session.commit()


@pytest.mark.usefixtures("whole")
def test_a_hundred_jobs_come_unless_it_is_said_otherwise(get: Get) -> None:
    tree = _tree(get, "/limiters/customer-api/simulate")
    assert {i["name"]: i["value"] for i in tree.select("div.field input") if i["value"]} == {
        "count": "100",
        "weight": "1",
        "run_seconds": "1",
    }
    assert {i["name"]: i["placeholder"] for i in tree.select("div.field input")} == {
        **dict.fromkeys(("count", "weight", "run_seconds", "workers"), ""),
        "rate": "10",
        "per": "60",
        "burst": "5",
        "concurrency": "3",
    }
    assert tree.select_one("input[name=live]").get("checked") is None
    assert "100 jobs arrive at once. With 10 a minute, 5 at once; 3 at the same time" in _said(tree)
    assert _column(tree)["Too heavy to ever start"] == "0"
    assert tree.select_one("#d-starts").text.startswith("How many have started, over time. As dec")


def test_the_declared_weight_stands_in_the_form(get: Get, session: Session) -> None:
    make_limiter(session, "heavy", weight_by="3")
    make_limiter(session, "varied", weight_by="<size>")
    session.commit()
    heavy, varied = (_tree(get, _path(name)) for name in ("heavy", "varied"))
    assert (heavy.find(id="s-weight")["value"], varied.find(id="s-weight")["value"]) == ("3", "1")
    assert "The weight of a job comes from <size>." in varied.text
    assert "comes from" not in heavy.text


QUESTIONS: list[dict[str, Any]] = [
    {"count": 5},
    {"count": 1},
    {"count": 40, "run_seconds": "7.5", "workers": 2},
    {"count": 40, "rate": "1", "per": "10"},
    {"count": 9, "burst": 4, "concurrency": 1, "run_seconds": "90"},
]


@pytest.mark.parametrize("asked", QUESTIONS, ids=str)
def test_its_numbers_are_those_of_the_command(
    asked: dict[str, Any],
    get: Get,
    app: Flask,
    limited: Limited,  # noqa: F811
) -> None:
    limited(rate=1, per=60, concurrency=2, partition=None)
    words = [f"--{name.replace('_', '-')}={value}" for name, value in asked.items()]
    _require_alike(get, app, words, _path("api", **asked))


def test_it_begins_with_what_stands_and_waits_as_the_command_does(
    get: Get,
    app: Flask,
    bench: Bench,
    limited: Limited,  # noqa: F811
    commit: Commit,  # noqa: F811
    reference: Reference,
) -> None:
    # Without a rate: what it answers is the same some moments later.
    task = limited(concurrency=2)
    job_ids = [commit(task, account=7) for _ in range(7)]
    bench.dispatch("default|api|7")
    bench.claim(job_ids[0])
    seven = reference("7", "api")
    path = _path("api", count=3, run_seconds=4, partition=seven, live="yes")
    found = _require_alike(
        get, app, ["--count=3", "--run-seconds=4", "--from-live", "--partition=7"], path
    )
    # One runs and one lies in Redis; five wait, and three come.
    assert found["started"] == 8
    tree = _tree(get, path)
    assert "3 jobs arrive at once, behind 5 that wait now." in _said(tree)
    assert tree.select_one("input[name=live]").get("checked") is not None
    assert tree.select_one("input[name=partition]")["value"] == seven
    assert _column(tree)["First start"] == "after 4.0 s"


def _require_alike(get: Get, app: Flask, words: list[str], path: str) -> dict[str, Any]:
    """Compare every number of a page with the command's, and return those."""
    command = ["opsjobs", "limiter", "simulate", "call", *words, "--json"]
    found: dict[str, Any] = json.loads(app.test_cli_runner().invoke(args=command).output)
    tree = _tree(get, path)
    has_another = any(f"{name}=" in path for name in ("rate", "per", "burst", "concurrency"))
    shown = _column(tree, "as tried" if has_another else "as declared")
    waits = found["waits_seconds"]
    expected = {
        "First start": start_in_words(found["first_start_seconds"]),
        "Half have started": start_in_words(found["half_start_seconds"]),
        "Last start": start_in_words(found["last_start_seconds"]),
        "All have ended": start_in_words(found["ended_seconds"]),
        "Wait, median": _wait(waits["median"]),
        "Wait, 95th percentile": _wait(waits["p95"]),
        "Longest wait": _wait(waits["most"]),
        "Most at once": str(found["most_at_once"]),
        "Too heavy to ever start": str(found["never"]),
    }
    blocked = {
        f"{WAITS[code]} {code}": _wait(value) for code, value in found["blocked_seconds"].items()
    }
    assert {
        label: cell for label, cell in shown.items() if cell != "none" or label in expected
    } == {
        **expected,
        **blocked,
    }
    assert tree.select_one("figure.chart b").text == str(found["started"])
    return found


def _wait(seconds: float) -> str:
    return "none" if seconds < 0.001 else start_in_words(seconds).removeprefix("after ")


@pytest.mark.usefixtures("whole")
def test_another_shape_stands_beside_the_declared_one(get: Get) -> None:
    tree = _tree(get, _path(count=65, rate=60, per=60, concurrency=100))
    assert (_column(tree, "as tried")["Last start"], _column(tree)["Last start"]) == (
        "after 5.0 s",
        "after 6 min 0 s",
    )
    assert "With 60 a minute, 60 at once; 100 at the same time" in _said(tree)
    assert "With the declared limit, the last would start after 6 min 0 s." in _said(tree)
    assert tree.select_one("path.trace.two")
    # What is typed, and is what stands there, is no other shape.
    assert not _tree(get, _path(rate=10, burst=5)).select("path.trace.two")


@pytest.mark.usefixtures("whole")
def test_what_is_too_heavy_never_starts(get: Get) -> None:
    tree = _tree(get, _path(weight=4))
    assert "No job can ever start" in _said(tree)
    assert (_column(tree)["First start"], _column(tree)["Too heavy to ever start"]) == ("–", "100")
    assert not tree.select("figure.chart")
    tree = _tree(get, _path(weight=4, concurrency=5))
    assert "With the declared limit, no job could ever start." in _said(tree)
    assert (_column(tree, "as tried")["First start"], _column(tree)["First start"]) == (
        "at once",
        "–",
    )


@pytest.mark.parametrize(
    ("asked", "labels"),
    [
        ({"count": 5, "concurrency": 5}, ["0", "0.5 s", "1 s"]),
        ({"count": 65}, ["0", "2 min", "4 min", "6 min"]),
        ({"count": 800}, ["0", "30 min", "60 min"]),
        ({"count": 10_000}, ["0", "6 h", "12 h"]),
        ({"count": 10_000, "run_seconds": 86_400}, ["0", "1000 d", "2000 d", "3000 d"]),
    ],
)
@pytest.mark.usefixtures("whole")
def test_the_chart_has_round_times_below_it(
    asked: dict[str, Any], labels: list[str], get: Get
) -> None:
    texts = _tree(get, _path(**asked)).select("figure.chart text[text-anchor]")
    assert [text.text for text in texts] == labels


WHOLE, NUMBER = "Give a whole number from 1 to {}.", "Give a number {} 0, at most {}."
LARGEST, YEAR = "2,147,483,647", "31,622,400"


@pytest.mark.parametrize(
    ("name", "bad", "said"),
    [
        *(
            ("count", bad, WHOLE.format("10,000"))
            for bad in ("0", "-1", "10001", "1.5", "1e3", "x", "٣", "1_0", "10,00", "\0", "9" * 400)
        ),
        *(("weight", bad, WHOLE.format(LARGEST)) for bad in ("0", "2147483648", "light")),
        *(("workers", bad, WHOLE.format("10,000")) for bad in ("0", "10001", "many")),
        *(
            ("run_seconds", bad, NUMBER.format("from", YEAR))
            for bad in ("-1", "nan", "inf", "31622401")
        ),
        *(
            ("rate", bad, NUMBER.format("above", LARGEST))
            for bad in ("0", "0.0", "-4", "2147483648", "fast")
        ),
        *(("per", bad, NUMBER.format("above", YEAR)) for bad in ("0", "31622401", "minute")),
        *(("burst", bad, WHOLE.format(LARGEST)) for bad in ("0", "1.5", "2147483648")),
        *(("concurrency", bad, WHOLE.format(LARGEST)) for bad in ("0", "none", "2147483648")),
    ],
)
@pytest.mark.usefixtures("whole")
def test_a_bad_value_is_told_beside_its_field(name: str, bad: str, said: str, get: Get) -> None:
    tree = _tree(get, _path(**{"run_seconds": "2", "workers": "3", name: bad}), 400)
    assert _faults(tree) == {name: said}
    typed = {i["name"]: i["value"] for i in tree.select("div.field input")}
    # A NUL is no character of HTML: who reads it puts another in its place, as browsers do.
    assert typed[name] == bad.replace("\0", "\ufffd")
    assert name == "workers" or typed["workers"] == "3"
    assert "The error is shown below its field" in tree.text
    assert not tree.select("figure.chart, table")


@pytest.mark.usefixtures("whole")
def test_every_fault_is_told_at_once_and_the_bounds_pass(get: Get) -> None:
    assert _faults(_tree(get, _path(count=0, rate=0, burst=0), 400)).keys() == {
        "count",
        "rate",
        "burst",
    }
    for asked in (
        {"count": "10,000", "run_seconds": 0},
        {"run_seconds": 31_622_400, "count": 3, "workers": 10_000},
        {"rate": 2**31 - 1, "per": "0.000001", "weight": 1},
        {"rate": "0.5", "per": 31_622_400, "count": 2, "burst": 40, "concurrency": 2**31 - 1},
    ):
        assert _tree(get, _path(**asked)).select("figure.chart"), asked


def test_a_rate_needs_its_span_and_a_burst_its_rate(get: Get, session: Session) -> None:
    make_limiter(session, rate=None, per_seconds=None, burst=None, partition_by=None)
    session.commit()
    faults = _faults(_tree(get, _path(rate=3), 400))
    assert faults.keys() == {"per"}
    assert faults["per"].startswith("Rate and per go together")
    assert _faults(_tree(get, _path(burst=3), 400))["burst"].startswith("Burst bounds a rate")
    assert get(_path(rate=3, per=10))


@pytest.mark.usefixtures("whole")
def test_what_takes_a_hundred_years_is_refused(get: Get) -> None:
    asked: dict[str, Any] = {"run_seconds": 31_622_400, "count": 999}
    assert "more than 100 years" in _faults(_tree(get, _path(**asked), 400))["count"]
    asked = {"rate": "0.000000001", "per": 31_622_400}
    assert "more than a century to fill" in _faults(_tree(get, _path(**asked), 400))["rate"]


def test_to_begin_with_what_waits_needs_one_bucket(
    get: Get, session: Session, reference: Reference
) -> None:
    make_limiter(session)
    session.commit()
    tree = _tree(get, _path())
    assert not tree.select("input[name=live], input[name=partition]")
    assert "This simulates one account_id" in tree.text
    assert "choose one first" in _tree(get, _path(live="yes"), 400).text
    whole = _path(partition=reference(""))
    assert _tree(get, whole).select("input[name=live], input[name=partition]")


def test_what_waits_counts_towards_the_most(
    get: Get, session: Session, reference: Reference
) -> None:
    make_limiter(session)
    for _ in range(3):
        make_limited(session)
    session.commit()
    tree = _tree(get, _path(partition=reference("42"), live="yes", count=9_997))
    assert "9,997 jobs arrive at once, behind 3 that wait now" in _said(tree)
    assert tree.select_one("figure.chart b").text == "10,000"
    tree = _tree(get, _path(partition=reference("42"), live="yes", count=9_998), 400)
    assert "Together with the waiting jobs these are more than 10,000 jobs" in tree.text
    assert tree.select_one("input[name=live]").get("checked") is not None
    other = _path(partition=reference("43"), live="yes")
    assert "no job waits now" in _said(_tree(get, other))


def test_its_limiter_and_its_partition_link_to_it(
    get: Get, session: Session, reference: Reference
) -> None:
    make_limiter(session)
    session.commit()
    for query in ("", f"?partition={reference('a/b')}"):
        links = _tree(get, f"/limiters/customer-api{query}").select("#part .actions a")
        place = "/ops/jobs/limiters/customer-api/simulate"
        assert [link["href"] for link in links] == [place + query]
        get(links[0]["href"].removeprefix("/ops/jobs"))


@pytest.mark.parametrize("partition", ODD)
def test_any_partition_is_kept_and_escaped(
    partition: str, get: Get, session: Session, reference: Reference
) -> None:
    make_limiter(session)
    make_limited(session, partition)
    session.commit()
    answer = get(_path(live="yes", count=2, partition=reference(partition)))
    assert "<script>alert" not in answer.text
    tree = soup(answer.text)
    assert tree.select_one("input[name=partition]")["value"] == reference(partition)
    assert tree.h1.text.strip() == f"Simulate customer-api {partition}".strip()
    assert "behind 1 that waits now" in _said(tree)
    for link in tree.select("nav.crumbs a, form a"):
        get(link["href"].removeprefix("/ops/jobs"))


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/limiters/nowhere/simulate", 404, "No process has declared a limiter nowhere"),
        ("/limiters/customer-api/simulate?partition=7", 422, "was not made here"),
        ("/limiters/customer-api/simulate?partition=%00", 422, "was not made here"),
    ],
)
@pytest.mark.usefixtures("whole")
def test_what_is_not_there_is_said(path: str, status: int, said: str, get: Get) -> None:
    assert said in get(path, status).text


def test_who_may_not_view_it_may_not_try_it(
    get: Get, access: Access, session: Session, reference: Reference
) -> None:
    make_limiter(session)
    session.commit()
    get(_path(partition=reference("a/b")))
    assert ("limiters.view", "limiter/customer-api/a/b") in access.asked
    access.held -= {"limiters.view"}
    assert "limiters.view" in get(_path(), 403).text
    # It asks for no more than that, and shows no payload.
    access.held = {"limiters.view"}
    get(_path())


class Hides(ShowAll):
    """Shows `hunter2` nowhere."""

    def clean_text(self, text: str) -> str:
        return text.replace("hunter2", "[hidden]")


def test_the_display_policy_is_asked_about_the_partition(
    make_app: Callable[..., Flask], session: Session, reference: Reference
) -> None:
    make_limiter(session)
    session.commit()
    path = f"/ops/jobs{_path(partition=reference('hunter2'))}"
    answer = make_app(display=Hides()).test_client().get(path)
    assert "hunter2" not in answer.text
    assert answer.text.count("[hidden]") == 2


def test_it_writes_nothing(get: Get, session: Session, reference: Reference) -> None:
    make_limiter(session)
    for state in ("available", "queued", "started"):
        make_limited(session, state=state)
    session.commit()
    before = _fingerprint(session)
    session.rollback()
    get(_path(partition=reference("42"), live="yes", rate=3, per=7))
    get(_path(count=0), 400)
    assert _fingerprint(session) == before
