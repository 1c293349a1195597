"""Toast's own examples and what is printed in them: what tests of the SQL, and of the way there, expect of them."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import pytest

from flux_pipelines_tests.providers.toast.wire import EXAMPLES

D = Decimal
Json = dict[str, Any]
CLOSED = "2026-03-03T09:00:00.000+0000"
ABSENT = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the shared examples are not here")


def load(name: str) -> Any:
    """Return what is in an example file."""
    return json.loads((EXAMPLES / f"{name}.json").read_text())


def orders_in(name: str) -> list[Json]:
    """Return the orders in an example file: by themselves, in a list, or in an event."""
    found: list[Json] = []
    pending = [load(name)]
    while pending:
        item = pending.pop()
        if isinstance(item, dict) and item.get("entityType") == "Order":
            found.append(item)
        elif isinstance(item, dict | list):
            pending += item.values() if isinstance(item, dict) else item
    return found


def is_priced(order: Json) -> bool:
    """Tell whether an order says what it comes to."""
    return "businessDate" in order and "totalAmount" in order["checks"][0]


def priced_orders() -> list[Any]:
    """Return every priced order in the example files, as parameters of a test."""
    if not EXAMPLES.is_dir():
        return [pytest.param({}, id="absent", marks=ABSENT)]
    return [
        pytest.param(order, id=file.stem)
        for file in sorted(EXAMPLES.glob("*.json"))
        for order in orders_in(file.stem)
        if is_priced(order)
    ]


def selections_of(order: Json) -> list[Json]:
    """Return what was chosen in an order, in its checks' order."""
    return [selection for check in order["checks"] for selection in check["selections"]]


def complete(order: Json) -> Json:
    """Return an example with what every order of Toast's says, where the example leaves it out.

    The priced one has no GUIDs yet, requests have none either, and excerpts leave out much. All else stays.
    """
    made = copy.deepcopy(order)
    made["guid"] = made.get("guid") or "calculated"
    if made.get("openedDate") is None:
        made["openedDate"] = made.get("voidDate") or "2026-03-02T12:00:00.000+0000"
    made.setdefault("businessDate", made.get("voidBusinessDate") or 20260302)
    for number, selection in enumerate(selections_of(made)):
        selection["guid"] = selection.get("guid") or f"s{number}"
    return made


def as_sold(order: Json) -> Json:
    """Return an example as a sale: some are open, and those have no rows as they are."""
    return {**complete(order), "closedDate": CLOSED}


def assert_rows_are_as_printed(rows: Sequence[Mapping[str, Any]], order: Json) -> None:
    """Check the rows of a priced example that was sold."""
    selections, checks = selections_of(order), order["checks"]
    assert [row["line_id"] for row in rows] == [selection["guid"] for selection in selections]
    for row, selection in zip(rows, selections, strict=True):
        assert row["product_name"] == selection["displayName"]
        assert row["net"] == D(str(selection["price"]))
        assert row["gross"] == D(str(selection["preDiscountPrice"]))
        assert row["tax"] == D(str(selection["tax"]))
        assert row["quantity"] == D(str(selection["quantity"]))
        assert row["product_id"] == selection["item"]["guid"]
    assert sum(row["total"] for row in rows) == sum((D(str(check["totalAmount"])) for check in checks), D(0))
    assert sum(row["net"] for row in rows) == sum((D(str(check["amount"])) for check in checks), D(0))
    assert sum(row["tax"] for row in rows) == sum((D(str(check["taxAmount"])) for check in checks), D(0))
    paid = [payment for check in checks for payment in check["payments"]]
    by = {name: sum((row[f"tendered_{name}"] for row in rows), D(0)) for name in ("cash", "card", "other")}
    for name, kind in (("cash", "CASH"), ("card", "CREDIT"), ("other", "OTHER")):
        assert by[name] == sum((D(str(p["amount"] + p["tipAmount"])) for p in paid if p["type"] == kind), D(0))


#: What the payments in the examples come to, by the beginning of their GUID and their kind.
PAYMENTS: dict[tuple[str, str], tuple[Any, ...]] = {
    ("361d", "payment"): (D("57.73"), 0, 0, "card", "VISA", "completed"),
    ("2f20", "payment"): (0, 0, 0, "cash", "CASH", "canceled"),
    ("3e95", "payment"): (D("6.36"), 0, 0, "card", "VISA", "completed"),
    ("3e95", "refund"): (D("-6.36"), 0, 0, "card", "VISA", "completed"),
    ("e8ce", "payment"): (D("1.06"), 0, D("-0.04"), "card", "VISA", "completed"),
    ("b6e0", "payment"): (D("9.55"), 0, 0, "other", "OTHER", "completed"),
}


def payment_figures(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], tuple[Any, ...]]:
    """Return rows of `payments` in the form of `PAYMENTS`."""
    wanted = ("amount", "tip", "fee", "tender", "tender_detail", "status")
    return {(row["payment_id"][:4], row["kind"]): tuple(row[name] for name in wanted) for row in rows}


def payments_of(*guids: str) -> dict[tuple[str, str], tuple[Any, ...]]:
    """Return what payments of these GUIDs come to."""
    return {key: figures for key, figures in PAYMENTS.items() if any(guid.startswith(key[0]) for guid in guids)}


def order_of(*payments: Json, **more: Any) -> Json:
    """Return an order of nothing but payments: Toast gives them in the checks of orders."""
    return {
        "guid": "O1",
        "businessDate": 20260302,
        "openedDate": "2026-03-02T12:00:00.000+0000",
        "modifiedDate": CLOSED,
        "closedDate": CLOSED,
        "checks": [{"guid": "c1", "totalAmount": 0, "paymentStatus": "CLOSED", "payments": list(payments)}],
        **more,
    }


def assert_menu_is_as_printed(rows: Iterable[Mapping[str, Any]]) -> None:
    """Check the rows of the example of a menu with sizes and options."""
    found = {(row["product_name"], row["variation"]): row for row in rows}
    pizza = found["Cheese Pizza", None]
    assert (pizza["price"], pizza["category"], pizza["currency"]) == (None, "Pizza", "USD")
    assert found["Cheese Pizza", "Small"]["price"] == 8
    assert found["Cheese Pizza", "Large"]["price"] == 10
    assert found["Cheese Pizza", "Large"]["item_id"] == pizza["product_id"] == "95c5d500-8d92-46f2-bec4-fb2a42a46621"
    assert (found["Mushrooms", None]["category"], found["Mushrooms", None]["price"]) == ("Toppings", None)
    assert (found["Small", None]["category"], found["Small", None]["price"]) == ("Size", 8)
    assert len(found) == 7


#: What the stock in the examples comes to, by product. Entries that are not valid are no product's.
STOCK: dict[str, dict[str, tuple[str, Any]]] = {
    "stock_inventory": {
        "100000000171238879": ("out_of_stock", None),
        "100000000171239701": ("limited", D(25)),
        "100000000171239569": ("limited", D("10.75")),
    },
    "stock_inventory_search": {
        "100000000171238879": ("in_stock", None),
        "100000000171239701": ("limited", D(100)),
    },
    "webhook_stock_in_stock_manual": {"100000000171238879": ("in_stock", None)},
    "webhook_stock_in_stock_quantity": {"100000000171239701": ("limited", D(10))},
    "webhook_stock_low_quantity": {"100000000171241912": ("limited", D(5))},
    "webhook_stock_out_of_stock": {"100000000171239569": ("out_of_stock", None)},
}


def stock_figures(rows: Iterable[Mapping[str, Any]]) -> dict[str, tuple[str, Any]]:
    """Return rows of `inventory_levels` in the form of `STOCK`."""
    return {row["product_id"]: (row["availability"], row["quantity"]) for row in rows}
