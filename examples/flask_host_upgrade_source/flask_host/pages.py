"""Serves the shop's pages: sign in, let something happen, take the tour, go to the jobs."""

from __future__ import annotations

from datetime import UTC, datetime

from flask import Blueprint, abort, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_login import current_user, login_required, login_user, logout_user

from . import happenings, people, vendors
from .extensions import db, login

shop = Blueprint("shop", __name__)
BY_NAME = {happening.__name__: happening for happening in happenings.SHARES}

login.login_view = "shop.sign_in"


@login.user_loader
def load(name: str) -> people.Person | None:
    return people.PEOPLE.get(name)


@shop.get("/")
def front() -> ResponseReturnValue:
    return render_template(
        "shop/front.html",
        happenings=BY_NAME,
        job_id=request.args.get("job"),
        receiver=happenings.RECEIVER,
        is_down=vendors.is_down(happenings.RECEIVER),
    )


@shop.get("/tour")
def tour() -> ResponseReturnValue:
    return render_template("shop/tour.html", receiver=happenings.RECEIVER)


@shop.route("/sign-in", methods=["GET", "POST"])
def sign_in() -> ResponseReturnValue:
    if request.method == "POST":
        found = people.with_password(request.form.get("name", ""), request.form.get("password", ""))
        if found is not None:
            login_user(found)
            return redirect(where_from() or url_for("shop.front"), 303)
        flash("No such name, or another password.")
    return render_template("shop/sign_in.html", people=people.PEOPLE.values())


def where_from() -> str | None:
    """The page that led to the sign-in; None when `next` is not a page of this site."""
    back = request.args.get("next", "")
    # A browser reads a backslash as a slash, and two slashes as the start of another site's address.
    is_here = back.startswith("/") and not back.replace("\\", "/").startswith("//")
    return back if is_here and back.isprintable() else None


@shop.post("/sign-out")
def sign_out() -> ResponseReturnValue:
    logout_user()
    return redirect(url_for("shop.front"), 303)


@shop.post("/receiver-answers")
@login_required
def receiver_answers() -> ResponseReturnValue:
    """End the incident: the server that takes webhooks answers again."""
    vendors.come_back(datetime.now(UTC))
    db.session.commit()
    flash(f"{happenings.RECEIVER} answers again. What has failed stays failed until it is retried.")
    return redirect(url_for("shop.front"), 303)


@shop.post("/happen/<name>")
@login_required
def happen(name: str) -> ResponseReturnValue:
    """Enqueue a job, in the transaction of what happened."""
    if name not in BY_NAME:
        abort(404)
    if current_user.role == "viewer":
        abort(403)
    job_id = BY_NAME[name]()
    db.session.commit()
    return redirect(url_for("shop.front", job=job_id), 303)
