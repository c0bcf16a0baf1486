"""Takes pictures of the overview while something is wrong: `python -m tools.screenshot.outages --folder DIR`.

Each state has a host with servers of its own: Redis frozen, Postgres frozen or stopped, loops silent, a
cooldown, seven workers missing, names of 80 characters; each on three widths, light and dark.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from playwright.sync_api import sync_playwright
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from flask_opsjobs import OpsJobs
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.overview.models import Rollup, RollupPosition
from flask_opsjobs.testing.postgres import TemporaryPostgres
from flask_opsjobs.testing.valkey import Valkey
from tests.support.browser import chromium
from tests.support.database import Databases
from tests.support.policies import AllowAll, ShowAll
from tests.support.serving import served
from tests.web.rows import (
    ago,
    make_attempt,
    make_deploy,
    make_failure,
    make_incident,
    make_integrity_check,
    make_job,
    make_limited,
    make_limiter,
    make_loops,
    make_worker,
)

WIDTHS = (1440, 1280, 360)
THEMES = ("light", "dark")
LONG = "reconcile_marketplace_settlement_reports_for_every_seller_account_in_one_country"


@dataclass
class Site:
    """A host with its two servers."""

    app: Flask
    postgres: TemporaryPostgres
    valkey: Valkey

    @property
    def operator(self) -> Operator:
        """The door for decisions."""
        return Operator(self.app.extensions["opsjobs"])

    @contextmanager
    def rows(self) -> Iterator[Session]:
        """A session that commits."""
        with Session(self.app.extensions["opsjobs"].engine) as session:
            yield session
            session.commit()


def _busy(session: Session, **loops: Any) -> None:
    """Jobs of most states, two workers, an hour of numbers."""
    numbers = {"available": 12, "queued": 4, "started": 3, "scheduled": 9, "retryable": 2}
    for state, many in numbers.items():
        for _ in range(many):
            make_job(session, state)
    for _ in range(2):
        make_worker(session, queues=["default", "mail"])
    make_loops(session, **loops)
    make_integrity_check(session)
    minute = datetime.now(UTC).replace(second=0, microsecond=0)
    head = session.get_one(RollupPosition, 1)
    head.counted_from = minute - timedelta(days=1)
    head.counted_until = minute - timedelta(minutes=1)
    for back in range(2, 60):
        then = minute - timedelta(minutes=back)
        ends = {"finished": 40 + back % 7, "failed": back % 3, "runs": [0, 20, 20]}
        session.add(Rollup(minute=then, queue="", **ends))


def _redis_frozen(site: Site) -> None:
    with site.rows() as session:
        _busy(session)
    site.valkey.freeze()


def _postgres_frozen(site: Site) -> None:
    with site.rows() as session:
        _busy(session)
    site.app.test_client().get("/ops/jobs")  # it has answered before
    site.postgres.freeze()


def _postgres_stopped(site: Site) -> None:
    with site.rows() as session:
        _busy(session)
    site.app.test_client().get("/ops/jobs")  # it has answered before
    site.postgres.stop()


def _loops_silent(site: Site) -> None:
    with site.rows() as session:
        _busy(session, last_at=ago(hours=2), every_seconds=1)


def _cooldown(site: Site) -> None:
    with site.rows() as session:
        _busy(session)
        make_limiter(session, rate=None, per_seconds=None, burst=None, concurrency=100)
        for number in range(56):
            make_limited(session, str(number % 4))
    site.operator.run(
        "limiter.cooldown",
        ["limiter/customer-api"],
        actor="ops-demo",
        reason="the vendor asked us to wait",
        params={"minutes": 28},
    )


def _workers_missing(site: Site) -> None:
    with site.rows() as session:
        _busy(session)
        for number in range(7):
            ended_at = ago(minutes=9 + number)
            gone = make_worker(session, "missing", queues=["reports"], ended_at=ended_at)
        for _ in range(5):
            make_job(session, queue="reports")
            make_job(session, "failed", ended_at=ago(minutes=4))
        left = make_job(session, "started", worker_id=gone.id)
        make_attempt(session, left, None)
        for number in range(7):
            facts = {"worker": f"web-{number}:2207", "jobs": [left.id]}
            make_incident(session, "worker_missing", subject=f"worker/{number}", facts=facts)
        make_incident(session, "queue_unserved", subject="queue/reports", affected=5)
        make_incident(session)
        deploy = make_deploy(session)
        make_failure(session, "deliver_webhook", jobs=312, created_at=ago(minutes=20))
        make_failure(session, "render_report", regressed_at=ago(minutes=9), regressed_in=deploy.id)
        make_failure(
            session, "import_bank_file", title="ValueError: amount '…' is no number", jobs=5
        )
        until = {"state": "ignored", "decided_by": "ops-demo", "ignored_until": ago(days=-4)}
        make_failure(session, "reconcile", decided_at=ago(days=2), **until)


def _long_names(site: Site) -> None:
    with site.rows() as session:
        _busy(session)
        make_worker(session, "missing", name=f"{LONG[:70]}:2207", queues=[LONG])
        make_worker(session, queues=["other" + LONG[5:]])
        make_job(session, queue=LONG, task=LONG)
        make_job(session, queue="other" + LONG[5:], task=LONG)
        make_integrity_check(session, queue=LONG)
        for _ in range(3):
            make_job(session, "failed", queue=LONG, task=LONG, ended_at=ago(minutes=4))
        make_limiter(session, LONG, rate=None, per_seconds=None, burst=None, concurrency=100)
        make_limited(session, "7", limiter=LONG)
        make_incident(session, "queue_unserved", subject=f"queue/{LONG}", facts={"queue": LONG})
        make_incident(session, "worker_missing", facts={"worker": f"{LONG[:70]}:2207"})
        make_failure(session, LONG, title=f"KeyError: '{LONG}'", created_at=ago(minutes=20))
    actor, reason = "ops-demo", "the vendor asked us to wait until the migration is over"
    limiter, queue = f"limiter/{LONG}", f"queue/other{LONG[5:]}"
    site.operator.run(
        "limiter.cooldown", [limiter], params={"minutes": 28}, actor=actor, reason=reason
    )
    site.operator.run("queue.drain", [queue], actor=actor, reason=reason)


def _healthy(site: Site) -> None:
    with site.rows() as session:
        _busy(session)


STATES: dict[str, Callable[[Site], None]] = {
    "healthy": _healthy,
    "redis-frozen": _redis_frozen,
    "postgres-frozen": _postgres_frozen,
    "postgres-stopped": _postgres_stopped,
    "loops-silent": _loops_silent,
    "cooldown": _cooldown,
    "workers-missing": _workers_missing,
    "long-names": _long_names,
}


@contextmanager
def site() -> Iterator[Site]:
    """A host on new servers."""
    with TemporaryPostgres() as postgres, Valkey() as valkey:
        url = Databases(make_url(postgres.url())).migrated()
        app = Flask("host")
        app.config.update(SECRET_KEY="only for pictures", OPSJOBS_REDIS_URL=valkey.url)
        app.config["SQLALCHEMY_DATABASE_URI"] = url
        SQLAlchemy(app)
        OpsJobs(app, access=AllowAll(), display=ShowAll())
        yield Site(app, postgres, valkey)


def take(browser: Any, url: str, name: str, folder: Path) -> None:
    """All pictures of one state; says when a page scrolls sideways."""
    for width, theme in product(WIDTHS, THEMES):
        context = browser.new_context(
            viewport={"width": width, "height": 740 if width == 360 else 900}, color_scheme=theme
        )
        page = context.new_page()
        page.goto(url)
        page.wait_for_load_state("networkidle")
        page.screenshot(path=folder / f"{name}-{width}-{theme}.png", full_page=True)
        wide = page.evaluate("document.documentElement.scrollWidth")
        if wide > width:
            print(f"{name} at {width}: {wide - width} px too wide")
        context.close()


def main() -> None:
    """Take those that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("states", nargs="*", help=f"of {', '.join(STATES)}; all by default")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(), chromium_sandbox=False, args=["--disable-dev-shm-usage"]
        )
        for name in asked.states or STATES:
            with site() as made, served(made.app) as root:
                STATES[name](made)
                take(browser, f"{root}/ops/jobs", name, asked.folder)
        browser.close()


if __name__ == "__main__":
    main()
