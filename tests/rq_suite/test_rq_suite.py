"""RQ's own tests of its worker pass on ours too, but for a list of exceptions, each with its reason.

Asked for by `--rq-suite`: it downloads the source of the installed RQ from PyPI and takes minutes. RQ's
worker and ours are tested side by side, each file of tests in a process and with a Valkey of its own. What
fails on both is printed and no fault of ours: `test_run_scheduled_access_self` starts a process that looks
for Redis on Redis' own port. The plugin says how RQ's worker becomes a worker of ours.
"""

from __future__ import annotations

import faulthandler
import os
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import pytest

from flask_opsjobs.testing.valkey import Valkey
from tests.support.sources import ROOT

PLUGIN = Path(__file__).with_name("plugin")

# Those of RQ's test files in which a worker works. Others, such as test_spawn_worker, test_worker_pool and
# test_cli, test other classes and RQ's own command.
FILES = (
    "test_callbacks",
    "test_commands",
    "test_dependencies",
    "test_executions",
    "test_group",
    "test_intermediate_queue",
    "test_job_dependency",
    "test_rate_limit",
    "test_registry",
    "test_repeat",
    "test_results",
    "test_retry",
    "test_scheduler",
    "test_timeouts",
    "test_worker",
)

# The tests that fail on our worker, and why they shall.
EXCEPTIONS = {
    "test_scheduler.TestWorker.test_work_burst_scheduler_cleans_up_on_error": (
        "The test wants an error of RQ's scheduler to come out of a burst. Ours schedules in a child, "
        "logs the error, releases the lock as the test wants, and performs what is in the queues."
    ),
    "test_worker.TestWorker.test_custom_queue_class_is_not_global": (
        "The test wants RQ's own class of queues. Ours reads what was popped from a queue by a class of its "
        "own, as maintenance needs it; a class that is given is kept, as the test wants."
    ),
    "test_worker.TestWorker.test_heartbeat_survives_lost_connection": (
        "The test counts calls of RQ's `heartbeat`, of which one raises. Ours writes the whole record of "
        "each child by one call; tests/engine/test_without_redis.py shows that it outlasts Redis."
    ),
    "test_worker.TestWorker.test_heartbeat_survives_redis_timeout": "The same, with a time-out.",
    "test_worker.TestWorker.test_job_dependency_race_condition": (
        "The test counts calls of `execute_job`, which ours calls in a child. What it says of the jobs "
        "holds: each of the three has run."
    ),
    "test_worker.TestWorker.test_worker_configures_socket_timeout": (
        "RQ waits 415 s for a silent Redis, because it pops for 405 s. Ours pops for one second, and keeps "
        "the time-out of 5 s that its connection has."
    ),
}


class Suite:
    """RQ's tests in a folder of their own, and what becomes of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        wanted = f"rq=={version('rq')}"
        # The build system of the source is installed here; without isolation pip downloads it alone.
        only_source = ("--no-deps", "--no-binary", "rq", "--no-build-isolation")
        command = (sys.executable, "-m", "pip", "download", "-q", *only_source, wanted)
        subprocess.run(command, cwd=folder, check=True)
        (archive,) = folder.glob("rq-*.tar.gz")
        with tarfile.open(archive) as source:
            source.extractall(folder, filter="data")
        self._source = archive.with_name(archive.name.removesuffix(".tar.gz")) / "tests"

    def run(self, kind: str, name: str, database_url: str | None, only: str = "") -> dict[str, str]:
        """Run one file, or of it the tests that `only` names:
        "passed", "failed" or "skipped" for each test.
        """
        valkey = Valkey()
        valkey.start()
        place = self.folder / f"{kind}-{name}-{only or 'all'}".replace(" ", "-")
        try:
            self._lay_out(place, valkey.url)
            report = place / "report.xml"
            environ = {
                **os.environ,
                "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
                # Their `tests` first, also for commands that a test starts.
                "PYTHONPATH": os.pathsep.join([str(place), str(PLUGIN), str(ROOT)]),
                "RUN_SLOW_TESTS_TOO": "1",
                "RQ_TESTS_REDIS_PORT": _port(valkey.url),
            }
            if database_url is not None:
                environ["RQ_TESTS_DATABASE_URL"] = database_url
            options = ("-q", "-p", "no:cacheprovider", "-p", "rq_on_ops_worker")
            command = [sys.executable, "-m", "pytest", *options, f"--junitxml={report}"]
            command += [*(["-k", only] if only else []), f"tests/{name}.py"]
            # A session of its own: a child that is killed before it has a group takes
            # its worker's group along.
            with (place / "log").open("w") as log:
                subprocess.run(
                    command,
                    cwd=place,
                    env=environ,
                    stdout=log,
                    stderr=log,
                    timeout=1800,
                    start_new_session=True,
                )
            return _results(report)
        except (subprocess.TimeoutExpired, OSError, ElementTree.ParseError) as error:
            said = (place / "log").read_text()[-4000:]
            raise AssertionError(f"{kind} {name} did not come to its end:\n{said}") from error
        finally:
            valkey.close()

    def _lay_out(self, place: Path, redis_url: str) -> None:
        """A copy of RQ's tests without what two runs on one machine would share:
        a port, and files in /tmp.
        """
        (place / "tests").mkdir(parents=True)
        for path in self._source.rglob("*"):
            copy = place / "tests" / path.relative_to(self._source)
            if path.is_dir():
                copy.mkdir()
            elif path.suffix == ".py":
                text = path.read_text().replace("127.0.0.1:6379", f"127.0.0.1:{_port(redis_url)}")
                copy.write_text(text.replace("/tmp/", f"{place}/"))
            else:
                copy.write_bytes(path.read_bytes())


def _port(redis_url: str) -> str:
    return redis_url.rpartition(":")[2].partition("/")[0]


def _results(report: Path) -> dict[str, str]:
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname', '').removeprefix('tests.')}.{case.get('name')}"
        ends = {child.tag for child in case}
        is_failed = bool(ends & {"failure", "error"})
        found[name] = "failed" if is_failed else "skipped" if "skipped" in ends else "passed"
    return found


@pytest.mark.rq_suite
def test_rqs_tests_of_its_worker_pass_on_ours(tmp_path: Path, database_url: str) -> None:
    # Each run has a time limit of its own; together they may take longer than a test that hangs.
    faulthandler.cancel_dump_traceback_later()
    suite = Suite(tmp_path)
    kinds = {"rq": None, "ours": database_url}
    runs = [(kind, name, url) for name in reversed(FILES) for kind, url in kinds.items()]
    found: dict[str, dict[str, str]] = {kind: {} for kind in kinds}
    with ThreadPoolExecutor(4) as pool:
        for (kind, _, _), results in zip(
            runs, pool.map(lambda run: suite.run(*run), runs), strict=True
        ):
            found[kind] |= results
    for kind, results in found.items():
        # Many wait for a moment that a busy machine misses: what failed is run once more, alone.
        for name in sorted(name for name, end in results.items() if end == "failed"):
            file, _, test = name.partition(".")
            again = suite.run(kind, file, kinds[kind], only=test.replace(".", " and "))
            results |= {name: again.get(name, "failed")}
    for kind, results in found.items():
        ends = list(results.values())
        print(
            f"{kind}: {ends.count('passed')} passed, {ends.count('failed')} failed of {len(ends)}"
        )
    assert found["ours"].keys() == found["rq"].keys()
    assert EXCEPTIONS.keys() <= found["rq"].keys(), "an exception is no test of this RQ any more"
    failed = {
        kind: {name for name, end in found[kind].items() if end == "failed"} for kind in kinds
    }
    print("failed on RQ's own worker:", sorted(failed["rq"]))
    assert failed["ours"] - failed["rq"] - EXCEPTIONS.keys() == set(), "failed only on ours"
    assert EXCEPTIONS.keys() - failed["ours"] == set(), "passes now: take it off the list"
