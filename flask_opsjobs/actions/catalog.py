"""Lists every operator's action and the states that allow it.

Pages, commands and `operator` read this list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..cron import lifecycle as cron
from ..jobs import lifecycle as jobs
from ..queues import lifecycle as queues

# The most targets of one plan: a page of a list.
MOST_TARGETS = 100
PREVIEW_MINUTES = 15
SHORTEST_REASON = 8
LONGEST_REASON = 2_000


@dataclass(frozen=True)
class Action:
    """One action on jobs, queues, cron entries or limiters. `risk` is a sentence for people.

    `sources` are the states in which it is legal. `params` are the names of its required parameters.
    """

    name: str
    title: str
    sources: tuple[str, ...]
    risk: str
    params: tuple[str, ...] = ()

    @property
    def domain(self) -> str:
        """The kind of its targets: `job`, `queue`, `cron` or `limiter`."""
        return self.name.partition(".")[0]

    @property
    def short_name(self) -> str:
        """Its name in URLs, commands and functions, such as `retry`."""
        return self.name.partition(".")[2]

    @property
    def permission(self) -> str:
        """The permission that the access policy is asked for, with the target as subject."""
        return self.name

    def on(self, name: str) -> str:
        """The action as it follows "cannot": `retry job 7`, `run job 7 again`."""
        return _PHRASES.get(self.short_name, f"{self.short_name} {{}}").format(name)


_PHRASES = {
    "run_again": "run {} again",
    "set_prefetch": "set the prefetch of {}",
    "run_now": "run {} now",
    "catch_up": "catch {} up",
    "cooldown": "cool {} down",
    "clear": "clear the cooldown of {}",
}


def _job(short_name: str, title: str, risk: str) -> Action:
    return Action(f"job.{short_name}", title, jobs.sources_of(short_name), risk)


def _queue(short_name: str, title: str, risk: str, *params: str) -> Action:
    return Action(f"queue.{short_name}", title, queues.sources_of(short_name), risk, params)


def _cron(short_name: str, title: str, risk: str, *params: str) -> Action:
    return Action(f"cron.{short_name}", title, cron.sources_of(short_name), risk, params)


# The parameters of a cron entry, in the order of its form.
ENTRY_PARAMS = ("task", "expression", "zone", "overlap", "catch_up", "args")

_ALL = (
    _job("retry", "Retry", "The function runs once more, and repeats all that it did before it failed."),
    _job("cancel", "Cancel", "A waiting job will not run. "
         "A running function is stopped in the middle of its work."),
    _job("discard", "Discard", "The job will not run, and counts as failed."),
    _job("run_again", "Run again", "A new job calls the function with the same arguments. "
         "It repeats all that the function did."),
    _job("delete", "Delete", "The job, its attempts, logs and output are deleted for ever. The audit stays."),
    _queue("pause", "Pause", "No job is dispatched. Jobs that wait in Redis are recalled. "
           "Running jobs continue."),
    _queue("resume", "Resume", "Due jobs are dispatched at once, as many as the prefetch allows."),
    _queue("drain", "Drain", "No more jobs are dispatched. Jobs that wait in Redis already still run."),
    _queue("set_prefetch", "Set prefetch", "Jobs in Redis run in the order of their dispatch. "
           "A high prefetch keeps many workers busy, but weakens priorities.", "prefetch"),
    _cron("pause", "Pause", "The next slots do not run; they are recorded as paused. Running jobs continue."),
    _cron("resume", "Resume", "The next slots run again. Slots that came during the pause do not run."),
    _cron("run_now", "Run now", "A job of the entry is enqueued at once, even if another is running."),
    _cron("catch_up", "Catch up", "Each missed slot gets a job, all at once. "
          "These jobs may run at the same time.", "count"),
    _cron("create", "Create", "The entry runs by itself, from its next slot on.", *ENTRY_PARAMS),
    _cron("edit", "Edit", "The change applies from now on. Earlier slots keep their results.", *ENTRY_PARAMS),
    _cron("delete", "Delete", "The entry does not run any more. Its run history stays."),
    Action("limiter.cooldown", "Cool down", ("open", "cooling"),
           "No job of the limiter starts until then, even if its rate and places allow it. "
           "Running jobs continue.",
           ("minutes",)),
    Action("limiter.clear", "Clear cooldown", ("cooling",),
           "Waiting jobs start again, as many at once as the limiter's burst and places allow."),
)  # fmt: skip

ACTIONS: Mapping[str, Action] = {action.name: action for action in _ALL}


def actions_of_job(state: str) -> tuple[Action, ...]:
    """The legal actions on a job in this state, in the order of the buttons."""
    return _legal("job", state)


def actions_of_queue(is_paused: bool, is_draining: bool) -> tuple[Action, ...]:
    """The legal actions on a queue in this state, in the order of the buttons."""
    return _legal("queue", queues.state_of(is_paused, is_draining))


def actions_of_cron(state: str, *, is_runtime: bool) -> tuple[Action, ...]:
    """The legal actions on a cron entry in this state, in the order of the buttons."""
    legal = (action for action in _legal("cron", state) if action.short_name != "create")
    return tuple(
        action for action in legal if is_runtime or action.short_name not in ("edit", "delete")
    )


def actions_of_limiter(is_cooling: bool) -> tuple[Action, ...]:
    """The legal actions on a limiter or a partition of it in this state, in the order of the buttons."""
    return _legal("limiter", "cooling" if is_cooling else "open")


def _legal(domain: str, state: str) -> tuple[Action, ...]:
    return tuple(action for action in _ALL if action.domain == domain and state in action.sources)
