"""What Toast's sandbox writes of the world's sales: every cent of it, by the recipes of Toast's own guide."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from flux_pipelines.settings import PROJECT_ROOT
from flux_pipelines_tests.providers.toast.sandboxed import Toast, exact, toast_sandbox
from flux_pipelines_tests.sandbox.conftest import END_DAY
from flux_sandbox.model import Sale
from flux_sandbox.pricing import price
from flux_sandbox.toast.ids import order_guid, restaurant_guid
from flux_sandbox.toast.values import decimal_text
from flux_sandbox.truth import truth

EXAMPLES = PROJECT_ROOT.parent / "shared" / "examples" / "toast"
DAYS = 20
ZERO = Decimal(0)
MALFORMED = ("types", "totals", "currency", "timestamp")
NEVER = "1970-01-01T00:00:00.000+0000"


@pytest.fixture(scope="module")
def toast() -> Iterator[Toast]:
    with toast_sandbox(history_days=DAYS) as running:
        yield Toast(running)


@pytest.fixture(scope="module")
def every(toast: Toast) -> dict[str, tuple[Sale, Any]]:
    """Every order of the history, read over the wire by business date, beside the sale that it is."""
    sales = {order_guid(sale): sale for sale in toast.world.sales.values()}
    found = {}
    for here in toast.restaurants:
        for back in range(DAYS):
            for order in toast.day(END_DAY - timedelta(days=back), here):
                assert order["businessDate"] == int(f"{END_DAY - timedelta(days=back):%Y%m%d}")
                found[order["guid"]] = (sales[order["guid"]], order)
    return found


def cents(amount: Any) -> int:
    """Return minor units of a number in JSON; it must be exact."""
    scaled = Decimal(amount).scaleb(2)
    assert scaled == scaled.to_integral_value(), amount
    return int(scaled)


def sums(order: dict[str, Any]) -> dict[str, int]:
    """Add up an order by the guide's definitions, checking on the way what they say of each check and selection."""
    total: Counter[str] = Counter()
    for check in order["checks"]:
        if check["deleted"]:
            assert not check["selections"]
            assert not check["payments"]
            assert cents(check["totalAmount"]) == 0
            continue
        amount = tax = 0
        shared = sum(cents(one["discountAmount"]) for one in check["appliedDiscounts"])
        for selection in check["selections"]:
            if selection["voided"]:
                continue
            own = sum(cents(one["discountAmount"]) for one in selection["appliedDiscounts"])
            gross, net = cents(selection["preDiscountPrice"]), cents(selection["price"])
            shared -= gross - own - net
            total["discount"] += gross - net
            unit = Decimal(selection["receiptLinePrice"]) * Decimal(selection["quantity"])
            extras = sum((Decimal(one["price"]) for one in selection["modifiers"]), ZERO)
            assert abs(unit + extras - Decimal(selection["preDiscountPrice"])) <= Decimal("0.005")
            assert sum(cents(one["taxAmount"]) for one in selection["appliedTaxes"]) == cents(selection["tax"])
            amount, tax = amount + net, tax + cents(selection["tax"])
            total["gift_cards" if selection["deferred"] else "goods"] += net
        assert shared == 0, "check-level discounts are the rest of what the selections lost"
        for charge in check["appliedServiceCharges"]:
            kind = "gratuity" if charge["gratuity"] else "charges"
            total[kind] += cents(charge["chargeAmount"])
            tax += sum(cents(one["taxAmount"]) for one in charge["appliedTaxes"])
            amount += 0 if charge["gratuity"] else cents(charge["chargeAmount"])
        assert (cents(check["amount"]), cents(check["taxAmount"])) == (amount, tax)
        assert cents(check["totalAmount"]) == amount + tax
        total["tax"] += tax
        total["total"] += amount + tax
        for payment in check["payments"]:
            if payment["paymentStatus"] in ("DENIED", "VOIDED"):
                continue
            total["paid"] += cents(payment["amount"])
            total["tips"] += cents(payment["tipAmount"])
            refund = payment["refund"]
            assert (refund is None) == (payment["refundStatus"] == "NONE")
            if refund:
                total["refunded"] += cents(refund["refundAmount"])
                total["tips_refunded"] += cents(refund["tipRefundAmount"])
        for one in (*check["selections"], *check["appliedServiceCharges"]):
            if details := one["refundDetails"]:
                total["refunded_net"] += cents(details["refundAmount"])
                total["refunded_tax"] += cents(details["taxRefundAmount"])
    return dict(total)


def test_every_order_adds_up_to_what_was_really_sold(toast: Toast, every: dict[str, tuple[Sale, Any]]) -> None:
    seen: Counter[str] = Counter()
    wanted = [s for s in toast.world.sales.values() if toast.world.owner(s) is toast.merchant]
    assert len(every) == sum(toast.world.is_order(sale) for sale in wanted)
    for sale, order in every.values():
        if sale.state != "COMPLETED" or sale.deleted or sale.corrupt:
            seen[sale.state if not sale.deleted else "deleted"] += 1
            continue
        figures = price(sale)
        found = Counter(sums(order))
        lines = figures.lines
        tip = sum(one.tip for one in figures.tenders)
        assert found["goods"] + found["gift_cards"] == sum(line.gross - line.discount for line in lines)
        assert found["discount"] == sum(line.discount for line in lines)
        assert found["tax"] == sum(line.tax for line in lines) + sum(one.tax for one in figures.charges)
        charges = [(c.total - c.tax, c.charge.auto_gratuity) for c in figures.charges]
        assert found["gratuity"] == sum(amount for amount, gratuity in charges if gratuity)
        assert found["charges"] == sum(amount for amount, gratuity in charges if not gratuity)
        assert found["total"] + found["gratuity"] + tip == figures.total
        # Nothing moves when the till is only tried.
        moved = figures.tenders if not sale.test else ()
        assert found["paid"] == sum(one.amount - one.tip for one in moved)
        assert found["paid"] in (0, found["total"] + found["gratuity"])
        assert found["tips"] == sum(one.tip for one in moved)
        backs = [price(back) for back in toast.world.refunds_of(sale)]
        assert found["refunded"] + found["tips_refunded"] == sum(back.refund for back in backs)
        itemised = [one for back in backs for one in back.returns if one.returned.itemised]
        assert found["refunded_net"] + found["refunded_tax"] == sum(one.total - one.tip for one in itemised)
        seen["sold"] += 1
        seen["refunded"] += bool(backs)
        seen["two checks"] += sum(not check["deleted"] for check in order["checks"]) > 1
        seen["emptied check"] += any(check["deleted"] for check in order["checks"])
        seen["mistake"] += any(one["voided"] for check in order["checks"] for one in check["selections"])
        seen["gratuity"] += found["gratuity"] > 0
        seen["gift card"] += found["gift_cards"] > 0
        seen["discount on the check"] += any(check["appliedDiscounts"] for check in order["checks"])
        seen["money alone"] += len(itemised) < len(backs)
    rare = {"refunded", "two checks", "emptied check", "mistake", "gratuity", "gift card", "discount on the check"}
    assert all(seen[name] for name in (*rare, "sold", "CANCELED", "OPEN", "deleted", "money alone")), seen


def test_days_add_up_to_the_truth(toast: Toast, every: dict[str, tuple[Sale, Any]]) -> None:
    """Sales on the order's date, unpaid ones too, refunds on theirs: "Viewing refunds in Toast reports"."""
    days: dict[tuple[str, int], Counter[str]] = defaultdict(Counter)
    for sale, order in every.values():
        if order["createdInTestMode"] or order["deleted"]:
            continue
        place = restaurant_guid(sale.location)
        day = days[place, order["businessDate"]]
        day["voids"] += order["voided"]
        day["open"] += order["closedDate"] is None
        if not order["voided"]:
            day.update(sums(order))
        for payment in (one for check in order["checks"] for one in check["payments"] if one["refund"]):
            refund = payment["refund"]
            back = cents(refund["refundAmount"]) + cents(refund["tipRefundAmount"])
            days[place, refund["refundBusinessDate"]]["back"] += back
    known = list(truth(toast.world, merchant=toast.merchant.id))
    assert sum(one.open_orders for one in known) > 0
    for told in known:
        day = days[told.location_id, int(f"{told.business_date:%Y%m%d}")]
        assert (day["voids"], day["open"]) == (told.voids, told.open_orders)
        assert day["total"] + day["gratuity"] + day["tips"] - day["back"] == told.total
        assert day["gift_cards"] == told.gift_cards


def test_states_are_told_as_toast_tells_them(every: dict[str, tuple[Sale, Any]]) -> None:
    seen: Counter[str] = Counter()
    for sale, order in every.values():
        checks = order["checks"]
        live = [check for check in checks if not check["deleted"]]
        if sale.deleted:
            assert order["deleted"]
            assert order["deletedDate"] == order["modifiedDate"]
            assert not live
        elif sale.state == "CANCELED":
            assert order["voided"]
            assert order["voidBusinessDate"]
            assert all(one["voided"] for check in checks for one in (check, *check["selections"]))
            assert sum(cents(check["totalAmount"]) for check in checks) == 0
            assert {p["paymentStatus"] for check in checks for p in check["payments"]} <= {"VOIDED"}
        elif sale.state == "OPEN":
            assert order["closedDate"] is None
            assert {check["paymentStatus"] for check in live} == {"OPEN"}
        else:
            assert (order["deletedDate"], {check["paymentStatus"] for check in live}) == (NEVER, {"CLOSED"})
        seen[sale.state] += 1
        seen["deleted"] += sale.deleted
        seen["test"] += order["createdInTestMode"]
        assert order["createdInTestMode"] == sale.test
    assert min(seen[state] for state in ("CANCELED", "OPEN", "COMPLETED", "deleted", "test")) > 0


def test_modifiers_have_their_parents_quantity_and_doubles_are_listed_twice(
    every: dict[str, tuple[Sale, Any]],
) -> None:
    nested = doubled = 0
    for sale, order in every.values():
        for check in order["checks"]:
            for selection in check["selections"]:
                below = list(selection["modifiers"])
                for modifier in below:
                    below += modifier["modifiers"]
                    nested += len(modifier["modifiers"])
                    assert modifier["quantity"] == selection["quantity"]
                    assert modifier["taxInclusion"] == "INHERITED"
                names = [modifier["displayName"] for modifier in below]
                doubled += len(names) > len(set(names))
        expected = [
            chosen.modifier.name for line in sale.lines for chosen in line.modifiers for _ in range(chosen.quantity)
        ]
        if not sale.deleted:
            assert sorted(_names(order)) == sorted(expected)
    assert nested
    assert doubled


def _names(order: dict[str, Any]) -> list[str]:
    found = []
    waiting = [m for check in order["checks"] for s in check["selections"] for m in s["modifiers"]]
    while waiting:
        one = waiting.pop()
        found.append(one["displayName"])
        waiting += one["modifiers"]
    return found


def test_people_are_there_for_whoever_may_see_them(toast: Toast, every: dict[str, tuple[Sale, Any]]) -> None:
    sale, order = next((s, o) for s, o in every.values() if s.customer and o["deliveryInfo"] and s.state == "COMPLETED")
    assert sale.customer is not None
    text = json.dumps(order, default=str)
    for known in (sale.customer.given_name, sale.customer.email, sale.customer.phone, sale.customer.street):
        assert known in text
    here = restaurant_guid(sale.location)
    narrow = Toast(toast.sandbox, scopes=["orders:read"])
    shown = exact(narrow.get(f"/orders/v2/orders/{order['guid']}", here))
    assert all(check["customer"] is None and check["tabName"] is None for check in shown["checks"])
    assert shown["deliveryInfo"] is None
    digits = [p["last4Digits"] for _, o in every.values() for c in o["checks"] for p in c["payments"]]
    assert sum(one is not None for one in digits) > 100
    assert any(
        p["last4Digits"] == s.customer.card_last4
        for s, o in every.values()
        if s.customer
        for c in o["checks"]
        for p in c["payments"]
    )


def test_a_fee_is_told_once_it_is_known(toast: Toast, every: dict[str, tuple[Sale, Any]]) -> None:
    paid = [(one, sale) for sale, _ in every.values() for one in toast.world.payments_of(sale) if one.fee]
    now = toast.world.now_ms()
    shown = {
        p["guid"]: p["originalProcessingFee"] for _, o in every.values() for c in o["checks"] for p in c["payments"]
    }
    for one, _ in paid:
        assert shown[one.id] == (Decimal(one.fee).scaleb(-2) if one.fee_at <= now else None)
    assert any(one.fee_at > now for one, _ in paid) or len(paid) > 100


def test_enums_are_open(every: dict[str, tuple[Sale, Any]]) -> None:
    orders = [order for _, order in every.values()]
    assert "Car Order" in {order["source"] for order in orders}
    selections = [one for order in orders for check in order["checks"] for one in check["selections"]]
    assert "PLATED" in {one["fulfillmentStatus"] for one in selections}
    payments = [one for order in orders for check in order["checks"] for one in check["payments"]]
    assert "PALM_SCANNED" in {one["cardEntryMode"] for one in payments}
    assert {one["type"] for one in payments} <= {"CASH", "CREDIT", "GIFTCARD", "OTHER"}


def test_a_refund_moves_the_order_that_was_sold(toast: Toast) -> None:
    order = next(
        o for o in toast.day(END_DAY) if o["checks"][0]["payments"] and not o["voided"] and len(o["checks"]) == 1
    )
    toast.control("orders/refund", order_id=order["guid"])
    changed = exact(toast.get(f"/orders/v2/orders/{order['guid']}"))
    assert changed["businessDate"] == order["businessDate"]
    assert changed["modifiedDate"] > order["modifiedDate"]
    (payment,) = [p for p in changed["checks"][0]["payments"] if p["paymentStatus"] not in ("DENIED", "VOIDED")][-1:]
    assert payment["refundStatus"] == "FULL"
    assert payment["refund"]["refundBusinessDate"] == 20261104
    assert len(toast.day(date(2026, 11, 4))) == 0  # a refund is no order of its own


@pytest.mark.parametrize("kind", MALFORMED)
def test_orders_that_nobody_can_read_are_spoiled_in_one_place(toast: Toast, kind: str) -> None:
    made = toast.control("orders/malformed", kind=kind, location_id=toast.merchant.locations[0].id)
    order = exact(toast.get(f"/orders/v2/orders/{made['order_id']}"))
    if kind == "types":
        assert order["checks"] == "not a list"
    elif kind == "timestamp":
        assert order["openedDate"] == "yesterday"
    elif kind == "currency":
        assert all(str(one["price"]).startswith("$") for one in order["checks"][0]["selections"])
    else:
        check = order["checks"][0]
        assert cents(check["totalAmount"]) == cents(check["amount"]) + cents(check["taxAmount"]) + 1


@pytest.mark.parametrize(
    ("amount", "places", "whole", "text"),
    [
        (1250, 2, False, "12.5"),
        (11100, 2, False, "111"),
        (800, 2, True, "8.0"),
        (106, 2, True, "1.06"),
        (-5, 2, False, "-0.05"),
        (0, 2, True, "0.0"),
        (456, 3, False, "0.456"),
    ],
)
def test_numbers_are_written_from_integers(amount: int, places: int, whole: bool, text: str) -> None:
    assert decimal_text(amount, places, whole=whole) == text
    assert Decimal(text) == Decimal(amount).scaleb(-places)


def test_late_arrivals_are_created_when_they_arrive(toast: Toast) -> None:
    made = toast.control("orders/late", hours=30, location_id=toast.merchant.locations[0].id)
    order = exact(toast.get(f"/orders/v2/orders/{made['order_id']}"))
    assert order["openedDate"] == "2026-11-03T06:00:00.000+0000"
    assert order["businessDate"] == 20261102  # 1 a.m. in New York, which is still the day before
    assert order["modifiedDate"] == "2026-11-04T12:00:00.000+0000"


def shape(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the path of every member and the kind of its value."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from shape(one, f"{path}.{key}")
        if not value:
            yield path, "object"
    elif isinstance(value, list):
        for one in value:
            yield from shape(one, f"{path}[]")
    elif isinstance(value, bool):
        yield path, "bool"
    else:
        yield path, "number" if isinstance(value, int | float | Decimal) else type(value).__name__


@pytest.fixture(scope="module")
def members(every: dict[str, tuple[Sale, Any]]) -> dict[str, set[str]]:
    """Every member that the sandbox writes of orders, with the kinds of its values."""
    found: dict[str, set[str]] = {}
    for _, order in every.values():
        for member, kind in shape(order):
            found.setdefault(member, set()).add(kind)
    return found


@pytest.mark.parametrize(
    "name",
    [
        "order_get",
        "orders_bulk_first_order",
        "order_create_with_payment_response",
        "order_types_delivery_response",
        "order_types_takeout_response",
        "order_with_modifiers_excerpt",
        "webhook_order_updated",
    ],
)
def test_the_examples_members_are_all_written(members: dict[str, set[str]], name: str) -> None:
    path = EXAMPLES / f"{name}.json"
    if not path.exists():
        pytest.skip("Toast's examples are not here: they may not be copied into this repository")
    example = json.loads(Path(path).read_text())
    example = example[0] if isinstance(example, list) else example.get("details", {}).get("order", example)
    ours = members
    for member, kind in shape(example):
        if ".curbsidePickupInfo" in member:
            continue  # nobody of the sandbox's world drives up
        known = ours.get(member) or {
            k for m, ks in ours.items() if m.startswith((f"{member}.", f"{member}[")) for k in ks
        }
        assert known, f"{name}: {member} is never written"
        if kind in ("NoneType",) or known == {"NoneType"}:
            continue
        assert kind in known or kind == "object", f"{name}: {member} is {kind} there, {known} here"
