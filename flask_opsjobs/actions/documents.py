"""Writes plans and receipts as the JSON that a preview's row keeps, and reads them back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from .shapes import Change, Item, Plan, Receipt, Skip


def write_plan(plan: Plan, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The plan as JSON, with the facts that it depends on, so that later changes can be named."""
    return {
        "items": [asdict(item) for item in plan.items],
        "skipped": [asdict(skip) for skip in plan.skipped],
        "risk": plan.risk,
        "facts": dict(facts),
    }


def read_plan(
    document: Mapping[str, Any], *, action: str, fingerprint: str, params: Mapping[str, Any]
) -> Plan:
    """The plan that `write_plan` wrote."""
    return Plan(
        action=action,
        items=tuple(_item(each) for each in document["items"]),
        skipped=tuple(Skip(**each) for each in document["skipped"]),
        risk=document["risk"],
        fingerprint=fingerprint,
        params=params,
    )


def write_receipt(receipt: Receipt) -> dict[str, Any]:
    """The receipt as JSON."""
    return asdict(receipt)


def read_receipt(document: Mapping[str, Any]) -> Receipt:
    """The receipt that `write_receipt` wrote."""
    lists = {
        "done": tuple(_item(each) for each in document["done"]),
        "skipped": tuple(Skip(**each) for each in document["skipped"]),
        "drifted": tuple(Change(**each) for each in document["drifted"]),
    }
    return Receipt(**{**document, **lists})


def _item(document: Mapping[str, Any]) -> Item:
    return Item(**{**document, "changes": tuple(Change(**each) for each in document["changes"])})
