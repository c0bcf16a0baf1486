"""The guides *Error trackers* and *Tracing*: their code runs, and does what they say."""

from __future__ import annotations

import io
import json
import re
from types import SimpleNamespace
from typing import Any

import pytest
import sentry_sdk
from opentelemetry import trace

from flask_opsjobs import OpsJobs, signals
from flask_opsjobs.testing import perform_due
from tests.support.sources import ROOT


def blocks(page: str) -> list[str]:
    """The blocks of Python of a page of the documentation, in order."""
    text = (ROOT / "docs" / page).read_text()
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_guide_of_error_trackers(opsjobs: OpsJobs, db: Any) -> None:
    initialise, connect = blocks("error-trackers.md")
    told: list[dict[str, Any]] = []
    tracker = SimpleNamespace(report=lambda exception, **names: told.append(names))
    names: dict[str, Any] = {"my_tracker": tracker}

    @opsjobs.task(max_attempts=2, backoff=0)
    def broken() -> None:
        raise RuntimeError("broke")

    try:
        exec(initialise.replace("init(", "init(default_integrations=False, "), names)
        assert sentry_sdk.get_client().options["include_local_variables"] is False
        # It would send to the host that the guide names.
        sentry_sdk.get_global_scope().set_client(None)
        exec(connect, names)
        broken.enqueue()
        db.session.commit()
        perform_due()
    finally:
        sentry_sdk.get_global_scope().set_client(None)
        signals.attempt_raised.disconnect(names["report"])
    assert told == [{"task": "broken", "attempt": 2}]


def test_the_guide_of_tracing(opsjobs: OpsJobs, db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    make_provider, request = blocks("tracing.md")

    @opsjobs.task(name="send_invoice", queue="mail")
    def send_invoice(invoice_id: int) -> None:
        """Nothing."""

    monkeypatch.setattr(
        trace,
        "set_tracer_provider",
        lambda provider: monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider),
    )
    printed = io.StringIO()
    names: dict[str, Any] = {"send_invoice": send_invoice, "db": db, "printed": printed}
    exec(make_provider.replace("Exporter()", "Exporter(out=printed)"), names)
    exec(request, names)
    perform_due()
    names["provider"].shutdown()
    found = json.loads(
        "[" + re.sub(r"^\}\n\{", "},{", printed.getvalue(), flags=re.MULTILINE) + "]"
    )
    spans = {span["name"]: span for span in found}
    assert spans.keys() == {"POST /invoices", "send mail", "process mail"}
    sent = spans["send mail"]["context"]
    assert [link["context"]["span_id"] for link in spans["process mail"]["links"]] == [
        sent["span_id"]
    ]
    assert spans["send mail"]["parent_id"] == spans["POST /invoices"]["context"]["span_id"]
