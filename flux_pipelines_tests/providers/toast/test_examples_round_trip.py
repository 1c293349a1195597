"""Every example of Toast's that holds an order, a payment, a product or a count, all the way round.

The sandbox takes it in over HTTP, the client collects it into a lake, and there it is as it was, but for what is personal;
and the tables have the rows that the tests of the SQL expect of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from flux_pipelines.providers.toast import PROVIDER
from flux_pipelines_tests.providers.toast.examples import (
    ABSENT,
    STOCK,
    as_sold,
    assert_menu_is_as_printed,
    assert_rows_are_as_printed,
    complete,
    is_priced,
    load,
    order_of,
    orders_in,
    payment_figures,
    payments_of,
    selections_of,
    stock_figures,
)
from flux_pipelines_tests.providers.toast.roundtrip import (
    Json,
    RoundTrip,
    day_of,
    differing,
    exactly,
    menu_with,
    round_trip,
)
from flux_pipelines_tests.providers.toast.sandboxed import HANDLE
from flux_pipelines_tests.providers.toast.wire import EXAMPLES
from flux_sandbox.truth import truth

D = Decimal
ORDERS = (
    "applied_discounts_request",
    "order_create_with_payment_response",
    "order_get",
    "order_prices_response",
    "order_types_delivery_response",
    "order_types_takeout_response",
    "order_void_response_excerpt",
    "order_with_modifiers_excerpt",
    "orders_bulk_first_order",
    "selection_with_nested_modifiers_request",
    "webhook_order_updated",
)
PAYMENTS = ("payment_get_a", "payment_get_b", "payment_get_refunded")
MENUS = ("menus_v2_size_pricing_excerpt",)
#: Examples that hold none of these, and what they are instead.
OTHERS = {
    "auth_jwt_claims": "what is in a token",
    "auth_login_response": "a token",
    "cash_entries": "cash taken out of a drawer: no order was paid with it, and nothing here asks for it",
    "config_menu_item": "names and GUIDs that config/v2 lists; products are read from menus/v2, which has their prices",
    "error_message": "a refusal",
    "partners_connected_restaurants": "restaurants",
    "partners_restaurants_a": "restaurants",
    "restaurant_info": "a restaurant",
    "webhook_menus_updated": "says that menus were published, not what is on them",
    "webhook_partner_added": "a restaurant",
}


@pytest.fixture
def trip(tmp_path: Path) -> Iterator[RoundTrip]:
    with round_trip(tmp_path / "home") as connected:
        yield connected


def assert_is_whole(trip: RoundTrip, landed: Json, given: Json) -> None:
    """Check that what landed is what was given, but for what redaction takes out."""
    assert landed == trip.as_stored(given)
    assert differing(landed, exactly(json.dumps(given))) <= PROVIDER.redaction.remove


def land(trip: RoundTrip, order: Json) -> list[Json]:
    """Send an order round; return its rows of `transactions`."""
    trip.take("orders", order)
    manifest = trip.sync(day_of(order))
    (landed,) = trip.stored(manifest)
    # An order names neither its restaurant nor its currency: the client puts both in front.
    assert_is_whole(trip, landed, {"flux_location_id": trip.here.id, "flux_currency": "USD", **order})
    paid = [one for check in order.get("checks", ()) for one in check.get("payments", ())]
    found = payment_figures(trip.table("payments", manifest))
    assert found == payments_of(*(one["guid"] for one in paid))
    return trip.transactions(manifest)


@ABSENT
def test_every_example_is_here_or_is_none_of_these() -> None:
    listed = [*ORDERS, *PAYMENTS, *MENUS, *STOCK, *OTHERS]
    assert sorted(listed) == sorted(file.stem for file in EXAMPLES.glob("*.json"))
    assert all(orders_in(name) for name in ORDERS)
    assert not any(orders_in(name) for name in OTHERS)


@ABSENT
@pytest.mark.parametrize("name", ORDERS)
def test_an_order_goes_round_as_it_is(trip: RoundTrip, name: str) -> None:
    (example,) = orders_in(name)
    order = complete(example)  # the wire demands an id and instants, which requests and excerpts do not have

    rows = land(trip, order)

    if order.get("voided"):
        assert [(row["line_id"], row["kind"]) for row in rows] == [
            (one["guid"], "void") for one in selections_of(order)
        ]
        assert all(row[amount] == 0 for row in rows for amount in ("quantity", "gross", "net", "tax", "total"))
    elif is_priced(example):
        assert_rows_are_as_printed(rows, order)  # an open one too: it is a sale of its business date


@ABSENT
@pytest.mark.parametrize("name", [name for name in ORDERS if name != "order_void_response_excerpt"])
def test_an_order_goes_round_as_a_sale(trip: RoundTrip, name: str) -> None:
    (example,) = orders_in(name)
    order = as_sold(example)

    rows = land(trip, order)

    if is_priced(order):
        assert_rows_are_as_printed(rows, order)
    else:  # no amount is printed: only what was chosen, how often
        for row, selection in zip(rows, selections_of(order), strict=True):
            assert (row["line_id"], row["total"]) == (selection["guid"], 0)
            assert row["product_name"] == selection.get("displayName", "Unnamed item")
            assert (row["product_id"], row["quantity"]) == (selection["item"]["guid"], D(str(selection["quantity"])))


@ABSENT
@pytest.mark.parametrize("name", PAYMENTS)
def test_a_payment_goes_round(trip: RoundTrip, name: str) -> None:
    payment = load(name)
    # Toast gives payments in the checks of orders; the example that names its own is put there.
    order = order_of(payment, guid=payment.get("orderGuid", "O1"))
    check = order["checks"][0]
    check["guid"] = payment.get("checkGuid", "c1")
    check["paymentStatus"] = "OPEN"  # a closed one with payments, and nothing sold, would go to quarantine

    rows = land(trip, order)

    assert sum(row["total"] for row in rows) == -D(str((payment["refund"] or {}).get("refundAmount", 0)))


@ABSENT
@pytest.mark.parametrize("name", MENUS)
def test_a_menu_goes_round(trip: RoundTrip, name: str) -> None:
    menu = {**load(name), "restaurantGuid": trip.here.id}
    trip.take("menus", menu)

    manifest = trip.read("catalog")

    (landed,) = [line for line in trip.stored(manifest) if line["kind"] == "menu"]
    assert landed["location_id"] == trip.here.id
    assert_is_whole(trip, landed["object"], menu)
    assert_menu_is_as_printed(trip.table("products", manifest))


def stock_in(name: str) -> list[Json]:
    """Return the stock entries of an example file; an event holds one, and calls its GUID the item's."""
    found = load(name)
    if isinstance(found, list):
        return list(found)
    told = {key: value for key, value in found["details"].items() if key not in ("itemGuid", "restaurantGuid")}
    return [{"guid": found["details"]["itemGuid"], **told}]


@ABSENT
@pytest.mark.parametrize("name", STOCK)
def test_stock_goes_round(trip: RoundTrip, name: str) -> None:
    entries = stock_in(name)
    # What is in stock, or not valid, is not in Toast's list: it is asked for, by the items on the menu.
    trip.take("menus", menu_with(trip.here.id, entries))
    for entry in entries:
        trip.take("stock", entry)

    manifest = trip.read("inventory")

    guids = {entry["guid"] for entry in entries}
    landed = {line["object"]["guid"]: line for line in trip.stored(manifest) if line["object"]["guid"] in guids}
    assert landed.keys() == guids
    for entry in entries:
        assert landed[entry["guid"]]["kind"] == "stock"
        assert_is_whole(trip, landed[entry["guid"]]["object"], entry)
    products = {entry[id_] for entry in entries for id_ in ("guid", "multiLocationId")}
    figures = stock_figures(trip.table("inventory_levels", manifest))
    assert {product: found for product, found in figures.items() if product in products} == STOCK[name]


# Without the examples: the mechanism itself

DAY = date(2026, 3, 2)
#: It comes to what the payment of `order_get` does, whose GUID begins alike.
PAID = {
    "guid": "e8ce0000-0000-4000-8000-000000000001",
    "type": "CREDIT",
    "cardType": "VISA",
    "paymentStatus": "CAPTURED",
    "amount": 1.06,
    "tipAmount": 0,
    "originalProcessingFee": 0.04,
    "last4Digits": "1111",
    "paidBusinessDate": 20260302,
    "refund": {"refundAmount": 0.0, "refundBusinessDate": 20260305},
    "voidInfo": None,
}


def small_order(**more: Any) -> Json:
    order = order_of(PAID, x=[1.10, {"y": None}], **more)
    pie = {"guid": "s1", "item": {"guid": "i1"}, "displayName": "Pie", "quantity": 1, "preDiscountPrice": 1.0}
    order["checks"][0] |= {
        "guid": "c1",
        "totalAmount": 1.06,
        "amount": 1.0,
        "taxAmount": 0.06,
        "customer": {"firstName": "Jack"},
        "selections": [{**pie, "price": 1.0, "tax": 0.06}],
    }
    return order


def test_an_order_is_found_like_any_other(trip: RoundTrip) -> None:
    order = small_order()
    rows = land(trip, order)
    assert_rows_are_as_printed(rows, order)
    guid = order["guid"]
    assert trip.ask(f"/orders/v2/orders/{guid}") == order
    changed = {"startDate": "2026-03-03T09:00:00.000+0000", "endDate": "2026-03-03T09:00:00.001+0000"}
    assert trip.ask("/orders/v2/ordersBulk", **changed) == [order]
    before = {"startDate": "2026-03-03T08:00:00.000+0000", "endDate": "2026-03-03T09:00:00.000+0000"}
    assert trip.ask("/orders/v2/ordersBulk", **before) == []
    source = trip.runtime.source(trip.connection)
    (found,) = source.orders([guid])
    source.close()
    assert found.header is not None
    assert found.header.business_date == DAY


def true_orders(trip: RoundTrip) -> int:
    """Return how many orders of the merchant's the sandbox's truth counts."""
    return sum(day.orders for day in truth(trip.sandbox.world, merchant=HANDLE))


def test_an_order_stands_among_the_made_up_ones_on_their_pages(trip: RoundTrip) -> None:
    last = trip.sandbox.world.end_day
    assert last is not None
    made_up, truth_before = trip.sync(last).orders, true_orders(trip)
    assert truth_before > 0
    number = int(f"{last:%Y%m%d}")
    # Opened a day before: its business date is what it says.
    order = small_order(openedDate=f"{date.fromordinal(last.toordinal() - 1)}T17:00:00.000+0000", businessDate=number)
    trip.take("orders", order)
    manifest = trip.sync(last)
    assert manifest.orders == made_up + 1
    assert [one["guid"] for one in trip.stored(manifest)].count(order["guid"]) == 1
    pages = [
        [one["guid"] for one in trip.ask("/orders/v2/ordersBulk", businessDate=str(number), pageSize="7", page=str(n))]
        for n in range(1, made_up // 7 + 2)
    ]
    assert {len(page) for page in pages[:-1]} == {7}
    assert sum(len(page) for page in pages) == made_up + 1
    assert order["guid"] in {guid for page in pages for guid in page}
    assert trip.sync(date.fromordinal(last.toordinal() - 1)).orders == 0
    assert true_orders(trip) == truth_before


def test_a_menu_and_stock_stand_in_for_the_made_up(trip: RoundTrip) -> None:
    listed = {"guid": "i1", "multiLocationId": "101", "status": "QUANTITY", "quantity": 2.5, "versionId": "v"}
    plenty = {
        "guid": "i2",
        "multiLocationId": "102",
        "status": "IN_STOCK",
        "quantity": None,
        "itemGuidValidity": "VALID",
    }
    menu = menu_with(trip.here.id, [listed, plenty])
    trip.take("menus", {**menu, "menus": []})
    trip.take("menus", menu)
    for entry in ({**listed, "quantity": 9.0}, listed, plenty):
        trip.take("stock", entry)
    catalog, inventory = trip.read("catalog"), trip.read("inventory")
    assert [one["object"] for one in trip.stored(catalog) if one["kind"] == "menu"] == [exactly(json.dumps(menu))]
    assert {row["product_id"]: row["price"] for row in trip.table("products", catalog)} == {
        "101": D("1.5"),
        "102": D("1.5"),
    }
    landed = {one["object"]["guid"]: one["object"] for one in trip.stored(inventory)}
    assert (landed["i1"], landed["i2"]) == (exactly(json.dumps(listed)), exactly(json.dumps(plenty)))
    figures = stock_figures(trip.table("inventory_levels", inventory))
    assert (figures["101"], figures["102"]) == (("limited", D("2.5")), ("in_stock", None))
    assert "i2" not in {one["guid"] for one in trip.ask("/stock/v1/inventory")}


def test_other_restaurants_know_nothing_of_it(trip: RoundTrip) -> None:
    elsewhere = trip.sandbox.world.merchant(HANDLE).locations[1].id
    assert trip.post("orders", small_order(), elsewhere).status_code == 200
    assert trip.post("menus", {"menus": []}, elsewhere).status_code == 200
    assert trip.post("stock", {"guid": "i1", "status": "OUT_OF_STOCK"}, elsewhere).status_code == 200
    assert trip.sync(DAY).orders == 0
    assert trip.ask("/menus/v2/menus")["menus"]
    assert "i1" not in {one["guid"] for one in trip.ask("/stock/v1/inventory")}


@pytest.mark.parametrize(
    ("kind", "document", "says"),
    [
        ("payments", {"guid": "p1"}, "takes in no 'payments'"),
        ("orders", [small_order()], "must be a JSON object"),
        ("orders", small_order(openedDate=None), "neither `openedDate` nor `createdDate`"),
        ("orders", small_order(openedDate="yesterday"), "`openedDate` must be an instant"),
        ("orders", small_order(modifiedDate="2026-03-03"), "`modifiedDate` must be an instant"),
        ("orders", small_order(businessDate=None), "`businessDate` must be a number"),
        ("orders", small_order(businessDate=20261350), "`businessDate` must be a number"),
        ("orders", {**small_order(), "guid": None}, "no `guid`"),
    ],
)
def test_what_cannot_be_given_out_is_not_taken_in(trip: RoundTrip, kind: str, document: Any, says: str) -> None:
    answer = trip.post(kind, document)
    assert answer.status_code == 400
    assert says in answer.json()["error"]
    assert trip.sync(DAY).orders == 0


def test_an_order_is_taken_in_once(trip: RoundTrip) -> None:
    trip.take("orders", small_order())
    answer = trip.post("orders", small_order(businessDate=20260303))
    assert answer.status_code == 400
    assert "already" in answer.json()["error"]
    assert trip.sync(DAY).orders == 1
    assert trip.sync(date(2026, 3, 3)).orders == 0
