"""Serves the pages of an action: starts its plan, shows the preview, executes it and shows the outcome."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from flask import current_app, redirect, request, url_for
from werkzeug import Response

from ...actions.domain import Action, name_in, say_target
from ...actions.execution import LONGEST_REASON
from ...actions.operator import Operator
from ...actions.planning import MOST_TARGETS, find_preview
from ...actions.registry import ACTIONS, DOMAINS
from ...actions.shapes import Change, Plan, Preview, Receipt, Skip
from ...core.reading import Reading
from ...core.round_trips import start_reading
from ...errors import ActionRefused
from ...jobs import actions as job_actions
from ...jobs.lifecycle import ENDED_BY, STATES
from ...jobs.queries import list_rows
from ...jobs.rows import Count
from ...jobs.search.queries import list_jobs
from ...limits.actions import make_target
from ...operations.targets import MOST_JOBS
from ...workflows.actions import RESULT
from ..app import access, links, pages, problems, references, shell
from ..app.display import PageDisplay
from ..app.host import asking, host, reading
from ..jobs import list_request

STATUS = {None: 200, "unauthorized": 403, "reason_too_short": 422, "reason_too_long": 422}
# The entry of the navigation for each domain.
HERE = {
    "job": "jobs",
    "task": "tasks",
    "queue": "queues",
    "worker": "workers",
    "workflow": "workflows",
    "batch": "batches",
    "cron": "cron",
    "limiter": "limiters",
    "lease": "limiters",
    "delivery": "lifeline",
    "incident": "lifeline",
    "failure": "lifeline",
    "operation": "lifeline",
    "note": "forensics",
}
_NAMES_OF_STEPS = ("step", "wait")
_PAYLOAD_PARAMS = ("args", "result", "payload")
_REFUSALS = {
    "drifted": "something has changed",
    "expired": "this preview has expired",
    "spent": "this preview was used already",
    "unauthorized": "a permission is missing",
    "illegal": "nothing is left that it could be done to",
    "unknown_target": "it is not there any more",
    "still_true": "it is still true",
}
# A change with more different values than this, or with a different one per target, shows only their number.
_MOST_PAIRS = 3


# --- the click: a view that plans an action, for each kind of target


def on_picked(action: Action[Any]) -> Callable[[], Response]:
    """A view that starts the action on all rows selected in a list."""

    def view() -> Response:
        return start(action, _picked(action))

    return view


def on_id(action: Action[Any]) -> Callable[..., Response]:
    """A view that starts the action on one job, workflow, batch, incident or failure, by its id."""

    def view(**address: str) -> Response:
        (id_,) = address.values()
        target = DOMAINS[action.domain].read_target(f"{action.domain}/{id_}")
        if target is None:
            raise problems.no_such_row(action.domain, id_)
        return start(action, [target])

    return view


def on_named(action: Action[Any]) -> Callable[[str], Response]:
    """A view that starts the action on a task, queue, worker, cron entry, lease or delivery."""

    def view(name: str) -> Response:
        return start(action, [f"{action.domain}/{name}"])

    return view


def on_limiter(action: Action[Any]) -> Callable[[str], Response]:
    """A view that starts the action on a limiter, or on the partition in the address."""

    def view(limiter: str) -> Response:
        return start(action, [make_target(limiter, references.asked_partition())])

    return view


def _picked(action: Action[Any]) -> Sequence[str]:
    kind = action.domain
    texts = list(dict.fromkeys(request.form.getlist(kind)))
    if not texts:
        raise problems.unreadable(f"No {kind} is picked.")
    if len(texts) > MOST_TARGETS:
        says = f"At most {MOST_TARGETS} {action.plural} at once; {len(texts)} are picked."
        if action.is_operable:
            says += f" Select all that match instead: an operation takes up to {MOST_JOBS:,}."
        raise problems.unreadable(says)
    targets = [DOMAINS[kind].read_target(f"{kind}/{text}") for text in texts]
    if None in targets:
        wrong = texts[targets.index(None)]
        raise problems.unreadable(f"{kind}: {wrong[:40]!r} names no {kind}.")
    return [target for target in targets if target is not None]


def start(
    action: Action[Any], targets: Sequence[str], params: Mapping[str, str] | None = None
) -> Response:
    """Make the plan, store it as a preview, and redirect to its page.

    `params` default to the fields of the form that have the names of the action's parameters.
    """
    actor = access.actor()
    assert actor is not None  # checked before the view is called
    if params is None:
        params = {param: _read_param(param) for param in action.params}
    try:
        with asking():
            made = Operator(host()).preview(
                action.name, targets, actor=actor, via="page", params=params
            )
    except ActionRefused as refused:  # the request is invalid, whatever the state
        raise problems.unreadable(f"{str(refused)[:200]}.") from refused
    if typed := request.form.get("reason", ""):
        # Keep the reason typed before a refusal. No redirect: addresses are written to logs.
        return show_again(made.id, typed)
    return redirect(url_for("opsjobs.preview", preview_id=made.id, back=links.read_back()), 303)


def _read_param(name: str) -> str:
    """What the form says. The name of a step may begin or end with a space, and no person types it."""
    value = request.form.get(name, "")
    return value if name in _NAMES_OF_STEPS else value.strip()


# --- the page of a preview


@dataclass(frozen=True)
class More:
    """How many jobs still match a filter, and the address of their list."""

    count: Count
    url: str


def page(preview_id: int) -> Response:
    """The document with the plan and its form, or with the outcome."""
    with reading() as read:
        view = PreviewView.of(_find(read, preview_id), read.now)
        more = _more(view, read)
    return _show(view, read.now, more=more)


def show_again(preview_id: int, typed: str) -> Response:
    """A new preview, with the reason that was typed for a refused one."""
    with reading() as read:
        found = _find(read, preview_id)
        view = replace(PreviewView.of(found, read.now), typed=cut_reason(typed))
    return _show(view, read.now)


def submit(preview_id: int) -> Response:
    """Execute the preview. A script gets the preview with its outcome, a plain form is redirected to it."""
    actor = access.actor()
    assert actor is not None  # checked before the view is called
    _require_possible(preview_id)
    reason = request.form.get("reason", "")
    with asking():
        receipt = Operator(host()).execute(
            preview_id,
            request.form.get("token", ""),
            actor=actor,
            reason=reason,
            request_id=request.headers.get("X-Request-ID"),
            via="page",
        )
    if receipt.code == "foreign":
        raise problems.no_such_preview()
    if receipt.is_done:
        shell.forget_sources()
    if receipt.is_done and "HX-Request" not in request.headers:
        return redirect(
            url_for("opsjobs.preview", preview_id=preview_id, back=links.read_back()), 303
        )
    with reading() as read:
        view = PreviewView.after(_find(read, preview_id), receipt, reason)
        more = _more(view, read)
    return _show(view, read.now, STATUS.get(receipt.code, 409), more=more)


def _show(
    view: PreviewView, now: datetime, status: int = 200, *, more: More | None = None
) -> Response:
    """The preview as a document; for a script, as a fragment."""
    may_see = access.may_see_payload(*view.plan.targets)
    display = PageDisplay(host().display, may_see=may_see)
    made = pages.part(
        "preview/_preview.html",
        now,
        display=display,
        view=view,
        plan=view.plan,
        preview=view.preview,
        receipt=view.receipt,
        states=STATES,
        page_url=links.to_target,
        back=links.read_back(),
        more=more,
    )
    if request.method == "POST" and "HX-Request" in request.headers:
        return Response(made, status=status, mimetype="text/html")
    here, title = HERE[view.action.domain], display.name(view.title)
    return pages.document("preview/page.html", here, title, now, status=status, content=made)


def _more(view: PreviewView, read: Reading) -> More | None:
    """The jobs that still match the filter of the list, after an action on several of its jobs.

    The jobs of this action are not counted. None when no more match, or when no filtered list was open.
    """
    items = view.receipt.done if view.receipt and view.state == "done" else ()
    if len(items) < 2 or view.action.domain != "job" or not access.may("jobs.view"):
        return None
    wanted = list_request.read_address(links.read_back())
    if wanted is None or not (wanted.state or wanted.terms):
        return None
    done = [int(item.target.partition("/")[2]) for item in items]
    is_shown = list_request.is_shown()
    listing = start_reading(read.session, list_rows, done)
    counts = list_jobs(read.session, wanted, read.now, is_shown=is_shown).counts
    total = counts[wanted.state] if wanted.state else Count.sum(counts.values())
    states = [row.state for row in listing.value]
    left = [state for state in states if wanted.state in (None, state)]
    number = max(0, total.number - len(left))
    query: dict[str, Any] = dict(wanted.to_query())
    url = url_for("opsjobs.jobs", **query)
    return More(replace(total, number=number), url) if number else None


def _require_possible(preview_id: int) -> None:
    """Raise the problem for a number that does not fit into Postgres' bigint."""
    if preview_id >= 2**63:
        raise problems.no_such_preview()


def _find(read: Reading, preview_id: int) -> Preview:
    """The preview, with the actor's token. Its maker still needs its permission on one of its targets.

    Somebody else needs it on all that it says something about. Raises `Problem` otherwise.
    """
    _require_possible(preview_id)
    actor = access.actor()
    found = None if actor is None else find_preview(read.session, host().secrets, preview_id, actor)
    if found is None:
        raise problems.no_such_preview()
    permission = ACTIONS[found.plan.action].permission
    access.require(permission, *found.plan.targets)
    for target in found.plan.described if found.actor != actor else ():
        access.require(permission, target)
    return found


# --- a preview in words, for the template


@dataclass(frozen=True)
class SharedChange:
    """One change that is the same for `count` targets."""

    what: str
    before: str | None
    after: str | None
    count: int


@dataclass(frozen=True)
class PreviewView:
    """A preview in one of the states `open`, `empty`, `expired`, `done`, `refused`.

    `typed` is the reason that was typed so far.
    """

    preview: Preview
    receipt: Receipt | None
    state: str
    typed: str = ""
    fault: str | None = None

    @classmethod
    def of(cls, preview: Preview, now: datetime) -> PreviewView:
        """The preview as its own page shows it."""
        if preview.receipt:
            return cls(preview, preview.receipt, "done" if preview.receipt.is_done else "refused")
        if not preview.plan.items:
            return cls(preview, None, "empty")
        return cls(preview, None, "expired" if preview.expires_at <= now else "open")

    @classmethod
    def after(cls, preview: Preview, receipt: Receipt, typed: str) -> PreviewView:
        """The preview right after an attempt to execute it."""
        if receipt.code == "reason_too_short":
            return cls(preview, None, "open", typed, receipt.says)
        if receipt.code == "reason_too_long":
            fault = (
                f"{receipt.says}; the field keeps the first {LONGEST_REASON:,} of {len(typed):,}"
            )
            return cls(preview, None, "open", cut_reason(typed), fault)
        state = "done" if receipt.is_done else "refused"
        return cls(preview, receipt, state, cut_reason(typed))

    @property
    def plan(self) -> Plan:
        """The plan of the preview."""
        return self.preview.plan

    @property
    def action(self) -> Action[Any]:
        """The action of the plan."""
        return ACTIONS[self.plan.action]

    @property
    def title(self) -> str:
        """A heading: the action and its targets, or that nothing was done."""
        if self.state == "refused" and self.receipt:
            return f"Nothing was done: {_REFUSALS.get(self.receipt.code or '', 'it was refused')}"
        if self.state == "expired":
            return "This preview has expired"
        if self.state == "empty":
            return f"Nothing to do: {_lower(self._phrase(self.plan.targets))}"
        return self._phrase(self.plan.targets)

    @property
    def button(self) -> str:
        """The button's text: the action and the targets that it will change."""
        return self._phrase([item.target for item in self.plan.items])

    @property
    def lines(self) -> Sequence[SharedChange]:
        """The changes. A change that is the same for many targets is one line."""
        pairs: dict[str, Counter[tuple[str | None, str | None]]] = {}
        for change in (change for item in self.plan.items for change in item.changes):
            pairs.setdefault(change.what, Counter())[change.before, change.after] += 1
        return [line for what, counted in pairs.items() for line in _lines(what, counted)]

    @property
    def skipped(self) -> Mapping[tuple[str, str], Sequence[Skip]]:
        """The skipped targets, by code and sentence; as executed, or else as planned."""
        found = self.receipt.skipped if self.state == "done" and self.receipt else self.plan.skipped
        groups: dict[tuple[str, str], list[Skip]] = {}
        for skip in found:
            # "cannot retry job 7: it is started": group by the text after the colon, which is the reason.
            groups.setdefault((skip.code, skip.says.rpartition(": ")[2]), []).append(skip)
        return groups

    @property
    def notes(self) -> Sequence[str]:
        """Notes about the changes; as executed, or else as planned.

        None of a job that ran again: its note names the new job, which `new_jobs` has.
        """
        items = self.receipt.done if self.receipt else self.plan.items
        is_told = bool(self.new_jobs) and self.action.domain == "job"
        return [] if is_told else [_sentence(note) for note in job_actions.merge_notes(items)]

    @property
    def new_jobs(self) -> Sequence[str]:
        """The ids of the jobs that the action created."""
        changes = [c for item in (self.receipt.done if self.receipt else ()) for c in item.changes]
        return [name_in(c.after) for c in changes if c.what == "new job" and c.after]

    @property
    def says(self) -> str:
        """One sentence: the outcome, or why there is nothing to do."""
        if self.receipt:
            return _sentence(self.receipt.says)
        if self.state == "expired":
            return "Nothing was done. A preview is valid for 15 minutes. Make a new one."
        skipped = self.plan.skipped
        return _sentence(skipped[0].says) if len(skipped) == 1 else "None of them allows it now."

    @property
    def drifted(self) -> Sequence[Change]:
        """The changes by others since the preview was made, because of which it was refused."""
        found = self.receipt.drifted if self.receipt else ()
        return [
            Change(
                _words(change.what),
                _value(change.what, change.before),
                _value(change.what, change.after),
            )
            for change in found
        ]

    @property
    def has_payload(self) -> bool:
        """Whether the plan has payload: arguments, a step's result, a signal's payload."""
        return any(self.plan.params.get(param) for param in _PAYLOAD_PARAMS)

    def is_payload(self, what: str) -> bool:
        """Whether the value of a change is payload, as JSON. In a drift the target comes before `what`."""
        if self.action.domain in ("cron", "job", "task"):
            return what.rpartition(" ")[2] == "args"
        return self.action.domain == "workflow" and what == RESULT

    @property
    def again(self) -> tuple[str, Sequence[tuple[str, str]]]:
        """How to request the same preview again: the address, and the fields to send."""
        action, targets = self.action, self.plan.targets
        fields = [(key, _typed(value)) for key, value in self.plan.params.items()]
        for_picked = f"opsjobs.{action.plural}_{action.short_name}"
        if for_picked not in current_app.view_functions:
            return links.to_action(action, targets[0]), fields
        picked = [(action.domain, name_in(target)) for target in targets]
        return url_for(for_picked), [*picked, *fields]

    def _phrase(self, targets: Sequence[str]) -> str:
        several = f"{len(targets)} {self.action.plural}"
        return _upper(self.action.on(say_target(targets[0]) if len(targets) == 1 else several))


def cut_reason(typed: str) -> str:
    """The typed reason, cut to the longest that is allowed, so that no response becomes long."""
    return typed[:LONGEST_REASON]


def _typed(value: Any) -> str:
    """A parameter of a plan as a form field."""
    if value is None:
        return ""
    return json.dumps(value) if isinstance(value, Mapping) else str(value)


def _words(text: str) -> str:
    return text.replace("/", " ", 1).replace("_", " ")


def _value(what: str, text: str | None) -> str | None:
    """A value as pages write it: a moment, or why a job ended; any other text unchanged."""
    if what.endswith(" ended_by"):
        return ENDED_BY.get(text or "", text)
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return text
    return text if found.tzinfo is None else f"{found.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _sentence(text: str) -> str:
    return _upper(text) + ("" if text.endswith((".", "!", "?")) else ".")


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _lines(what: str, counted: Counter[tuple[str | None, str | None]]) -> Iterator[SharedChange]:
    is_shared = len(counted) == 1 or len(counted) < counted.total()
    if is_shared and len(counted) <= _MOST_PAIRS:
        for (before, after), number in counted.items():
            yield SharedChange(what, before, after, number)
        return
    sides: list[Any] = [{pair[side] for pair in counted} for side in (0, 1)]
    words = [side.pop() if len(side) == 1 else f"{len(side)} different values" for side in sides]
    yield SharedChange(what, words[0], words[1], counted.total())
