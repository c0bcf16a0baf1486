"""Who sees what at /ops/jobs. Our pages read what is committed, so these tests commit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flask_host import happenings, tasks
from flask_host.extensions import db
from flask_host.models import Invoice
from flask_opsjobs.testing import (
    Performed,
    StoredJob,
    assert_no_leaks,
    create_schema,
    drop_schema,
)

CARD = "tok_" + "4" * 16


@pytest.fixture
def app(migrated: Flask) -> Iterator[Flask]:
    """The app without a transaction around the test; its jobs and invoices are removed at the end."""
    with migrated.app_context():
        yield migrated
        db.session.execute(db.delete(Invoice))
        db.session.commit()
        drop_schema()
        create_schema()


def test_who_may_see_jobs_sees_no_audit(
    client: FlaskClient,
    opsjobs_jobs: Callable[..., list[StoredJob]],
    opsjobs_as: Callable[[str | None, Iterable[str]], None],
) -> None:
    happenings.order()
    db.session.commit()
    job = f"/ops/jobs/jobs/{opsjobs_jobs()[0].id}"
    assert client.get(job).location == f"/sign-in?next={job}"
    opsjobs_as("anna", ["jobs.view"])
    assert client.get(job).status_code == 200
    assert client.get("/ops/jobs/audit").status_code == 403


def test_no_card_and_no_key_is_shown(
    client: FlaskClient,
    opsjobs_perform_due: Callable[..., Performed],
    opsjobs_as: Callable[[str | None, Iterable[str]], None],
) -> None:
    happenings.order()
    tasks.deliver_webhook.enqueue(
        "https://hooks.example/in", "order.paid", api_key="canary-of-a-key"
    )
    db.session.commit()
    opsjobs_perform_due()
    opsjobs_as("anna", ["overview.view", "jobs.view", "payload.view"])
    found = assert_no_leaks(client, [CARD, "canary-of-a-key"], most=5)
    assert len(found.addresses) > 10
