"""A warm Python for tests: one process that has imported the app, and forks for each command.

Starting `flask opsjobs worker` from nothing costs a second of imports, a fork of this process next to
nothing. What a command gets is the same as from a new Python, except for its command line in the process
table, and for what a module reads from the environment when it is imported. RQ reads `RQ_KEY_PREFIX` then, so
there is a warm process for each prefix. At its end nobody frees each object, which would take longer than
most commands. Its parent is the warm process.

A supervisor that is such a command starts its children of Python as forks of itself, which takes as little.

Another one has imported all of `flask_opsjobs` from a folder where its wheel is installed, and no app: its
forks find their app in their own folder.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import gc
import hashlib
import importlib
import json
import os
import pkgutil
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parents[2]
_PREFIX = "RQ_KEY_PREFIX"
# Where a fork finds the socket of its warm process.
_ADDRESS = "OPSJOBS_TEST_WARM"


class WarmProcess:
    """A forked command, with the part of `subprocess.Popen` that tests need.

    Its connection to the warm process brings its process id, and once it ended its exit code.
    """

    def __init__(
        self,
        words: list[str],
        log: Path,
        env: Mapping[str, str],
        *,
        imported: str,
        folder: Path = ROOT,
    ) -> None:
        """`words` are what would follow `python` on a command line in `folder`.

        The warm process has `imported` the `app`, or the wheel that is installed in the folder of this name.
        """
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(_server(imported, env.get(_PREFIX, "")))
        self._answers = self._connection.makefile("rb")
        request = {"words": words, "log": str(log), "env": dict(env), "folder": str(folder)}
        self._connection.sendall(json.dumps(request).encode() + b"\n")
        self.pid = int(self._answers.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code; None while it runs; minus the signal's number when one ended it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it ended."""
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a warm command", timeout or 0)
            self.returncode = int(self._answers.readline())
            self._answers.close()
            self._connection.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to itself alone."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL itself alone."""
        self.send_signal(signal.SIGKILL)


@functools.cache
def _server(imported: str, prefix: str) -> str:
    """The socket of a warm process, which all test processes of a run share, and which ends with the last.

    Who needs it first starts it. A fork takes the warm process that has forked it.
    """
    if _ADDRESS in os.environ:
        return os.environ[_ADDRESS]
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    name = hashlib.sha256(f"{run} {ROOT} {imported} {prefix}".encode()).hexdigest()[:16]
    address = f"{tempfile.gettempdir()}/opw-{name}"
    # One after the other asks whether it is there.
    with Path(__file__).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stay = _stay(address)
        if stay is None:
            _start_server(imported, prefix, address)
            stay = _stay(address)
            assert stay is not None
    atexit.register(stay.close)
    return address


def _stay(address: str) -> socket.socket | None:
    """A connection during which the warm process at this address does not end; None when it is not there."""
    connection = socket.socket(socket.AF_UNIX)
    with contextlib.suppress(OSError):
        connection.connect(address)
        connection.sendall(b"{}\n")
        if connection.recv(1):
            return connection
    connection.close()
    return None


def _start_server(imported: str, prefix: str, address: str) -> None:
    """Return when it is warm. It is nobody's child, since whoever starts it may end before the others."""
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "tests.support.warm", imported, address],
        cwd=ROOT,
        env={**os.environ, **({_PREFIX: prefix} if prefix else {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"warm\n"


# --- in the warm process

# Where Python looks for modules, without the folder in which it started.
_PATH = sys.path[1:]

# What `flask_opsjobs` and its host take from others for the commands of an installation.
_LIBRARIES = (
    "alembic.autogenerate",
    "alembic.command",
    "cronsim",
    "flask_migrate",
    "flask_sqlalchemy",
    "pydantic",
    "rq",
    "sqlalchemy.dialects.postgresql.psycopg",
)


def _import(imported: str) -> None:
    """Import what commands need, and nothing that is a test's alone."""
    importlib.import_module("flask.cli")
    if imported == "app":
        _import_app()
    else:
        _import_wheel(imported)
    # What is never freed need not be copied when a child's garbage is collected.
    gc.collect()
    gc.freeze()


def _import_wheel(folder: str) -> None:
    sys.path.insert(0, folder)
    for name in _LIBRARIES:
        importlib.import_module(name)
    package = _import_package()
    assert str(package.__file__).startswith(folder)
    # A fork has it on its `PYTHONPATH`.
    sys.path.remove(folder)


def _import_app() -> None:
    # The last one is imported by whoever connects first: in a fork, a thread that is not there could hold it.
    for name in ("rq.cli", "rq.scheduler", "tests.support.host", "encodings.idna"):
        importlib.import_module(name)
    _import_package()
    _make_app()
    child = importlib.import_module("flask_opsjobs.processes.child")
    forking = types.SimpleNamespace(**vars(subprocess) | {"Popen": _start})
    setattr(child, "subprocess", forking)  # noqa: B010


def _make_app() -> None:
    """Make an app as the forks do, whose apps then need not compile the rules of all pages again."""
    from flask import Flask
    from flask_sqlalchemy import SQLAlchemy

    from flask_opsjobs import OpsJobs

    from .compiled import compile_once
    from .policies import AllowAll, ShowAll

    compile_once()
    app = Flask("warm")
    app.config.update(SECRET_KEY="only for tests", SQLALCHEMY_DATABASE_URI="postgresql+psycopg://")
    SQLAlchemy(app)
    OpsJobs(app, access=AllowAll(), display=ShowAll())


def _import_package() -> types.ModuleType:
    package = importlib.import_module("flask_opsjobs")
    for found in pkgutil.walk_packages(package.__path__, "flask_opsjobs."):
        if found.name != "flask_opsjobs.testing":
            importlib.import_module(found.name)
    return package


def _serve(address: str) -> dict[str, Any]:
    """Fork for each request until nobody stays. Returns in the forks only: what each is to run."""
    # What one of an earlier run with the same process id left, when it was killed.
    Path(address).unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen(64)
    if os.fork():
        os._exit(0)
    print("warm", flush=True)
    staying: set[socket.socket] = set()
    running: dict[int, tuple[int, socket.socket]] = {}
    while True:
        watched: list[Any] = [listening, *staying, *running]
        ready = set(select.select(watched, [], [])[0])
        for leaving in staying & ready:
            leaving.close()
        staying -= ready
        if not staying and listening not in ready:
            Path(address).unlink()
            os._exit(0)
        for handle in running.keys() & ready:
            _tell_end(*running.pop(handle))
            os.close(handle)
        if listening in ready:
            connection, _ = listening.accept()
            request: dict[str, Any] = json.loads(connection.makefile("rb").readline())
            if not request:
                staying.add(connection)
                connection.sendall(b"\n")
                continue
            pid = os.fork()
            if pid == 0:
                _let_go(running, listening, connection, *staying)
                return request
            running[os.pidfd_open(pid)] = (pid, connection)
            connection.sendall(f"{pid}\n".encode())


def _let_go(running: Mapping[int, tuple[int, socket.socket]], *more: socket.socket) -> None:
    """Close in a fork what the warm process has open."""
    for handle, (_, connection) in running.items():
        os.close(handle)
        connection.close()
    for each in more:
        each.close()


def _tell_end(pid: int, connection: socket.socket) -> None:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with contextlib.suppress(OSError):
        connection.sendall(f"{code}\n".encode())
    connection.close()


class Fork:
    """A child of a warm supervisor, with the part of `subprocess.Popen` that one needs.

    Unlike a program, it keeps what its parent has open.
    """

    def __init__(
        self,
        argv: list[str],
        *,
        env: dict[str, str],
        preexec_fn: Callable[[], None],
        **_options: object,
    ) -> None:
        read, written = os.pipe()
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            preexec_fn()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            # These are its parent's, which would stop the servers of a demo.
            atexit._clear()
            _run(argv[1:], written, env, os.getcwd())
        os.close(written)
        self.stdout = os.fdopen(read, "rb", buffering=0)

    def poll(self) -> int | None:
        """Its exit code; None while it runs; minus the signal's number when one ended it."""
        return self.wait(os.WNOHANG)

    def wait(self, options: int = 0) -> int | None:
        """Its exit code, once it ended."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to itself alone."""
        if self.poll() is None:
            os.kill(self.pid, number)


def _start(argv: list[str], **options: Any) -> Fork | subprocess.Popen[bytes]:
    """What a supervisor starts: a module of Python by a fork, another program as ever."""
    is_module = argv[:2] == [sys.executable, "-m"]
    return Fork(argv, **options) if is_module else subprocess.Popen(argv, **options)


def _run(words: list[str], output: int, env: dict[str, str], folder: str) -> NoReturn:
    try:
        _become(words, output, env, folder)
    except SystemExit as end:
        _end(end.code)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        _end(1)
    _end(0)


def _become(words: list[str], output: int, env: dict[str, str], folder: str) -> None:
    """Make a fork look as if `python words…` had just been started in `folder`."""
    os.setsid()
    os.chdir(folder)
    nothing = os.open(os.devnull, os.O_RDWR)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(output)
    environ = {**env, _ADDRESS: os.environ[_ADDRESS]}
    os.environ.clear()
    os.environ.update(environ)
    sys.orig_argv[1:] = words
    # Python puts these first: the folder in which it starts, then what PYTHONPATH says.
    sys.path[:] = [folder, *filter(None, env.get("PYTHONPATH", "").split(os.pathsep)), *_PATH]
    tempfile.tempdir = None
    time.tzset()
    random.seed()
    first, *rest = words
    if first == "-c":
        sys.argv = ["-c", *rest[1:]]
        main = types.ModuleType("__main__")
        sys.modules["__main__"] = main
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    elif first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(first, run_name="__main__")


def _end(code: object) -> NoReturn:
    """End as Python does: join threads, call what is registered, flush. Memory goes with the process."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit((code or 0) & 0xFF)


if __name__ == "__main__":
    imported, os.environ[_ADDRESS] = sys.argv[1:]
    _import(imported)
    request = _serve(os.environ[_ADDRESS])
    _run(output=os.open(request.pop("log"), os.O_RDWR), **request)
