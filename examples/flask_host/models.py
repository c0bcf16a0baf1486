"""Declares the shop's own tables: customers, invoices, orders and prices, outages and tickets."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, DateTime, ForeignKey, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from .extensions import db


class Customer(db.Model):
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    email: Mapped[str] = mapped_column(unique=True)
    synced_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class Invoice(db.Model):
    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey(Customer.id), index=True)
    cents: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    paid_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class Order(db.Model):
    """Goods that are sent in parcels. `workflow_id` is the run that does it, `state` how that has ended."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey(Customer.id), index=True)
    cents: Mapped[int]
    parcels: Mapped[int]
    workflow_id: Mapped[int | None] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(default="open")
    paid_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class Price(db.Model):
    """What an article costs."""

    __tablename__ = "prices"

    article: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    cents: Mapped[int]


class PriceList(db.Model):
    """A list of prices from a supplier. `batch_id` is the batch that imports it, `result` how that ended."""

    __tablename__ = "price_lists"

    id: Mapped[int] = mapped_column(primary_key=True)
    rows: Mapped[int]
    batch_id: Mapped[int | None] = mapped_column(BigInteger)
    result: Mapped[str] = mapped_column(default="")


class Outage(db.Model):
    """A time in which a customer's server did not answer; `ended_at` is None while it lasts."""

    id: Mapped[int] = mapped_column(primary_key=True)
    host: Mapped[str] = mapped_column(index=True)
    ended_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class Ticket(db.Model):
    """What the people on call are told of an episode of an incident. `event` is the last that was told."""

    __tablename__ = "tickets"
    __table_args__ = (UniqueConstraint("incident", "episode", name="ticket_of_episode"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    incident: Mapped[int] = mapped_column(BigInteger)
    episode: Mapped[int]
    event: Mapped[str]
    title: Mapped[str]
    why: Mapped[str]
    state: Mapped[str]
    path: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
