"""Checks a running demo: jobs, workflows and a batch run, fail, are repaired, and tell the shop."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import click
import psutil

from flask_opsjobs.processes.supervisor import Supervisor

from .site import Site, text_of

WORKERS = ("worker.1", "worker.2")
# The check signs in as this person, who may enqueue jobs and see their results.
PERSON = "ops-demo"
REASON = "The report takes less memory now"
PAUSED, RESUMED = "The CRM is moved tonight", "The CRM has moved"
SKIPPED = "The customer was told by phone how to pay"
RETRIED = "Reports take less memory since noon"
DISCARDED = "The year is archived by the accountant"
# So many rows of a price list are imported in some seconds; three of them are wrong.
ROWS = 200
ENDED = ("finished", "failed", "canceled")
_MOST_SECONDS = 240.0
# Between two looks at a page: a tenth of the time waited so far, within these bounds in seconds. A look takes
# a processor from the processes that the page is about.
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.2, 1.0


class Failed(Exception):
    """A check failed; the message says what was expected, then what was seen."""


def check_demo(
    site: Site,
    people: str,
    supervisor: Supervisor,
    heard: list[str],
    over: threading.Event,
    run: Callable[[str], tuple[int, str]],
) -> int:
    """Run all steps, and print a line for each. Returns the exit code; `heard` is the processes' output.

    `run` runs a command of `flask opsjobs`, and returns its exit code and what it printed.
    """
    check = Check(site, supervisor, heard, over)
    try:
        check.sign_in(people)
        check.see_nothing_wrong(run)
        batch = check.import_prices()
        rq_id = check.export()
        check.see_a_job_run()
        check.see_a_job_retried()
        check.see_jobs_retried_by_an_operation()
        killer = check.archive()
        letter = check.write_a_letter()
        check.see_an_order_delivered()
        check.see_an_order_repaired()
        check.see_prices_imported(batch)
        check.see_plain_jobs_run(rq_id)
        check.see_an_incident_repaired(killer)
        check.see_an_entry_paused()
        check.see_a_ticket(letter)
        check.see_a_job_rescued()
        check.see_metrics(run)
    except (Failed, OSError) as error:
        click.echo(f"failed: {error}")
        click.echo("\n".join(["the last lines of the processes:", *heard[-40:]]))
        return 1
    click.echo("all is well")
    return 0


class Check:
    """One visit to the demo, with a time limit for all steps together."""

    def __init__(
        self, site: Site, supervisor: Supervisor, heard: list[str], over: threading.Event
    ) -> None:
        self._site = site
        self._supervisor = supervisor
        self._heard = heard
        self._over = over
        self._end = time.monotonic() + _MOST_SECONDS

    def sign_in(self, people: str) -> None:
        """Sign in as the operator, with the password that `flask seed` printed."""
        found = re.search(rf"^{PERSON} / (\S+?):", people, re.M)
        if found is None:
            raise Failed(f"flask seed names no {PERSON}: {people}")
        self._until("the site answers", lambda: bool(self._site.get("/")))
        self._site.post("/sign-in", name=PERSON, password=found[1])
        if PERSON not in text_of(self._site.get("/")):
            raise Failed(f"{PERSON} cannot sign in")
        click.echo(f"signed in as {PERSON}")

    def see_nothing_wrong(self, run: Callable[[str], tuple[int, str]]) -> None:
        """Run the doctor when its page finds nothing wrong: workers and loops need a moment to start.

        The page takes less of a processor than a command, which is a new process.
        """
        said: list[str] = []

        def is_well() -> bool:
            if not said and "exits with 0" not in text_of(self._site.get("/ops/jobs/doctor")):
                return False
            code, output = run("doctor")
            said[:] = output.splitlines()
            return code == 0

        try:
            self._until("flask opsjobs doctor exits with 0", is_well)
        except Failed as error:
            raise Failed("\n".join([f"{error}", *(said or [run("doctor")[1]])])) from error
        click.echo(f"flask opsjobs doctor exits with 0: {said[0]}")

    def see_a_job_run(self) -> None:
        """Enqueue a job with a form, wait for its end, and read its result on its page."""
        job = self._record("order")
        page = self._finished(job)
        if (receipt := re.search(r"R-\d{6}", text_of(page))) is None:
            raise Failed(f"the page of job {job} shows no receipt: {text_of(page)}")
        click.echo(f"job {job} finished, and its page shows the result {receipt[0]}")

    def see_a_job_retried(self) -> None:
        """Find a failed job, retry it with a reason, wait for its end, and find the retry in the audit."""
        job = self._record("report_with_one_try")
        self._until(f"job {job} has failed", lambda: self._state(job) == "failed")
        if job not in self._site.get("/ops/jobs/jobs?q=state:failed+task:render_report"):
            raise Failed(f"the search for failed reports does not show job {job}")
        self._act(f"/ops/jobs/jobs/{job}/retry", REASON)
        self._finished(job)
        self._see_audit(f"job/{job}", REASON)
        click.echo(f"job {job} failed, was retried, finished, and the audit says why")

    def see_jobs_retried_by_an_operation(self) -> None:
        """Retry all failed jobs of a search by an operation, and see each proven by its next attempt."""
        jobs = [self._record("report_with_one_try") for _ in range(2)]
        for job in jobs:
            self._until(f"job {job} has failed", partial(self._is_failed, job))
        wanted = {"action": "job.retry", "state": "failed", "task": "render_report"}
        place = self._site.post("/ops/jobs/operations/draft", **wanted)
        if "2 jobs" not in (words := text_of(self._site.get(place))):
            raise Failed(f"the draft at {place} does not say how many jobs it has: {words}")
        self._site.post(f"{place}/start", reason=RETRIED)
        self._until(
            f"{place} has finished", lambda: self._state_on(self._site.get(place)) == "finished"
        )
        for job in jobs:
            self._finished(job)
        if "2 proven" not in (words := text_of(self._site.get(place))):
            raise Failed(f"{place} does not say that both jobs were proven: {words}")
        self._see_audit(place.removeprefix("/ops/jobs/operations/"), RETRIED)
        click.echo(f"{place} retried the failed jobs of a search, and both finished")

    def see_an_order_delivered(self) -> None:
        """Follow the workflow of an order from start to end. In its middle it waits until it is paid."""
        run = self._place_an_order()
        self._until(f"workflow {run} waits for its payment", lambda: self._waits(run))
        self._pay(run)
        words = self._finished_run(run)
        if "3 finished" not in words:
            raise Failed(f"workflow {run} does not show the jobs of three parcels: {words}")
        click.echo(
            f"workflow {run} waited for its payment, got it, sent three parcels and finished"
        )

    def see_an_order_repaired(self) -> None:
        """Skip the step of an order whose bank did not answer, and see the order delivered."""
        run = self._place_an_order(unlucky="")
        self._until(f"workflow {run} has failed", lambda: self._state_of_run(run) == "failed")
        words = text_of(self._run_page(run))
        if "3 steps were canceled" not in words:
            raise Failed(
                f"workflow {run} does not say what was canceled because of a step: {words}"
            )
        result = '{"link": "told by phone"}'
        self._act(f"/ops/jobs/workflows/{run}/skip", SKIPPED, step="pay", result=result)
        self._until(f"workflow {run} waits for its payment", lambda: self._waits(run))
        self._pay(run)
        self._finished_run(run)
        self._see_audit(f"workflow/{run}", SKIPPED)
        click.echo(f"workflow {run} failed, a step was skipped, it went on and finished")

    def import_prices(self) -> str:
        """Import a price list with wrong rows. Its rows run while other things are checked."""
        place = self._site.post("/price-lists", rows=str(ROWS))
        found = re.search(r"[?&]batch=(\d+)", place)
        if found is None:
            raise Failed(f"/price-lists opened no batch and led to {place}")
        click.echo(f"opened batch {found[1]} (a price list)")
        return found[1]

    def see_prices_imported(self, batch: str) -> None:
        """Wait for the end of the batch, and see its failed rows, why they failed, and its callback."""
        path = f"/ops/jobs/batches/{batch}"
        self._until(
            f"batch {batch} has ended", lambda: self._state_on(self._site.get(path)) in ENDED
        )
        result = f"failed: {ROWS - 3} of {ROWS} rows imported"
        self._until("the shop knows how the import ended", lambda: result in self._site.get("/"))
        words = text_of(page := self._site.get(path))
        if self._state_on(page) != "failed" or "3 failed" not in words:
            raise Failed(f"batch {batch} does not show its failed rows: {words}")
        click.echo(f"batch {batch} ended, 3 of {ROWS} rows failed, and its callback told the shop")

    def export(self) -> str:
        """Enqueue three plain RQ jobs, which RQ's own worker runs. Returns RQ's id of the first."""
        place = self._site.post("/exports")
        found = re.search(r"[?&]rq=([\w-]+)", place)
        if found is None:
            raise Failed(f"/exports enqueued nothing and led to {place}")
        click.echo(f"enqueued RQ job {found[1]} (an export), and two that wait for it")
        return found[1]

    def see_plain_jobs_run(self, rq_id: str) -> None:
        """Find the plain jobs of an export among all jobs, once RQ's worker has run them in order."""

        def have_finished() -> bool:
            page = self._site.get("/ops/jobs/jobs?q=origin:rq+state:finished")
            return all(f"plain_jobs.{step}" in page for step in ("collect", "pack", "announce"))

        self._until(f"the jobs behind RQ job {rq_id} are shown as finished", have_finished)
        view = text_of(self._site.get(f"/ops/jobs/rq/0/view/job/{rq_id}"))
        if not all(word in view for word in ("Inspection only", "finished", "plain_jobs.collect")):
            raise Failed(f"RQ's own view shows the finished RQ job {rq_id}, but says {view[:500]}")
        click.echo(f"RQ's worker ran RQ job {rq_id} and what waited for it, and the pages show it")

    def archive(self) -> str:
        """Enqueue a job that kills its process. Its incident opens while other things are checked.

        No other process may die meanwhile: when several die at once, their jobs are not to blame.
        """
        return self._record("archive")

    def write_a_letter(self) -> str:
        """Enqueue a job that no worker serves. Its incident opens in 30 s, while the check goes on."""
        return self._record("letter")

    def see_a_ticket(self, job: str) -> None:
        """See that the shop's escalation policy wrote a ticket, and that the incident's page names it."""

        def find() -> re.Match[str] | None:
            rows = re.findall(r"(?s)<tr>.*?</tr>", self._site.get("/tickets"))
            row = next((row for row in rows if "letters" in text_of(row)), "")
            return re.search(r'(?s)(Ticket \d+).*?href="(/ops/jobs/lifeline/incidents/\d+)"', row)

        self._until(f"a ticket says that nobody serves job {job}", lambda: find() is not None)
        found = find()
        assert found is not None
        ticket, place = found[1].lower(), found[2]
        self._until(f"{place} names {ticket}", lambda: ticket in text_of(self._site.get(place)))
        click.echo(f"nobody serves job {job}: the shop's escalation policy wrote {ticket}")

    def see_an_incident_repaired(self, job: str) -> None:
        """Go from the overview to the incident of a job that kills its process, and repair it to its end."""
        title = f"Job {job} kills its process"
        self._until(f"an incident says: {title}", lambda: bool(self._incident(title)))
        place = self._incident(title)
        discard = f"/ops/jobs/jobs/{job}/discard"
        if f'formaction="{discard}"' not in (page := self._site.get(place)):
            raise Failed(f"{place} has no button for its repair: {text_of(page)}")
        self._act(discard, DISCARDED)
        self._until(f"{title} is resolved", lambda: self._state_on_incident(place) == "resolved")
        self._see_audit(f"job/{job}", DISCARDED)
        click.echo(f"the incident of job {job} led to its repair, and is resolved")

    def see_an_entry_paused(self) -> None:
        """Pause a cron entry from its forensics, and find that there, in the export and in the audit."""
        if 'href="/ops/jobs/forensics"' not in self._site.get("/ops/jobs"):
            raise Failed("the overview does not lead to forensics")
        entry = "cron/nightly_sync"
        found = "/ops/jobs/forensics?subject=nightly_sync"
        pause, resume = (f"/ops/jobs/{entry}/{action}" for action in ("pause", "resume"))
        self._until("nightly_sync is found by its name", lambda: entry in self._site.get(found))
        page = self._site.get(found)
        if f'formaction="{pause}"' not in page or "OpsJobs-native" not in page:
            raise Failed(f"forensics does not offer to pause {entry} as ours: {text_of(page)}")
        self._act(pause, PAUSED)
        page = self._site.get(f"/ops/jobs/forensics/{entry}")
        if PAUSED not in text_of(page) or f'formaction="{resume}"' not in page:
            raise Failed(f"forensics does not show why {entry} is paused: {text_of(page)}")
        file = self._site.get(f"/ops/jobs/export/forensics/{entry}?format=md")
        if PAUSED not in file or PERSON not in file:
            raise Failed(f"the export does not say who paused {entry}, and why: {file}")
        self._see_audit(entry, PAUSED)
        self._act(resume, RESUMED)
        click.echo(f"paused {entry}, and found that in forensics, in its export and in the audit")

    def see_a_job_rescued(self) -> None:
        """Kill the worker that runs a slow job, and its child. Another worker must finish the job."""
        job, killed = self._kill_a_holder()
        click.echo(f"killed {killed} and its child, which held job {job}")
        page = text_of(self._finished(job))
        others = {name for place in WORKERS for name in self._names(place)} - {killed}
        finisher = next((name for name in sorted(others) if name in page), None)
        if killed not in page or finisher is None or "2 of " not in page:
            raise Failed(f"the page of job {job} does not show both attempts: {page}")
        click.echo(f"job {job} was rescued, and {finisher} finished it")

    def see_metrics(self, run: Callable[[str], tuple[int, str]]) -> None:
        """Print the metrics, and find the worker that has lived on."""
        code, output = run("metrics")
        lines = output.splitlines()
        workers = [
            line for line in lines if line.startswith("rq_workers{") and line.endswith(" 1.0")
        ]
        if code or "opsjobs_up 1.0" not in lines or not workers:
            raise Failed(f"flask opsjobs metrics exits with {code} and prints {output[-2000:]}")
        click.echo(f"flask opsjobs metrics prints {len(lines)} lines")

    # --- steps ----------------------------------------------------------------------------------

    def _record(self, happening: str) -> str:
        place = self._site.post(f"/happen/{happening}")
        found = re.search(r"[?&]job=(\d+)", place)
        if found is None:
            raise Failed(f"/happen/{happening} enqueued no job and led to {place}")
        click.echo(f"enqueued job {found[1]} ({happening})")
        return found[1]

    def _act(self, path: str, reason: str, **params: str) -> None:
        """Do an operator's action as its forms do: preview, reason, execute."""
        place = self._site.post(path, **params).partition("?")[0]
        token = re.search(r'name="token" value="([^"]+)"', self._site.get(place))
        if token is None:
            raise Failed(f"the preview at {place} has no form: {text_of(self._site.get(place))}")
        self._site.post(f"{place}/execute", token=token[1], reason=reason)

    def _see_audit(self, target: str, reason: str) -> None:
        audit = text_of(self._site.get("/ops/jobs/audit?q=" + reason.replace(" ", "+")))
        if target not in audit or PERSON not in audit:
            raise Failed(f"the audit does not show who acted on {target}: {audit}")

    def _incident(self, title: str) -> str:
        """The path of the incident to which the overview leads; "" while it says nothing of it."""
        wrong = re.findall(r'(?s)<li data-is="\w+">.*?</li>', self._site.get("/ops/jobs"))
        row = next((each for each in wrong if title in text_of(each)), "")
        link = re.search(r'href="(/ops/jobs/lifeline/incidents/\d+)"', row)
        return link[1] if link else ""

    def _state_on_incident(self, place: str) -> str:
        return self._state_on(self._site.get(place))

    def _place_an_order(self, **fields: str) -> str:
        place = self._site.post("/orders", **fields)
        found = re.search(r"[?&]run=(\d+)", place)
        if found is None:
            raise Failed(f"/orders started no workflow and led to {place}")
        click.echo(f"started workflow {found[1]} (an order)")
        return found[1]

    def _pay(self, run: str) -> None:
        button = re.search(r'action="(/orders/\d+/pay)"', self._row_of_order(run))
        if button is None:
            raise Failed(f"the order of workflow {run} has no button to pay it")
        self._site.post(button[1])

    def _row_of_order(self, run: str) -> str:
        rows = re.findall(r"(?s)<tr>.*?</tr>", self._site.get("/"))
        return next((row for row in rows if f'/workflows/{run}"' in row), "")

    def _run_page(self, run: str) -> str:
        return self._site.get(f"/ops/jobs/workflows/{run}")

    def _waits(self, run: str) -> bool:
        page = self._run_page(run)
        return self._state_on(page) == "running" and "waits for a signal" in text_of(page)

    def _state_of_run(self, run: str) -> str:
        return self._state_on(self._run_page(run))

    def _finished_run(self, run: str) -> str:
        """The text of the page of a run that finished, once its callback has told the shop."""
        self._until(
            f"workflow {run} has ended", lambda: self._state_on(self._run_page(run)) in ENDED
        )
        words = text_of(page := self._run_page(run))
        if self._state_on(page) != "finished":
            raise Failed(f"workflow {run} did not finish: {words}")
        told = partial(re.search, r"\bfinished\b")
        self._until(
            f"the shop knows it of workflow {run}", lambda: bool(told(self._row_of_order(run)))
        )
        return words

    def _finished(self, job: str) -> str:
        def is_over() -> bool:
            return self._state(job) in ENDED

        self._until(f"job {job} has ended", is_over)
        page = self._page(job)
        if self._state(job) != "finished":
            raise Failed(f"job {job} did not finish: {text_of(page)}")
        return page

    def _kill_a_holder(self) -> tuple[str, str]:
        """Enqueue a slow job, and SIGKILL its worker with the child. Returns the job's id and the worker.

        On a busy machine the job may end before: then another one is enqueued.
        """
        while True:
            job = self._record("report")
            self._until(f"job {job} is started", partial(self._has_started, job))
            if (killed := self._kill_holder(job)) is not None:
                return job, killed
            click.echo(f"job {job} ended before its worker could be killed")

    def _kill_holder(self, job: str) -> str | None:
        """The name of the killed worker; None when the job has ended already."""
        # A worker claims the job before it forks, so for a moment there is no child.
        while (place := self._place_of_holder(job)) is not None:
            pid = self._supervisor.pid(place)
            with suppress(psutil.NoSuchProcess, ProcessLookupError):
                # The child that runs the job leads its own process group. RQ's scheduler is a child too, and
                # does not.
                below = psutil.Process(pid).children() if pid is not None else []
                performing = [each for each in below if os.getpgid(each.pid) == each.pid]
                if pid is not None and performing:
                    # Kill the worker first, because it must not see its child die.
                    for each in (pid, *(child.pid for child in performing)):
                        os.kill(each, signal.SIGKILL)
                    return self._names(place)[-1]
            if self._over.wait(0.05):
                raise Failed("everything stopped before the worker could be killed")
        return None

    def _place_of_holder(self, job: str) -> str | None:
        """The place of the worker that runs the job according to its page; None when the job has ended.

        The page of a new job names only this worker, because it is the first attempt.
        """
        page = self._page(job)
        if self._state_on(page) != "started":
            return None
        words = text_of(page)
        named = {place: name for place in WORKERS for name in self._names(place) if name in words}
        if len(named) != 1:
            raise Failed(f"the page of job {job} does not say which worker runs it: {words}")
        return next(iter(named))

    def _names(self, worker: str) -> list[str]:
        """The names of all workers that ran in this place, from their first lines."""
        first_line = re.compile(rf"{re.escape(worker)} +\| (\S+) listens to")
        return [found[1] for line in self._heard if (found := first_line.match(line))]

    # --- looking --------------------------------------------------------------------------------

    def _page(self, job: str) -> str:
        return self._site.get(f"/ops/jobs/jobs/{job}")

    def _state(self, job: str) -> str:
        return self._state_on(self._page(job))

    def _is_failed(self, job: str) -> bool:
        return self._state(job) == "failed"

    def _has_started(self, job: str) -> bool:
        return self._state(job) in ("started", *ENDED)

    @staticmethod
    def _state_on(page: str) -> str:
        found = re.search(r'class="chip big"[^>]*data-is="(\w+)"', page)
        return found[1] if found else "unknown"

    def _until(self, what: str, condition: Callable[[], bool]) -> None:
        trouble, begun = "", time.monotonic()
        while True:
            try:
                if condition():
                    return
            except OSError as error:
                trouble = f"; the site said: {error}"
            now = time.monotonic()
            if now > self._end:
                raise Failed(f"not within {_MOST_SECONDS:g} s in all: {what}{trouble}")
            if self._over.wait(min(max((now - begun) / 10, _SHORTEST_PAUSE), _LONGEST_PAUSE)):
                raise Failed(f"everything stopped before {what}{trouble}")
