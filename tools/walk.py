"""Lists the files that a job passes from `enqueue` to its page, or a retry from the click to its outcome.

It runs a real job or retry on embedded servers. It notes each file of the package in which a function is
called, each statement that is loaded and each template that is rendered, in the order in which they first
appear. The files that every page or an idle worker also passes are listed separately, as the shell: a person
who reads about jobs reads them only once.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from flask import Flask
from flask_sqlalchemy import SQLAlchemy

import flask_opsjobs
from flask_opsjobs import OpsJobs
from flask_opsjobs.cli.worker import run
from flask_opsjobs.core import sql
from flask_opsjobs.engine.worker.parent import WorkerOptions
from flask_opsjobs.testing.postgres import TemporaryPostgres
from flask_opsjobs.testing.valkey import Valkey
from flask_opsjobs.web.app import shell as page_shell
from tests.support.database import Databases
from tests.support.policies import AllowAll, ShowAll

PACKAGE = Path(flask_opsjobs.__file__).parent
TEMPLATES = "opsjobs/"
KINDS = {"files": "Python files", "statements": "statements", "templates": "templates"}
# A file that all of these pages pass counts as passed by every page.
PAGES = ("queues", "workers", "cron", "limiters", "audit")


class Walk:
    """What was met so far, in order: files of the package, statements, templates."""

    def __init__(self) -> None:
        self.files: dict[str, None] = {}
        self.statements: dict[str, None] = {}
        self.templates: dict[str, None] = {}

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note what is called here, in every thread."""
        load = sql.load

        def noted_load(name: str, **variant: bool) -> str:
            self.statements[name] = None
            return load(name, **variant)

        sql.load = noted_load  # type: ignore[assignment]
        threading.setprofile(self._note)
        sys.setprofile(self._note)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
            sql.load = load

    def _note(self, frame: FrameType, event: str, _argument: object) -> None:
        path = frame.f_code.co_filename
        if event != "call" or frame.f_code.co_name == "<module>":
            return
        if path.startswith(str(PACKAGE)):
            self.files[str(Path(path).relative_to(PACKAGE))] = None
        elif TEMPLATES in path and path.endswith(".html"):
            self.templates[path.partition(TEMPLATES)[2]] = None

    def add(self, other: Walk) -> None:
        """Add what the other met."""
        for kind in KINDS:
            getattr(self, kind).update(getattr(other, kind))

    def common(self, other: Walk) -> Walk:
        """What both met."""
        return self._only(lambda kind, name: name in getattr(other, kind))

    def beyond(self, shell: Walk) -> Walk:
        """What this met and the shell did not."""
        return self._only(lambda kind, name: name not in getattr(shell, kind))

    def _only(self, is_kept: Callable[[str, str], bool]) -> Walk:
        kept = Walk()
        for kind in KINDS:
            names = [name for name in getattr(self, kind) if is_kept(kind, name)]
            getattr(kept, kind).update(dict.fromkeys(names))
        return kept

    def print(self, title: str) -> None:
        """Print each list with its length."""
        print(title)
        for kind, words in KINDS.items():
            names = getattr(self, kind)
            print(f"  {len(names)} {words}")
            for name in names:
                print(f"    {name}")


def walk_shell(app: Flask) -> Walk:
    """What every page passes, whatever it shows, and a worker that finds no job."""
    client = app.test_client()
    shell: Walk | None = None
    for name in PAGES:
        page = Walk()
        forget_sources(app)
        with page.noted():
            assert client.get(f"/ops/jobs/{name}").status_code == 200
        shell = page if shell is None else shell.common(page)
    assert shell is not None
    idle = Walk()
    with idle.noted(), app.app_context():
        assert run(app, ["idle"], WorkerOptions(burst=True, with_scheduler=False)) == 0
    shell.add(idle)
    # What may fall into the run of a job: a heartbeat, and a turn of the worker that records its start.
    shell.statements |= dict.fromkeys(("find_lost_jobs", "begin_jobs"))
    return shell


def forget_sources(app: Flask) -> None:
    """Let the next page ask again which sources answer; pages keep that for some seconds."""
    with app.app_context():
        page_shell.forget_sources()


def walk_job(app: Flask, task: Any, walk: Walk) -> None:
    """A job is enqueued and committed, a worker performs it, and its page is opened."""
    db = app.extensions["sqlalchemy"]
    forget_sources(app)
    with walk.noted():
        with app.app_context():
            job_id = task.enqueue(text="hello").id
            db.session.commit()
            assert run(app, ["default"], WorkerOptions(max_jobs=1, with_scheduler=False)) == 0
        page = app.test_client().get(f"/ops/jobs/jobs/{job_id}")
    assert page.status_code == 200, page.text
    assert "finished" in page.text


def walk_retry(app: Flask, task: Any, walk: Walk) -> None:
    """A failed job is retried: the click makes a preview, its page is read, and it is carried out."""
    db = app.extensions["sqlalchemy"]
    with app.app_context():
        job_id = task.enqueue(text="").id
        db.session.commit()
        assert run(app, ["default"], WorkerOptions(max_jobs=1, with_scheduler=False)) == 0
    client = app.test_client()
    headers = {"Sec-Fetch-Site": "same-origin"}
    forget_sources(app)
    with walk.noted():
        preview = client.post(f"/ops/jobs/jobs/{job_id}/retry", headers=headers).location
        form = client.get(preview).text
        token = re.search(r'name="token" value="([^"]*)"', form)
        place = re.search(r'<form action="([^"]*)" method="post" data-dialog>', form)
        assert token is not None
        assert place is not None
        fields = {"token": token[1], "reason": "the mail server is back"}
        done = client.post(place[1], data=fields, headers=headers)
    assert done.status_code in (200, 303), done.text


WALKS: dict[str, Callable[[Flask, Any, Walk], None]] = {"job": walk_job, "retry": walk_retry}


def main(name: str) -> None:
    """Run the walk of this name. Print what it passes outside the shell, then what it passes of the shell."""
    with TemporaryPostgres() as postgres, Valkey() as valkey:
        databases = Databases(postgres.url())
        try:
            url = databases.migrated().render_as_string(hide_password=False)
            app, opsjobs = Flask("walk"), OpsJobs()
            app.config.update(
                SECRET_KEY="walk", SQLALCHEMY_DATABASE_URI=url, OPSJOBS_REDIS_URL=valkey.url
            )
            SQLAlchemy(app)
            opsjobs.init_app(app, access=AllowAll(), display=ShowAll())

            @opsjobs.task(max_attempts=1)
            def greet(text: str) -> str:
                return f"hello {text.split()[0]}"

            shell = walk_shell(app)
            walk = Walk()
            WALKS[name](app, greet, walk)
            own = walk.beyond(shell)
            own.print(
                f"A {name} passes these files, which not every page or an idle worker passes:"
            )
            walk.beyond(own).print(
                f"And a {name} passes these files, which every page or an idle worker passes too:"
            )
        finally:
            databases.close()


if __name__ == "__main__":
    main(sys.argv[1])
