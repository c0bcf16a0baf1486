"""Measures what an error tracker and a tracer cost managed jobs: absent, imported, idle and exporting.

Run by `make bench ARGS="--only-telemetry --rounds 20"`. They are idle when `sentry_sdk` is initialised and
the API of OpenTelemetry is imported, and nothing fails; exporting when a tracer provider exports the span of
each job too. When they are only imported, they cost the memory that each fork has to carry, whoever forks:
what is between imported and idle is ours. Nothing leaves the machine.

A machine is never equally fast for minutes. So the ways run right after each other in random order, many
short times, and each is compared with the absent one of its own round: the medians of these ratios count.
The processor time of the worker and its children says the same with less noise: it does not grow while
another process or a disk is waited for.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tools.bench.__main__ import Bench

WAYS = ("absent", "imported", "idle", "exporting")
# (name, function in run, kind of worker, how many jobs, prefetch)
CASES = (
    # So many that the start and the end of the worker do not count.
    ("run, one kept child", "cost_of_run", "1x100000", 40_000, None),
    ("run, a process per job", "cost_of_run", "1x1", 200, None),
    ("enqueue one by one with dispatch", "cost_of_enqueue", "-", 1000, 1_000_000),
)
_AIM = 0.98


def measure(bench: Bench, rounds: int) -> None:
    """Print for each way the median rates, and the medians of its ratios to the absent one.

    Below stands what we cost: idle compared with imported.
    """
    print(
        f"{rounds} rounds, jobs a second and jobs a second of processors, each with its ratio to absent"
    )
    for name, function, kind, count, prefetch in CASES:
        found: dict[str, list[list[float]]] = {way: [] for way in WAYS}
        for _ in range(rounds):
            for way in random.sample(WAYS, len(WAYS)):
                cost = bench.measure(function, kind, count, prefetch, {"BENCH_TELEMETRY": way})
                found[way].append([count / seconds for seconds in cost])
        for way in WAYS:
            print(f"  {name:34}{way:>10}{_show(found[way], found['absent'])}")
        print(f"  {'':34}{'÷ imported':>10}{_show(found['idle'], found['imported'])}  (≥ {_AIM})")


def _show(rates: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> str:
    """Both kinds of rates of the rounds, each compared with the other way's."""
    columns = zip(zip(*rates, strict=True), zip(*others, strict=True), strict=True)
    return "".join(_compared(*column) for column in columns)


def _compared(rates: Sequence[float], others: Sequence[float]) -> str:
    """The median of the rates, and of the ratios of each to that of its round, with their middle half."""
    ratios = sorted(rate / other for rate, other in zip(rates, others, strict=True))
    low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
    return f"{median(rates):11,.0f}{median(ratios):7.3f} ({low:.2f} … {high:.2f})"


def prepare(way: str) -> None:
    """Make the error tracker and the tracer of a host, before it makes its app."""
    if way == "absent":
        return
    import sentry_sdk
    from opentelemetry import trace
    from sentry_sdk.transport import Transport

    if way == "imported":
        return

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
