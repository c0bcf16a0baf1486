"""Makes a few hundred jobs in every state, in its own process, by the writers of production.

These are enqueue, dispatch, a real worker, recorder, stage, expire. The pages' bench copies the jobs, as
`rows` shows.

`ACCOUNT` and `NUMBER` stand in arguments, errors and logs where each copy gets values of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from flask import Flask

from flask_opsjobs import Cancel, Discard, RetryIn, Snooze, endings
from flask_opsjobs.cli.worker import run
from flask_opsjobs.core import sql
from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.engine.dispatch.dispatch import Dispatcher, stage
from flask_opsjobs.engine.redis.broker import broker_of
from flask_opsjobs.engine.worker.parent import WorkerOptions
from flask_opsjobs.jobs.perform.outcomes import Outcome
from tests.support.engine import Bench
from tools.bench_pages.host import (
    GatewayTimeout,
    create_app,
    db,
    deliver_webhook,
    import_bank_file,
    opsjobs,
    planned_errors,
    process_invoice,
    rebuild_search,
    render_report,
    resize_avatar,
    send_receipt,
    send_reminder,
    sync_customer,
)

ACCOUNT, NUMBER = 111_111, 222_222
GATEWAY = f"customer-api did not answer in 30 s (POST /v2/invoices, account {ACCOUNT})"
# How each task is called; invoices differ, since one is charged once.
CALLS: dict[Any, dict[str, Any]] = {
    process_invoice: {"account_id": ACCOUNT, "invoice_id": NUMBER},
    send_receipt: {"customer_id": ACCOUNT, "invoice_id": NUMBER},
    send_reminder: {"customer_id": ACCOUNT, "invoice_id": NUMBER},
    sync_customer: {"customer_id": ACCOUNT, "pages": 40},
    render_report: {"report": f"revenue of {ACCOUNT}"},
    import_bank_file: {"name": f"2026-{NUMBER}.mt940", "bank_account": "DE02 1203 0000 2020 51"},
    resize_avatar: {"user_id": ACCOUNT},
    rebuild_search: {"index": "catalogue"},
    deliver_webhook: {"url": f"https://hooks.example/{ACCOUNT}", "event": "invoice.paid"},
}
_TAGS = ["import", f"customer:{ACCOUNT}"]


def _enqueue(task: Any, planned_error: Exception | None = None, **options: Any) -> int:
    """One job, which will end with `planned_error`; committed, and so dispatched."""
    if task is process_invoice:
        options["unique"] = None
    job_id: int = task.options(**options).enqueue(**CALLS[task]).id
    if planned_error is not None:
        planned_errors[job_id] = planned_error
    db.session.commit()
    return job_id


def _run_until_done(app: Flask, connection: Any) -> None:
    """Real workers, and what the loops do between two attempts."""
    queues = sorted({task.declared.queue for task in opsjobs.tasks.values()})
    for _ in range(4):  # as many attempts as any of these has
        now = read_clock(connection)
        stage(connection, now)
        Dispatcher(connection, broker_of(opsjobs.host), opsjobs.host.settings).dispatch_all(now)
        assert run(app, queues, WorkerOptions(burst=True)) == 0


def _final(app: Flask, connection: Any) -> None:
    for task, call in CALLS.items():
        task.enqueue_many([call] * 6)
        _enqueue(task, tags=_TAGS)
    for task in (process_invoice, deliver_webhook, import_bank_file, render_report):
        for _ in range(3):
            _enqueue(task, GatewayTimeout(GATEWAY))
    _enqueue(deliver_webhook, GatewayTimeout("410 Gone: https://gone.example/in"), tags=_TAGS)
    _enqueue(process_invoice, Discard(f"invoice {NUMBER} does not exist"))
    _enqueue(send_reminder, Cancel("paid in the meantime"))
    process_invoice.enqueue(account_id=ACCOUNT, invoice_id=NUMBER)  # unique, as it is declared
    db.session.commit()
    _run_until_done(app, connection)
    due = _enqueue(sync_customer, deadline=timedelta(microseconds=1))
    assert endings.expire(connection, read_clock(connection), ids=[due])


def _killed(bench: Bench) -> None:
    """Whose process the kernel ended."""
    job_id = _enqueue(render_report)
    bench.claim(job_id)
    died = Outcome("died", error="died: signal 9 (SIGKILL)", cause_of_death="signal 9 (SIGKILL)")
    assert bench.record(job_id, 1, died)


def _live(app: Flask, connection: Any, bench: Bench) -> None:
    _enqueue(deliver_webhook, Snooze(3600, "the receiver is in maintenance"))
    _enqueue(sync_customer, RetryIn(3600, "503 Service Unavailable from the CRM"))
    _enqueue(send_receipt, GatewayTimeout("421 4.7.0 greylisted, try again later"))
    _run_until_done(app, connection)
    for task in (send_reminder, render_report):
        _enqueue(task, delay=3600)
    for task in (sync_customer, process_invoice):
        job_id = _enqueue(task)
        bench.claim(job_id)
        note = {"done": [3], "total": [9], "notes": ["row 3"]}
        told = {"ids": [job_id], "dispatch_nos": [1], **note}
        connection.execute(sql.load("write_progress"), told)
    for task in (resize_avatar, deliver_webhook, send_receipt):
        for _ in range(30):  # more than the prefetch: some are queued, some available
            _enqueue(task)


@contextlib.contextmanager
def _engine(app: Flask) -> Iterator[tuple[Any, Bench]]:
    host = app.extensions["opsjobs"]
    connection, bench = connect_apart(host.engine), Bench(host)
    try:
        yield connection, bench
    finally:
        connection.close()
        bench.close()


def main() -> None:
    """Leave them in the database that the environment names."""
    app = create_app()
    with app.app_context(), _engine(app) as (connection, bench):
        _final(app, connection)
        _killed(bench)
        _live(app, connection, bench)


if __name__ == "__main__":
    main()
