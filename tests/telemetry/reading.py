"""Reads an exposition as Prometheus does."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]
Samples = dict[tuple[str, Labels], float]


def parse(text: str | bytes) -> Samples:
    """The value of each series. Fails when a series occurs twice."""
    words = text.decode() if isinstance(text, bytes) else text
    found: Samples = {}
    for family in text_string_to_metric_families(words):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found, key
            found[key] = sample.value
    return found


def value(samples: Samples, name: str, /, **labels: str) -> float:
    """The value of one series."""
    return samples[name, frozenset(labels.items())]


def values(samples: Samples, name: str, label: str, /, **labels: str) -> dict[str, float]:
    """The values of the series of a metric that have these labels too, by one of their labels."""
    return {
        dict(of)[label]: number
        for (each, of), number in samples.items()
        if each == name and labels.items() <= dict(of).items()
    }
