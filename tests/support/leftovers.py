"""The host of tests/support/host.py with tasks that leave something behind, and tasks that look for it."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, text

from flask_opsjobs import current_job

from .host import create_app, db, give, opsjobs

__all__ = ["create_app", "leave", "look"]

# What a job leaves in a global.
kept: list[Any] = []


def _start_thread(name: str = "uploader") -> None:
    threading.Thread(target=threading.Event().wait, name=name, daemon=True).start()


def _start_process() -> None:
    kept.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))


def _open_descriptors() -> None:
    """Open as many as there may be."""
    try:
        while True:
            kept.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass


def _open_one() -> str | None:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return str(error)
    return None


def _umask() -> int:
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


LEAVE: dict[str, Callable[[], Any]] = {
    "nothing": lambda: None,
    "thread": _start_thread,
    "tracker": lambda: _start_thread("sentry-sdk.BackgroundWorker"),
    "signal_handler": lambda: signal.signal(signal.SIGUSR1, lambda *_: None),
    "signal_mask": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2}),
    "timer": lambda: signal.setitimer(signal.ITIMER_REAL, 60),
    "process": _start_process,
    "descriptors": _open_descriptors,
    "folder": lambda: os.chdir("/"),
    "umask": lambda: os.umask(0o007),
}

LOOK: dict[str, Callable[[], Any]] = {
    "nothing": lambda: None,
    "thread": lambda: [each.name for each in threading.enumerate()],
    "tracker": lambda: [each.name for each in threading.enumerate()],
    "signal_handler": lambda: str(signal.getsignal(signal.SIGUSR1)),
    "signal_mask": lambda: len(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    "timer": lambda: signal.getitimer(signal.ITIMER_REAL),
    "process": lambda: len(kept),
    "descriptors": _open_one,
    "folder": os.getcwd,
    "umask": _umask,
    # Not left behind by a job: what the worker has arranged.
    "linux": lambda: [Path("/proc/self/oom_score_adj").read_text().strip(), gc.get_freeze_count()],
}


def _committed(statement: str) -> Callable[[], None]:
    def run() -> None:
        db.session.execute(text(statement))
        db.session.commit()

    return run


def _value_of(expression: str) -> Callable[[], Any]:
    return lambda: db.session.scalar(text(f"SELECT {expression}"))


def _listen_on_the_driver() -> None:
    driver: Any = db.session.connection().connection.driver_connection
    driver.execute("LISTEN news")
    driver.commit()


def _configure() -> None:
    db.session.execute(select(func.set_config("search_path", "nowhere", False)))
    db.session.commit()


def _configure_locally() -> None:
    db.session.execute(select(func.set_config("search_path", "nowhere", True)))
    db.session.commit()


_PATH = _value_of("current_setting('search_path')")
_CHANNELS = _value_of("count(*) FROM pg_listening_channels()")

# The same in the session of a connection to Postgres: how a job leaves it, and how the next one looks for it.
IN_DATABASE: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "transaction": (
        lambda: db.session.execute(text("CREATE TABLE left_open (id int)")),
        _value_of("to_regclass('left_open')"),
    ),
    "advisory_lock": (
        _committed("SELECT pg_advisory_lock(4242)"),
        _value_of("count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4242"),
    ),
    "temporary_table": (
        _committed("CREATE TEMPORARY TABLE left_here (id int)"),
        _value_of("to_regclass('pg_temp.left_here')"),
    ),
    "listen_on_the_driver": (_listen_on_the_driver, _CHANNELS),
    "local_setting": (_configure_locally, _PATH),
    "setting": (_committed("SET search_path = nowhere"), _PATH),
    "set_config": (_configure, _PATH),
    "role": (_committed("SET ROLE pg_monitor"), _value_of("current_user")),
    "listen": (_committed("LISTEN news"), _CHANNELS),
    "connection": (lambda: kept.append(db.engine.connect()), lambda: len(kept)),
}


@opsjobs.task(record_output=True, max_attempts=1)
def leave(what: str) -> list[int]:
    """Leaves it behind, and returns in which process and over which connection."""
    found = [os.getpid(), _backend() if what in IN_DATABASE else 0]
    (LEAVE.get(what) or IN_DATABASE[what][0])()
    return found


@opsjobs.task(record_output=True, max_attempts=1)
def look(what: str) -> Any:
    """Returns in which process and over which connection it looks for that, and what it sees."""
    found = [os.getpid(), _backend() if what in IN_DATABASE else 0]
    return [*found, (LOOK.get(what) or IN_DATABASE[what][1])()]


@opsjobs.task(record_output=True, max_attempts=1)
def gain(megabytes: int = 0) -> int:
    """Keeps so much memory, and returns in which process."""
    kept.append(b"x" * megabytes * 2**20)
    return os.getpid()


@opsjobs.task(record_output=True, max_attempts=1)
def pass_on() -> int:
    """Enqueues another job, which is dispatched after the commit, and returns in which process."""
    give.enqueue()
    db.session.commit()
    return os.getpid()


@opsjobs.task(record_output=True, max_attempts=1)
async def wait_and_ask(*, for_ever: bool = False) -> list[Any]:
    """Returns its process, its job, which job a thread of it sees, and whether it reaches the database."""
    if for_ever:
        await asyncio.Event().wait()
    of_thread = await asyncio.to_thread(lambda: current_job().id)
    return [os.getpid(), current_job().id, of_thread, _backend() > 0]


def _backend() -> int:
    found: int = db.session.scalar(text("SELECT pg_backend_pid()"))
    return found
