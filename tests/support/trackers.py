"""Makes what a host has of Sentry and OpenTelemetry: a transport and an exporter that write into files."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import sentry_sdk
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport


class FileTransport(Transport):
    """Keeps events, and writes each as a line only when it is flushed. One that hangs never answers.

    A file with its number as suffix stands for each process that has flushed.
    """

    def __init__(self, path: Path, hangs: bool = False) -> None:
        super().__init__()
        self._path, self._hangs = path, hangs
        self._kept: list[Any] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        if self._hangs:
            threading.Event().wait()
        if (event := envelope.get_event()) is not None:
            self._kept.append(event)

    def flush(self, timeout: float, callback: Any = None) -> None:
        kept, self._kept = self._kept, []
        Path(f"{self._path}.{os.getpid()}").touch()
        with self._path.open("a") as file:
            file.writelines(json.dumps(event, default=repr) + "\n" for event in kept)


class KeptTransport(Transport):
    """Keeps events in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Any] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.events.append(envelope.get_event())


class FileExporter(SpanExporter):
    """Writes each span as a line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self._path.open("a") as file:
            file.writelines(span.to_json(indent=None) + "\n" for span in spans)
        return SpanExportResult.SUCCESS


def start_sentry(path: str, hangs: bool = False) -> None:
    """Initialise Sentry with all integrations that it finds, and set facts of the process."""
    sentry_sdk.init("http://key@localhost/1", transport=FileTransport(Path(path), hangs))
    sentry_sdk.set_tag("service", "shop")
    sentry_sdk.get_isolation_scope().add_event_processor(_sign)


def _sign(event: Any, _hint: Any) -> Any:
    event.setdefault("extra", {})["signed"] = "by the host"
    return event


@cache
def start_tracing(path: str) -> None:
    """Set a tracer provider that would wait a minute before it exports by itself."""
    provider = TracerProvider()
    provider.add_span_processor(
        BatchSpanProcessor(FileExporter(Path(path)), schedule_delay_millis=60_000)
    )
    trace.set_tracer_provider(provider)


def read_lines(path: Path) -> list[Any]:
    """What was written into a file, without a line that is not written to its end yet."""
    text = path.read_text() if path.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    return [json.loads(line) for line in whole.splitlines()]
