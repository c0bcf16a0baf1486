"""`make demo` as somebody runs it: it starts, lives, ends, and says what is in its way."""

from __future__ import annotations

import faulthandler
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlencode

import click
import psutil
import pytest

from flask_opsjobs.testing.valkey import free_port
from tests.support.processes import Child
from tests.support.sources import ROOT
from tests.support.waiting import wait_until
from tools.demo.__main__ import choose_port
from tools.demo.run import say_welcome
from tools.demo.site import Site, text_of

pytestmark = pytest.mark.slow

Start = Callable[..., Child]
FIRST_SESSION = (ROOT / "docs/first-session.md").read_text()


@pytest.fixture
def start(place: Path) -> Iterator[Start]:
    """Starts the demo with its data in the test's folder; kills what is left of it at the end.

    It and its processes are forks of one that has imported the package, unless that is not wanted.
    """
    started: list[Child] = []

    def start(*words: str, is_warm: bool = True, **env: str) -> Child:
        child = Child(
            [sys.executable, "-m", "tools.demo", *words],
            place / f"demo-{len(started)}.log",
            {"TMPDIR": str(place), "PYTHONPATH": str(ROOT), **env},
            warm="app" if is_warm else None,
            folder=place,
        )
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill_all()
        print(f"--- {child} said:\n{child.log}")
    for process in left_over(place).values():
        with suppress(psutil.NoSuchProcess):
            process.kill()


def left_over(place: Path) -> dict[str, psutil.Process]:
    """The processes that a demo started here, by name, told by their place or their environment."""
    found = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            at_home = str(place) in process.cwd() or str(place) in " ".join(process.cmdline())
            if at_home or process.environ().get("TMPDIR") == str(place):
                found[process.name()] = process
    return found


def root_of(child: Child) -> Site:
    """The site of a demo that has said where it is."""
    said = child.wait_for("Ctrl-C stops everything", timeout=240)
    found = re.search(r"http://127\.0\.0\.1:\d+", said)
    assert found is not None
    return Site(found[0])


def sign_in(site: Site) -> None:
    site.post("/sign-in", name="ops-demo", password="operate")


@pytest.mark.chaos
@pytest.mark.slow(50)
@pytest.mark.parametrize("is_warm", [True, pytest.param(False, marks=pytest.mark.variants)])
def test_check_sees_a_run_a_retry_a_workflow_with_a_signal_and_a_rescue(
    start: Start, place: Path, is_warm: bool
) -> None:
    child = start("--check", is_warm=is_warm)
    assert child.wait(timeout=240) == 0, child.log
    for sentence in (
        "signed in as ops-demo",
        "its page shows the result R-000001",
        "and its child, which held job",
        "was retried, finished, and the audit says why",
        "waited for its payment, got it, sent three parcels and finished",
        "failed, a step was skipped, it went on and finished",
        "3 of 200 rows failed, and its callback told the shop",
        "and what waited for it, and the pages show it",
        "led to its repair, and is resolved",
        "paused cron/nightly_sync, and found that in forensics, in its export and in the audit",
        "was rescued, and",
        "all is well",
    ):
        assert sentence in child.log
    wait_until(lambda: left_over(place) == {}, 10, what="nothing of it to be left")
    assert list(place.glob("opsjobs-demo-*")) == []


# Seconds between two looks at a page: each takes a processor from the processes that the page is about.
LOOK = 2.0
# What Lifeline says of what goes wrong by itself.
COMES_TO_SHOW = (
    r"Nobody serves the queue letters",
    r"Job \d+ kills its process",
    r"resize_avatar fails again: UnknownFormat",
    r"import_price fails: ValueError",
    r"plain jobs? waits? for ever behind job \d+ \(flask_host.plain_jobs.collect\)",
)


def see_what_is_wrong(site: Site) -> None:
    """Wait until all of that was shown, and the plain jobs that ran, failed and wait for ever.

    Some of it ends by itself: each look notes all that it sees.
    """
    missing = set(COMES_TO_SHOW)

    def have_come() -> bool:
        shown = text_of(site.get("/ops/jobs/lifeline"))
        missing.difference_update({title for title in missing if re.search(title, shown)})
        return not missing

    wait_until(have_come, 400, what=lambda: f"Lifeline to show {sorted(missing)}", every=LOOK)
    plain = "/ops/jobs/jobs?q=origin:rq+state:"
    for state, step in (("finished", "announce"), ("failed", "collect"), ("deferred", "pack")):
        wait_until(
            lambda state=state, step=step: f"plain_jobs.{step}" in site.get(plain + state),
            120,
            what=f"{step}, {state}",
            every=LOOK,
        )


def let_a_report_die(site: Site) -> str:
    """Do what the page *First session* begins with, and return the number of the job."""
    overview, front = text_of(site.get("/ops/jobs/")), site.get("/")
    cards = re.findall(r"^\| ([A-Z][\w -]+) \|", FIRST_SESSION, re.MULTILINE)
    assert len(cards) == 6
    assert [card for card in cards if card not in overview] == []
    (named,) = re.findall(r"is the row \*(.+?)\*", " ".join(FIRST_SESSION.split()))
    (address,) = re.findall(
        rf'{named}[^<]*</th>.*?<form method="post" action="(.+?)"', front, re.S
    )[:1]
    (job,) = re.findall(r"job=(\d+)", site.post(address))
    return job


def follow_the_first_session(site: Site, job: str, data: Path) -> None:
    """Find the dead report, ask why, retry it with a reason and verify the audit, as the page says."""
    (search,) = re.findall(r"^```text\n(.+)\n```", FIRST_SESSION, re.MULTILINE)
    found = "/ops/jobs/jobs?" + urlencode({"q": search})
    wait_until(lambda: f"/jobs/jobs/{job}" in site.get(found), 120, what="it to fail", every=LOOK)
    commands = re.findall(r"^\$ (flask .+)$", FIRST_SESSION, re.MULTILINE)
    assert [command.split()[2] for command in commands] == ["why", "job", "job", "audit"]
    exported = subprocess.check_output(f". {data / 'env'} && env -0", shell=True, text=True)
    env = dict(each.split("=", 1) for each in exported.split("\0") if each)
    for command in commands:
        words = shlex.split(command.replace(" 42", f" {job}"))
        child = Child([sys.executable, "-m", *words], data / "command.log", env, warm="app")
        assert child.wait(60) == 0, (command, child.log)
    (reason,) = re.findall(r'--reason "(.+?)"', FIRST_SESSION)
    assert reason in text_of(site.get("/ops/jobs/audit"))


@pytest.mark.chaos
@pytest.mark.slow(110)
def test_it_begins_healthy_comes_to_show_what_is_wrong_ends_and_comes_back_on_its_data(
    start: Start, place: Path, lived: Path
) -> None:
    """The feeder is told to wait until the first page was read, and not to wait between two troubles.

    It also walks through the page *First session*.
    """
    # It would end the test after five minutes; every wait here has a limit of its own.
    faulthandler.cancel_dump_traceback_later()
    words = ("--data-dir", str(lived), "--port", str(free_port()))
    first = start(*words, FLASK_FEED_INCIDENT_AFTER="8", FLASK_FEED_APART="0.5")
    site = root_of(first)
    for line in ("ops-demo / operate", "viewer / look", "admin / rule", "/ops/jobs"):
        assert line in first.log
    # Nothing is left to do on its data: they are migrated, and have their history.
    assert "flask seed" in first.log
    assert "flask db upgrade" not in first.log
    assert "history" not in first.log
    sign_in(site)
    healthy = text_of(site.get("/ops/jobs/lifeline"))
    assert "No incident needs a person. 1 is acknowledged." in healthy
    assert "The supplier sends the second half next week" in healthy
    assert "cleared by itself" in text_of(site.get("/ops/jobs/lifeline?state=ended"))
    (job,) = re.findall(r"job=(\d+)", site.post("/happen/order"))
    report = let_a_report_die(site)
    wait_until(lambda: "finished" in text_of(site.get(f"/ops/jobs/jobs/{job}")), 30, every=LOOK)
    output = lived / "processes.log"
    wait_until(lambda: "feeder" in output.read_text(), 15, what="the feeder to print")
    assert "worker.1 | " in output.read_text()
    assert " | " not in first.log
    see_what_is_wrong(site)
    follow_the_first_session(site, report, lived)
    assert first.terminate() == 0
    assert "stopping web, worker.1, worker.2, loops, rq, feeder\nstopping Valkey\n" in first.log
    wait_until(lambda: left_over(place) == {}, 10, what="nothing of it to be left")

    second = start(*words)
    site = root_of(second)
    sign_in(site)
    assert "R-0" in text_of(site.get(f"/ops/jobs/jobs/{job}"))
    assert "other migrations" not in second.log
    # Killed, it takes its children with it; only PostgreSQL stays, and the next one takes it over.
    second.kill()
    wait_until(lambda: left_over(place).keys() == {"postgres"}, 15)

    third = start(*words)
    third.wait_for("PostgreSQL still ran from before: taken over", timeout=60)
    # It looks after Valkey as soon as it has started its processes.
    wait_until(output.read_text, 60, what="its processes to be started")
    (valkey,) = [name for name in left_over(place) if "valkey" in name]
    left_over(place)[valkey].kill()
    assert third.wait(timeout=30) == 1
    assert "Valkey ended by itself: everything stops" in third.log
    wait_until(lambda: left_over(place) == {}, 10, what="nothing of it to be left")


# What it prints before each step of its start.
STEPS = (
    "starting PostgreSQL and Valkey",
    "flask db upgrade",
    "flask seed",
    "two days of history",
)


@pytest.mark.chaos
@pytest.mark.parametrize(
    ("number", "step", "is_warm"),
    [
        (signal.SIGINT, STEPS[0], True),
        (signal.SIGTERM, STEPS[1], False),
        pytest.param(signal.SIGINT, STEPS[2], True, marks=pytest.mark.variants),
        (signal.SIGINT, STEPS[3], True),
    ],
)
def test_it_ends_in_the_middle_of_its_start(
    start: Start, place: Path, number: signal.Signals, step: str, is_warm: bool
) -> None:
    """The signal goes to all that the terminal started, as Ctrl-C does."""
    words = ("--data-dir", str(place / "data"), "--port", str(free_port()))
    child = start(*words, is_warm=is_warm)
    child.wait_for(step, timeout=60)
    os.killpg(child.pid, number)
    assert child.wait(timeout=30) == 128 + number
    assert "\nstopping\n" in child.log
    wait_until(lambda: left_over(place) == {}, 10, what="nothing of it to be left")


@pytest.mark.chaos
def test_signals_at_any_moment_of_a_start_leave_nothing(start: Start, place: Path) -> None:
    """Each start is ended a little later than the one before."""
    for number in range(4):
        child = start("--data-dir", str(place / f"data-{number}"), "--port", str(free_port()))
        child.wait_for("starting PostgreSQL and Valkey", timeout=60)
        moment = time.monotonic() + number * 0.4
        wait_until(lambda moment=moment: time.monotonic() >= moment, what="the moment")
        os.killpg(child.pid, signal.SIGINT)
        assert child.wait(timeout=30) == 128 + signal.SIGINT
        wait_until(lambda: left_over(place) == {}, 10, what="nothing of it to be left")


@pytest.mark.chaos
def test_data_of_other_migrations_are_set_aside(start: Start, place: Path) -> None:
    """A schema step was edited since: the database cannot be upgraded,
    so the demo makes a new one and says so.
    """
    folder = place / "a data dir"
    words = ("--data-dir", str(folder), "--port", str(free_port()))
    first = start(*words)
    first.wait_for("flask seed", timeout=60)
    first.terminate(timeout=30)

    noted = folder / "postgres/migrations.json"
    steps = json.loads(noted.read_text())
    assert "v001_jobs_and_workers.py" in steps
    assert "d7a1c0a4b6e2_outages.py" in steps
    noted.write_text(json.dumps(steps | {"v001_jobs_and_workers.py": "another text"}))
    second = start(*words)
    second.wait_for("flask seed", timeout=60)
    assert (
        "other migrations made the database of this demo: it is kept in "
        f"'{folder / 'postgres.older'}', and a new one is made" in second.log
    )
    assert (folder / "postgres.older/PG_VERSION").exists()
    assert json.loads(noted.read_text()) == steps
    second.terminate(timeout=30)


def test_paths_that_it_prints_can_be_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("/a data dir")
    output = folder / "processes.log"
    say_welcome("http://127.0.0.1:5000", "ops-demo / operate", folder, output)
    said = capsys.readouterr().out
    assert ". '/a data dir/env'; flask opsjobs why 1" in said
    assert "print: '/a data dir/processes.log'" in said
    assert "http://127.0.0.1:5000/tour" in said


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(click.ClickException, match=f"port {port} is in use: give another"):
            choose_port(port)


def test_the_first_free_port_is_taken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tools.demo.__main__.is_free", lambda port: port > 5001)
    assert choose_port(None) == 5002
    assert "port 5000 is in use: 5002 is taken instead" in capsys.readouterr().out
    monkeypatch.setattr("tools.demo.__main__.is_free", lambda port: False)
    with pytest.raises(click.ClickException, match="ports 5000 to 5020 are in use"):
        choose_port(None)
