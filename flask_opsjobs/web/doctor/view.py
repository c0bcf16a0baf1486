"""Shows what the doctor finds now: what is wrong and what to run, then what was not asked, then the rest."""

from __future__ import annotations

from flask import Flask, Response, current_app

from ...core.round_trips import start_beside
from ...doctor.check import ERROR, OK, WARNING
from ...doctor.examination import examine, say_unasked
from ..app import pages
from ..app.host import heavy
from ..app.shell import read_sources


def page() -> Response:
    """The document. It asks all the checks, and answers also when Postgres or Redis does not."""
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    with heavy():
        examining = start_beside(examine, app)
        read_sources()  # which the document needs too
        found = examining.result()
    return pages.document(
        "doctor/page.html",
        "lifeline",
        f"Doctor: {found.headline.rstrip('.')}",
        found.at,
        found=found,
        wrong_groups=[
            ("errors", "Errors", "something does not work", found.in_state(ERROR)),
            ("warnings", "Warnings", "it works, but somebody should look", found.in_state(WARNING)),
        ],
        unasked=[
            (cause, say_unasked(cause, results), results)
            for cause, results in found.unasked.items()
        ],
        fine=found.in_state(OK),
    )
