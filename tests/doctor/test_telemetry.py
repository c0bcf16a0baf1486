"""The doctor sees an error tracker that hears nothing, and an exporter that a fork breaks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import sentry_sdk
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SimpleSpanProcessor,
)

from flask_opsjobs import signals
from tests.conftest import MakeApp
from tests.doctor.conftest import Ask, shows
from tests.support.trackers import KeptTransport


@pytest.fixture
def sentry() -> Iterator[None]:
    """Sentry, initialised in this process."""
    sentry_sdk.init(transport=KeptTransport(), default_integrations=False)
    yield
    sentry_sdk.get_global_scope().set_client(None)


@pytest.fixture
def receiver() -> Iterator[None]:
    """A receiver of the host that reports to its tracker."""

    def report(_sender: object, **_facts: object) -> None:
        """Reports."""

    signals.attempt_raised.connect(report)
    yield
    signals.attempt_raised.disconnect(report)


def test_without_a_tracker_there_is_nothing_to_check(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    assert ask("telemetry.error_tracker").state == "skipped"
    assert ask("telemetry.exporter").state == "skipped"


@shows("telemetry.error_tracker")
@pytest.mark.usefixtures("sentry")
def test_sentry_hears_of_failed_jobs_unless_it_is_off(
    ask: Ask, make_well: MakeApp, request: pytest.FixtureRequest
) -> None:
    assert ask("telemetry.error_tracker").state == "ok"
    off = make_well(OPSJOBS_SENTRY="off")
    assert ask("telemetry.error_tracker", off).sentence == "Sentry is not told of failed jobs."
    request.getfixturevalue("receiver")
    assert ask("telemetry.error_tracker", off).state == "ok"


def test_another_tracker_needs_a_receiver(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setitem(sys.modules, "rollbar", ModuleType("rollbar"))
    answer = ask("telemetry.error_tracker")
    assert (answer.state, answer.sentence) == ("warning", "Rollbar is not told of failed jobs.")
    request.getfixturevalue("receiver")
    assert ask("telemetry.error_tracker").state == "ok"


class OverGrpc(ConsoleSpanExporter):
    """An exporter of the module of OTLP over gRPC."""

    __module__ = "opentelemetry.exporter.otlp.proto.grpc.trace_exporter"


@shows("telemetry.exporter")
@pytest.mark.parametrize("processor", [SimpleSpanProcessor, BatchSpanProcessor])
def test_an_exporter_over_grpc_is_named(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, processor: Any
) -> None:
    for exporter, state in ((OverGrpc, "warning"), (ConsoleSpanExporter, "ok")):
        provider = TracerProvider()
        provider.add_span_processor(processor(exporter()))
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
        assert ask("telemetry.exporter").state == state
        provider.shutdown()
