"""SIGHUP starts a worker anew with the code that is there then; systemd is told of it and watches."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from math import inf
from pathlib import Path

import pytest

from flask_opsjobs.engine.worker.systemd import Systemd
from tests.engine.site import enqueue, rows, state_of
from tests.support import host as host_module
from tests.support.host import add, note_run
from tests.support.processes import Children
from tests.support.waiting import wait_until

pytestmark = pytest.mark.processes


class Notifications:
    """The socket of systemd, and what it was told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))

    def wait_for(self, words: str, timeout: float = 20) -> None:
        """Return when it was told."""
        until = time.monotonic() + timeout
        while not self.next(until - time.monotonic()).startswith(words):
            pass

    def next(self, timeout: float) -> str:
        """Return what is told next. Raises `TimeoutError` when nothing is."""
        self._socket.settimeout(max(0.001, timeout))
        return self._socket.recv(1000).decode()

    def forget(self) -> None:
        """Drop what was told up to now."""
        self._socket.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                self._socket.recv(1000)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Notifications]:
    found = Notifications(tmp_path / "notify")
    yield found
    found.close()


def reserved() -> int:
    ((number,),) = rows("SELECT count(*) FROM opsjobs.jobs WHERE reserved_by IS NOT NULL")
    return int(number)


@pytest.mark.slow
def test_a_worker_starts_anew_and_loses_nothing(
    site: object, children: Children, tmp_path: Path, systemd: Notifications, is_long: bool
) -> None:
    ran, app, gate, number = tmp_path / "ran", tmp_path / "shop.py", tmp_path / "gate", 100

    def lines() -> list[str]:
        return ran.read_text().splitlines() if ran.exists() else []

    enqueue(host_module.hold, gate=str(gate))
    # So long that a child gets the next one after its end, and that the worker takes no child for stuck.
    note_run.enqueue_many({"path": str(ran), "seconds": 0.05} for _ in range(number))
    host_module.db.session.commit()
    app.write_text("from tests.support.host import create_app\nprint('the old code')\n")
    words = ("-m", "flask", "--app", str(app), "opsjobs", "worker", "--processes", "2")
    env = {"NOTIFY_SOCKET": str(systemd.path), "TEST_CONFIG_OPSJOBS_RESERVE_SECONDS": "20"}
    worker = children.python(*words, env=env)
    systemd.wait_for("READY=1")
    wait_until(Path(f"{gate}.begun").exists, 20)
    # When some have run of many that were taken at once.
    worker.freeze_when(lambda: reserved() > 50 and len(lines()) > 5)
    # Of another length: Python may have kept what it compiled in the same second.
    app.write_text("from tests.support.host import create_app\nprint('the newer code')\n")
    pid, begun = worker.pid, len(lines())
    worker.signal(signal.SIGHUP)
    worker.thaw()
    asked_at = time.monotonic()
    wait_until(lambda: reserved() == 0, 20, every=0.002, what="all, while one job runs on")
    took = time.monotonic() - asked_at
    assert len(lines()) <= begun + 1, "none was sent to a child"
    print(f"all was given back after {took * 1000:.0f} ms")
    assert not is_long or took < 0.1
    gate.touch()
    systemd.wait_for("RELOADING=1\nMONOTONIC_USEC=")
    systemd.wait_for("READY=1")
    assert worker.log.count("the newer code") == worker.log.count("the old code") == 1
    wait_until(lambda: rows("SELECT DISTINCT state FROM opsjobs.jobs") == [("finished",)], 30)
    assert len(lines()) == len(set(lines())) == number
    assert {line.split()[1] for line in lines()} == {"1"}
    assert rows("SELECT count(*) FROM opsjobs.attempts") == [(number + 1,)]
    workers = rows("SELECT pid, state FROM opsjobs.workers ORDER BY id")
    assert workers == [(pid, "stopped"), (pid, "alive")]
    assert worker.terminate() == 0
    systemd.wait_for("STOPPING=1")


def test_sigterm_after_sighup_stops_for_good_and_kills_no_job(
    site: object, children: Children, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    job_id = enqueue(host_module.hold, gate=str(gate))
    worker = children.flask("opsjobs", "worker")
    wait_until(Path(f"{gate}.begun").exists, 20)
    worker.signal(signal.SIGHUP)
    worker.signal(signal.SIGTERM)
    gate.touch()
    assert worker.wait() == 0
    assert state_of(job_id) == "finished"
    assert "starts anew" not in worker.log


WITHOUT_STDOUT = """
import os, sys
from flask.cli import main

os.close(1)
sys.stdout = None
words = ["--app", "tests.support.host", "opsjobs", "worker"]
sys.argv[1:], sys.orig_argv[1:] = words, ["-m", "flask", *words]
main()
"""


@pytest.mark.slow
def test_a_worker_without_stdout_starts_anew(site: object, children: Children) -> None:
    """As under a supervisor that closes it."""
    worker = children.python("-c", WITHOUT_STDOUT)
    worker.wait_for("listens to", 20)
    worker.signal(signal.SIGHUP)
    wait_until(lambda: worker.log.count("listens to") == 2, 20)
    assert worker.terminate() == 0


IN_A_FOLDER = """
import os, sys
from flask.cli import main

os.environ["PWD"] = sys.argv.pop()
os.chdir(os.environ["PWD"])
main()
"""


def test_a_worker_whose_folder_is_gone_says_so_and_ends(
    site: object, children: Children, tmp_path: Path
) -> None:
    folder = tmp_path / "release"
    folder.mkdir()
    words = ("--app", "tests.support.host", "opsjobs", "worker", str(folder))
    worker = children.python("-c", IN_A_FOLDER, *words)
    worker.wait_for("listens to", 20)
    folder.rmdir()
    worker.signal(signal.SIGHUP)
    assert worker.wait(20) == 1
    worker.wait_for("cannot start anew: [Errno 2] No such file or directory")
    assert "Traceback" not in worker.log


@pytest.mark.parametrize(
    ("limit", "seconds"), [("3000000", 1.0), ("0", inf), ("", inf), ("\u00b2", inf), ("-1", inf)]
)
def test_how_often_the_watchdog_is_fed(limit: str, seconds: float) -> None:
    assert Systemd({"WATCHDOG_USEC": limit}).feed_seconds == seconds


def test_only_a_main_loop_that_turns_feeds_the_watchdog(
    site: object, children: Children, tmp_path: Path, systemd: Notifications
) -> None:
    env = {"NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": "300000"}
    stuck = tmp_path / "stuck"
    worker = children.python("-c", STUCK, str(stuck), env=env)
    systemd.wait_for("READY=1")
    for _ in range(3):
        systemd.wait_for("WATCHDOG=1", 5)
    stuck.touch()
    worker.wait_for("the main loop is stuck")
    systemd.forget()
    with pytest.raises(TimeoutError):
        systemd.next(1)
    stuck.unlink()
    systemd.wait_for("WATCHDOG=1", 5)
    job_id = enqueue(add, a=1, b=2)
    wait_until(lambda: state_of(job_id) == "finished", 10)


STUCK = """
import sys, time
from pathlib import Path
from flask_opsjobs.cli.worker import run
from flask_opsjobs.engine.worker.parent import Parent, WorkerOptions
from tests.support.host import create_app

look = Parent._look

def look_or_hang(self):
    if Path(sys.argv[1]).exists():
        print("the main loop is stuck", flush=True)
        while Path(sys.argv[1]).exists():
            time.sleep(0.01)
    look(self)

Parent._look = look_or_hang
app = create_app()
app.app_context().push()
sys.exit(run(app, ["default"], WorkerOptions()))
"""
