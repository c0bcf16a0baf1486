"""Serves the shop's pages: sign in, let something happen, take the tour, go to the jobs."""

from __future__ import annotations

import hmac
from datetime import UTC, datetime

from flask import (
    Blueprint,
    abort,
    current_app,
    flash,
    redirect,
    render_template,
    request,
    url_for,
)
from flask.typing import ResponseReturnValue
from flask_login import current_user, login_required, login_user, logout_user

from . import exports, happenings, orders, people, prices, vendors
from .extensions import db, login
from .models import Order, PriceList, Ticket

shop = Blueprint("shop", __name__)
_SHOWN_ORDERS, _SHOWN_LISTS, _SHOWN_TICKETS = 8, 4, 20
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
        rq_id=request.args.get("rq"),
        down=vendors.list_down(),
        orders=db.session.scalars(db.select(Order).order_by(Order.id.desc()).limit(_SHOWN_ORDERS)),
        lists=db.session.scalars(
            db.select(PriceList).order_by(PriceList.id.desc()).limit(_SHOWN_LISTS)
        ),
        rows=prices.ROWS,
    )


@shop.get("/tour")
def tour() -> ResponseReturnValue:
    return render_template("shop/tour.html", receiver=happenings.RECEIVER)


@shop.get("/tickets")
@login_required
def tickets() -> ResponseReturnValue:
    """Show what the people on call were told of incidents."""
    newest = db.select(Ticket).order_by(Ticket.id.desc()).limit(_SHOWN_TICKETS)
    return render_template("shop/tickets.html", tickets=db.session.scalars(newest).all())


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
    """End all outages: what is down answers again."""
    down = " and ".join(vendors.list_down())
    vendors.come_back(datetime.now(UTC))
    db.session.commit()
    if down:
        flash(f"{down} answers again. What has failed stays failed until it is retried.")
    return redirect(url_for("shop.front"), 303)


@shop.post("/happen/<name>")
@login_required
def happen(name: str) -> ResponseReturnValue:
    """Enqueue a job, in the transaction of what happened."""
    if name not in BY_NAME:
        abort(404)
    forbid_viewers()
    job_id = BY_NAME[name]()
    db.session.commit()
    return redirect(url_for("shop.front", job=job_id), 303)


@shop.post("/exports")
@login_required
def export() -> ResponseReturnValue:
    """Enqueue plain RQ jobs, past OpsJobs."""
    forbid_viewers()
    return redirect(url_for("shop.front", rq=exports.export(), _anchor="exports"), 303)


@shop.post("/orders")
@login_required
def place_order() -> ResponseReturnValue:
    """Order goods, and start the workflow that delivers them, in one transaction."""
    forbid_viewers()
    is_lucky = "unlucky" not in request.form
    run = orders.place(parcels=3) if is_lucky else orders.place_for_the_unlucky()
    db.session.commit()
    return redirect(url_for("shop.front", run=run, _anchor="orders"), 303)


@shop.post("/orders/<int:order_id>/pay")
@login_required
def pay_order(order_id: int) -> ResponseReturnValue:
    """Do what the bank's webhook does, for people who play the bank."""
    forbid_viewers()
    order = db.get_or_404(Order, order_id)
    orders.receive_payment(f"evt_{order.id}", order, order.cents)
    db.session.commit()
    return redirect(url_for("shop.front", _anchor="orders"), 303)


@shop.post("/price-lists")
@login_required
def import_prices() -> ResponseReturnValue:
    """Import a supplier's price list: the list and the batch of its rows, in one transaction."""
    forbid_viewers()
    rows = request.form.get("rows", prices.ROWS, type=int)
    if not 1 <= rows <= prices.ROWS:
        abort(400, f"a price list has 1 to {prices.ROWS} rows")
    batch = prices.import_list(rows)
    db.session.commit()
    return redirect(url_for("shop.front", batch=batch, _anchor="prices"), 303)


@shop.post("/webhooks/payment")
def payment() -> ResponseReturnValue:
    """Take the bank's word that an order was paid, and give it to the workflow of the order.

    The bank signs its body, and sends an event again until it gets an answer of 2xx: a second time changes
    nothing.
    """
    signature = vendors.sign(request.get_data(), current_app.config["BANK_KEY"])
    if not hmac.compare_digest(signature.encode(), request.headers.get("X-Signature", "").encode()):
        abort(403)
    match request.get_json():
        case {"id": str(event), "order": int(order_id), "cents": int(cents)}:
            is_repeated = orders.receive_payment(event, db.get_or_404(Order, order_id), cents)
        case _:
            abort(400, "an event has id, order and cents")
    db.session.commit()
    return {"is_repeated": is_repeated}


def forbid_viewers() -> None:
    """Abort the request of a person who may only look."""
    if current_user.role == "viewer":
        abort(403)
