"""Measures the pool of kept children against plain RQ in one run: `make bench ARGS="--only-pool"`."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable
from typing import Any

# name: (function in run, kind, how many jobs)
CASES: dict[str, tuple[str, str, int]] = {
    "plain RQ, forking": ("plain_run", "forking", 200),
    "plain RQ, SimpleWorker": ("plain_run", "simple", 1_000),
    "two children": ("managed_run", "2x1000", 20_000),
    "default, one child": ("managed_run", "1x1000", 10_000),
    "K = 1 with a spare": ("managed_run", "1x1", 400),
    "plain RQ jobs, one kept child": ("plain_on_ours", "1x1000", 1_000),
}
# (name, ours, theirs, aim)
RATIOS = (
    ("no-op jobs, two children ÷ plain RQ forking", "two children", "plain RQ, forking", 90),
    ("default ÷ plain RQ forking", "default, one child", "plain RQ, forking", 70),
    ("K = 1 ÷ plain RQ forking", "K = 1 with a spare", "plain RQ, forking", 1.8),
    (
        "plain RQ jobs, one kept child ÷ SimpleWorker",
        "plain RQ jobs, one kept child",
        "plain RQ, SimpleWorker",
        1.1,
    ),
)


def measure(run: Callable[[str, str, int, None], Any], rounds: int) -> None:
    """Print jobs a second of each case and the ratios, medians of so many rounds."""
    rates: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for name, (function, kind, count) in CASES.items():
            rates[name].append(run(function, kind, count, None))
    print(f"{rounds} rounds, jobs a second\n{'':48}{'median':>9}{'min':>9}{'max':>9}")
    for name, found in rates.items():
        print(f"{name:48}{statistics.median(found):9,.0f}{min(found):9,.0f}{max(found):9,.0f}")
    print(f"\n{'ratio of medians':48}{'got':>9}{'aim':>9}")
    for words, ours, theirs, aim in RATIOS:
        ratio = statistics.median(rates[ours]) / statistics.median(rates[theirs])
        print(f"{words:48}{ratio:9.1f}{'≥ ' + str(aim):>9}")
