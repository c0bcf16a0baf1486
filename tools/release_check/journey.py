"""Goes from an empty folder to the audit, with the installed wheel and no network: what a release must do.

`runs.py` starts it in that folder, in a network of its own, with the URL of a PostgreSQL on a Unix socket. It
writes an app with Flask-Login, installs OpsJobs into it, starts `flask opsjobs up` and `flask run`, and asks
for pages as a browser without JavaScript does. It imports nothing of the checkout.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from html import unescape
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, Request, build_opener

from flask_opsjobs.testing.valkey import Valkey, free_port

APP = """\
from flask import Flask, redirect, request
from flask_login import LoginManager, UserMixin, login_user
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy

app = Flask(__name__)
app.config.from_prefixed_env()
db = SQLAlchemy(app)
Migrate(app, db)


class Person(UserMixin):
    def __init__(self, name):
        self.id = name


LoginManager(app).user_loader(Person)


@app.post("/sign-in")
def sign_in():
    login_user(Person(request.form["name"]))
    return "signed in"


@app.post("/invoice")
def invoice():
    job = process_invoice.enqueue(7)
    db.session.commit()
    return str(job.id)

"""
TASKS = """

@opsjobs.task(max_attempts=1)
def process_invoice(number: int) -> None:
    open("invoice").close()


@opsjobs.cron("0 3 * * *")
@opsjobs.task
def nightly_sync() -> None: ...
"""
ACCESS = """\
from flask_login import current_user


class HostAccess:
    def current_actor(self):
        return current_user.get_id()

    def can(self, actor, permission, subject=None):
        return actor == "ops-demo"
"""
REASONS = {
    "retry": "The invoice is there now, SHOP-2291",
    "pause": "The vendor maintains its server tonight",
}


def main() -> None:
    """Go all the way, or end with what stopped it."""
    bring_up_loopback()
    require_no_network()
    Path("app.py").write_text(APP)
    with Valkey() as valkey:
        os.environ |= {
            "FLASK_SECRET_KEY": "only for this journey",
            "FLASK_SQLALCHEMY_DATABASE_URI": sys.argv[1],
            "FLASK_OPSJOBS_REDIS_URL": valkey.url,
        }
        install()
        port = free_port()
        commands = (["opsjobs", "up"], ["run", "--port", str(port)])
        running = [subprocess.Popen(flask(*words)) for words in commands]
        try:
            operate(Site(f"http://127.0.0.1:{port}"))
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait(30)


def bring_up_loopback() -> None:
    """Set the flag IFF_UP of `lo`, as `ip link set lo up` does."""
    with socket.socket() as probe:
        fcntl.ioctl(probe, 0x8914, struct.pack("16sh", b"lo", 1))


def require_no_network() -> None:
    """Fail when there is another interface than the loopback."""
    names = [name for _, name in socket.if_nameindex()]
    assert names == ["lo"], f"there is a network: {names}"


def flask(*words: str) -> list[str]:
    """The command `flask words…` of this Python."""
    return [sys.executable, "-m", "flask", *words]


def install() -> None:
    """Do what the installer says, until its check is content."""
    does("db", "init")
    said = does("opsjobs", "install")
    lines = textwrap.dedent(said.split("Add to app.py:")[1].split("Then run")[0])
    Path("app.py").write_text(APP + lines + TASKS)
    Path("opsjobs_access.py").write_text(ACCESS)
    does("db", "upgrade")
    does("opsjobs", "install", "--check")


def does(*words: str) -> str:
    """What `flask words…` prints."""
    done = subprocess.run(flask(*words), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"flask {' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


class Site:
    """The app over HTTP, with the cookies of one person."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._browser = build_opener(HTTPCookieProcessor(CookieJar()))

    def get(self, path: str) -> str:
        """The text of a page."""
        return self._ask(Request(self._root + path))[1]

    def post(self, path: str, **form: str) -> tuple[str, str]:
        """Send a form, and follow where it leads: the address of the last page, and its text."""
        headers = {"Sec-Fetch-Site": "same-origin"}
        return self._ask(Request(self._root + path, urlencode(form).encode(), headers))

    def acts(self, path: str, reason: str) -> None:
        """Press a button that changes something, and carry out its preview with a reason."""
        address, page = self.post(path)
        token = re.search(r'name="token" value="([^"]+)"', page)
        assert token, f"no preview at {address}"
        preview = address.removeprefix(self._root).partition("?")[0]
        self.post(f"{preview}/execute", token=token[1], reason=reason)

    def _ask(self, request: Request) -> tuple[str, str]:
        with self._browser.open(request, timeout=30) as answer:
            return answer.url, unescape(answer.read().decode())


def operate(site: Site) -> None:
    """Sign in, see a failed job, retry it, pause a cron entry, and find both in forensics and the audit."""
    wait_for("the app", lambda: bool(site.post("/sign-in", name="ops-demo")))
    job = site.post("/invoice")[1]
    page = f"/ops/jobs/jobs/{job}"
    wait_for("the job to fail", lambda: "FileNotFoundError" in site.get(page))
    Path("invoice").touch()
    site.acts(f"{page}/retry", REASONS["retry"])
    wait_for("it to finish", lambda: f"job {job} is finished" in does("opsjobs", "why", job))
    entry = "/ops/jobs/cron/nightly_sync"
    wait_for("the cron entry", lambda: "nightly_sync" in site.get("/ops/jobs/cron"))
    site.acts(f"{entry}/pause", REASONS["pause"])
    for place in (f"/ops/jobs/forensics/job/{job}", "/ops/jobs/audit"):
        assert REASONS["retry"] in site.get(place), f"the retry is not in {place}"
    for place in ("/ops/jobs/forensics/cron/nightly_sync", "/ops/jobs/audit"):
        assert REASONS["pause"] in site.get(place), f"the pause is not in {place}"
    does("opsjobs", "audit", "verify")


def wait_for(what: str, holds: Callable[[], bool], seconds: float = 90) -> None:
    """Ask until it holds; an app that does not answer yet does not count."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if holds():
                return
        except URLError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"waited {seconds:.0f} s for {what}")


if __name__ == "__main__":
    main()
