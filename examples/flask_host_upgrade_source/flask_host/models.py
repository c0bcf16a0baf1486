"""Declares the shop's own tables: its jobs are about customers and invoices."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import DateTime, ForeignKey, func
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


class Outage(db.Model):
    """A time in which a customer's server did not answer; `ended_at` is None while it lasts."""

    id: Mapped[int] = mapped_column(primary_key=True)
    host: Mapped[str] = mapped_column(index=True)
    ended_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
