"""Orders made by hand, in Toast's form: what tests of the SQL put together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flux_pipelines_tests.providers.toast.examples import CLOSED
from flux_pipelines_tests.providers.toast.wire import rows_of


def selection(guid: str = "s1", price: float = 10, tax: float = 0, **more: Any) -> dict[str, Any]:
    return {
        "guid": guid,
        "entityType": "MenuItemSelection",
        "item": {"guid": "i1", "entityType": "MenuItem", "multiLocationId": "100000000171238879"},
        "displayName": "Pie",
        "selectionType": "NONE",
        "quantity": 1,
        "receiptLinePrice": price,
        "preDiscountPrice": price,
        "price": price,
        "tax": tax,
        "voided": False,
        "modifiers": [],
        **more,
    }


def check(*selections: dict[str, Any], total: float, **more: Any) -> dict[str, Any]:
    return {
        "guid": "c1",
        "selections": list(selections),
        "appliedServiceCharges": [],
        "payments": [],
        "totalAmount": total,
        "paymentStatus": "CLOSED",
        "voided": False,
        "deleted": False,
        **more,
    }


def order(*checks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "guid": "O1",
        "businessDate": 20260302,
        "openedDate": "2026-03-02T12:00:00.123+0000",
        "modifiedDate": CLOSED,
        "closedDate": CLOSED,
        "voided": False,
        "deleted": False,
        "checks": list(checks),
        **more,
    }


def payment(amount: float, tip: float = 0, kind: str = "CREDIT", **more: Any) -> dict[str, Any]:
    return {
        "guid": "p1",
        "type": kind,
        "amount": amount,
        "tipAmount": tip,
        "paymentStatus": "CAPTURED" if kind == "CREDIT" else None,
        "refund": None,
        "voidInfo": None,
        **more,
    }


def one(folder: Path, given: dict[str, Any] | str, **more: Any) -> list[dict[str, Any]]:
    rows, work = rows_of(folder, given, **more)
    assert [bad.reason for bad in work.bad] == []
    return rows


def refund(amount: float, tip: float = 0, day: int = 5, **more: Any) -> dict[str, Any]:
    return {
        "refundAmount": amount,
        "tipRefundAmount": tip,
        "refundDate": f"2026-03-{day:02}T18:00:00.000+0000",
        "refundBusinessDate": 20260300 + day,
        **more,
    }


def back(amount: float, tax: float = 0, transaction: str | None = None) -> dict[str, Any]:
    """Return RefundDetails of a line."""
    of = None if transaction is None else {"guid": transaction, "entityType": "RefundTransaction"}
    return {"refundAmount": amount, "taxRefundAmount": tax, "refundTransaction": of}


def charge(guid: str, amount: float, *taxes: float, **more: Any) -> dict[str, Any]:
    return {
        "guid": guid,
        "name": guid,
        "chargeAmount": amount,
        "gratuity": False,
        "appliedTaxes": [{"taxAmount": tax} for tax in taxes],
        **more,
    }
