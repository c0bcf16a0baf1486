"""Measures what an error tracker and a tracer cost managed jobs: absent, present and idle, and exporting.

Run by `make bench ARGS="--only-telemetry"`, in one run and in random order. They are present and idle when
`sentry_sdk` is initialised and the API of OpenTelemetry is imported, and nothing fails; exporting when a
tracer provider exports the span of each job too. Nothing leaves the machine.
"""

from __future__ import annotations

import random
import statistics
from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tools.bench.__main__ import Bench

WAYS = ("absent", "idle", "exporting")
# (name, function in run, kind of worker, how many jobs, prefetch)
CASES = (
    ("run, one kept child", "managed_run", "1x1000", 4000, None),
    ("run, a process per job", "managed_run", "1x1", 400, None),
    ("enqueue one by one with dispatch", "managed_enqueue", "-", 1500, 1_000_000),
)
_AIM = 0.98


def measure(bench: Bench, rounds: int) -> None:
    """Print the medians of all ways, and their ratios to the first."""
    rates: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(rounds):
        order = [(case, way) for case in CASES for way in WAYS]
        random.shuffle(order)
        for (name, function, kind, count, prefetch), way in order:
            rate = bench.measure(function, kind, count, prefetch, {"BENCH_TELEMETRY": way})
            rates[name, way].append(rate)
    print(f"{rounds} rounds in random order, median jobs a second, and to absent")
    for name, *_ in CASES:
        absent = statistics.median(rates[name, "absent"])
        print(f"  {name:40}{'absent':>12}{absent:9,.0f}")
        for way, aim in (("idle", f"  (aim: ≥ {_AIM})"), ("exporting", "")):
            found = statistics.median(rates[name, way])
            print(f"  {'':40}{way:>12}{found:9,.0f}{found / absent:8.2f}{aim}")


def prepare(way: str) -> None:
    """Make the error tracker and the tracer of a host, before it makes its app."""
    if way == "absent":
        return
    import sentry_sdk
    from opentelemetry import trace
    from sentry_sdk.transport import Transport

    class Nowhere(Transport):
        def capture_envelope(self, _envelope: Any) -> None:
            """Send nothing."""

    sentry_sdk.init("http://key@localhost/1", transport=Nowhere(), default_integrations=False)
    if way == "exporting":
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import (
            BatchSpanProcessor,
            SpanExporter,
            SpanExportResult,
        )

        class Dropping(SpanExporter):
            def export(self, _spans: Any) -> SpanExportResult:
                return SpanExportResult.SUCCESS

        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(Dropping()))
        trace.set_tracer_provider(provider)
