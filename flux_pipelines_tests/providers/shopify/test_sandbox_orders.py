"""Orders add up to the world's own figures, are found by Shopify's search, and change as the world does."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from flux_pipelines.domain.business_day import BusinessCalendar
from flux_pipelines_tests.providers.shopify.sandboxwire import Clock, Shopify, sandbox_of
from flux_sandbox.pricing import price
from flux_sandbox.server import RunningSandbox
from flux_sandbox.shopify.ids import exponent, legacy
from flux_sandbox.truth import truth

BAG = "{ shopMoney { amount currencyCode } presentmentMoney { amount currencyCode } }"
SALES = f"""nodes {{ __typename reason happenedAt sales(first: 8) {{ nodes {{
  __typename actionType lineType quantity totalAmount {BAG} totalTaxAmount {BAG} totalDiscountAmountBeforeTaxes {BAG}
  ... on ProductSale {{ lineItem {{ id }} }}
}} }} }}"""
ORDER = f"""
id legacyResourceId name test sourceName createdAt processedAt updatedAt cancelledAt closedAt currencyCode
presentmentCurrencyCode taxesIncluded displayFinancialStatus returnStatus edited retailLocation {{ legacyResourceId }}
fulfillments {{ status location {{ legacyResourceId }} }}
totalPriceSet {BAG} currentTotalPriceSet {BAG} netPaymentSet {BAG} totalOutstandingSet {BAG}
totalCashRoundingAdjustment {{ paymentSet {BAG} refundSet {BAG} }}
lineItems(first: 6) {{ nodes {{
  id title sku quantity currentQuantity isGiftCard variant {{ legacyResourceId }} originalUnitPriceSet {BAG}
}} }}
transactions {{ id kind status amountSet {BAG} amountRoundingSet {BAG} parentTransaction {{ id }} fees {{ amount {{ amount }} }} }}
refunds {{ id orderAdjustments(first: 1) {{ nodes {{ amountSet {BAG} }} }} }}
agreements(first: 4) {{ {SALES} }}
"""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    with sandbox_of(Clock(), history_days=12) as running:
        yield running


@pytest.fixture(scope="module", params=["harbor-shop", "fjord-shop"])
def shopify(sandbox: RunningSandbox, request: pytest.FixtureRequest) -> Shopify:
    return Shopify(sandbox, request.param)


@pytest.fixture(scope="module")
def orders(shopify: Shopify) -> list[Any]:
    return shopify.every("orders", ORDER, 2, sortKey="CREATED_AT")  # more a page would cost more than one query may


def minor(bag: Any) -> int:
    money = bag["shopMoney"]
    return int(Decimal(money["amount"]).scaleb(exponent(money["currencyCode"])))


def total(bags: Any, name: str) -> int:
    return sum(minor(bag[name]) for bag in bags)


def sales_of(order: Any, *reasons: str) -> list[Any]:
    found = [one for one in order["agreements"]["nodes"] if not reasons or one["reason"] in reasons]
    return [sale for one in found for sale in one["sales"]["nodes"]]


def test_every_order_is_there_and_adds_up(shopify: Shopify, orders: list[Any]) -> None:
    world = shopify.sandbox.world
    own = {one.id for one in shopify.merchant.locations}
    sales = {legacy("Order", s.id): s for s in world.sales.values() if s.location.id in own and world.is_order(s)}
    assert sorted(int(one["legacyResourceId"]) for one in orders) == sorted(sales)
    seen: Counter[str] = Counter()
    for order in orders:
        sale = sales[int(order["legacyResourceId"])]
        figures = price(sale)
        rounding = order["totalCashRoundingAdjustment"]
        lines, placed = order["lineItems"]["nodes"], sales_of(order, "ORDER")
        paid = minor(rounding["paymentSet"])
        if sale.state == "COMPLETED":
            assert minor(order["totalPriceSet"]) + paid == figures.total
        assert total(placed, "totalAmount") == minor(order["totalPriceSet"])
        tax = sum(line.tax for line in figures.lines) + sum(charge.tax for charge in figures.charges)
        assert total(placed, "totalTaxAmount") == tax
        discounts = sum(line.discount for line in figures.lines)
        assert total(placed, "totalDiscountAmountBeforeTaxes") == discounts
        tip = [one for one in placed if one["lineType"] == "TIP"]
        assert total(tip, "totalAmount") == figures.tip
        assert [line["title"] for line in lines].count("Tip") == len(tip) == bool(figures.tip)
        shipping = total([one for one in placed if one["lineType"] == "SHIPPING"], "totalAmount")
        assert shipping == sum(charge.total for charge in figures.charges)
        goods = sum(minor(line["originalUnitPriceSet"]) * line["quantity"] for line in lines)
        added = 0 if order["taxesIncluded"] else tax
        charges = sum(charge.applied for charge in figures.charges)
        assert goods - discounts + added + charges == minor(order["totalPriceSet"])
        current = minor(order["currentTotalPriceSet"])
        given_back = sum(price(one).returns[0].total for one in world.refunds_of(sale))
        if sale.state == "CANCELED":
            assert (current, order["displayFinancialStatus"]) == (0, "VOIDED")
        elif sale.state == "COMPLETED":
            back = sales_of(order, "REFUND")
            assert -total(back, "totalAmount") + minor(rounding["refundSet"]) == given_back
            assert current + paid - minor(rounding["refundSet"]) == figures.total - given_back
            received = [one for one in order["transactions"] if one["kind"] == "SALE" and one["status"] == "SUCCESS"]
            if not sale.test:
                assert total(received, "amountSet") == figures.total
                assert minor(order["netPaymentSet"]) == figures.total - given_back
            assert [one for one in received if one["amountRoundingSet"]] == [] or paid
            adjusted = [bag for one in order["refunds"] for bag in one["orderAdjustments"]["nodes"]]
            moved = [one for one in back if one["lineType"] == "ADJUSTMENT"]
            assert total(adjusted, "amountSet") == total(moved, "totalAmount")
            seen["money alone"] += bool(moved)
            seen["shipping back"] += any(one["lineType"] == "SHIPPING" for one in back)
        seen[f"state {sale.state}"] += 1
        seen["refunded"] += bool(order["refunds"])
        seen["web"] += order["sourceName"] == "web"
        seen["pos"] += order["retailLocation"] is not None
        seen["two parcels"] += len(order["fulfillments"]) > 1
        seen["other currency"] += order["presentmentCurrencyCode"] != order["currencyCode"]
        seen["fees"] += any(one["fees"] for one in order["transactions"])
        seen["tips"] += bool(tip)
        assert order["currencyCode"] == shopify.merchant.currency
        assert (order["sourceName"] == "web") == (order["retailLocation"] is None)
        assert order["test"] == sale.test
    wanted = {"state COMPLETED", "state CANCELED", "refunded", "web", "pos", "two parcels", "fees"}
    wanted |= {"other currency"} if shopify.shop == "fjord-shop" else set()
    assert {name for name, count in seen.items() if count} >= wanted, seen


def test_days_are_those_of_the_truth(shopify: Shopify, orders: list[Any]) -> None:
    calendar = BusinessCalendar(shopify.merchant.locations[0].timezone, 0)
    days: dict[tuple[str, Any], int] = defaultdict(int)
    shop = shopify.ask("{ shop { id } }")["shop"]["id"].rsplit("/", 1)[-1]

    def add(place: str, at: str, amount: int) -> None:
        days[place, calendar.date_of(datetime.fromisoformat(at))] += amount

    # Every order on the day it was placed, refunds and cancellations on theirs: help.shopify.com, the sales reports.
    for order in orders:
        if order["test"]:
            continue
        place = order["retailLocation"]["legacyResourceId"] if order["retailLocation"] else shop
        rounding = order["totalCashRoundingAdjustment"]
        for one in order["agreements"]["nodes"]:
            add(place, one["happenedAt"], total(one["sales"]["nodes"], "totalAmount"))
        add(place, order["processedAt"], minor(rounding["paymentSet"]))
        if minor(rounding["refundSet"]):
            add(place, order["agreements"]["nodes"][-1]["happenedAt"], -minor(rounding["refundSet"]))
    known = truth(shopify.sandbox.world, merchant=shopify.shop)
    expected = {(str(legacy("Location", day.location_id)), day.business_date): day.total for day in known}
    assert {key: days.get(key, 0) for key in expected} == expected
    assert sum(expected.values()) > 0


def test_search(shopify: Shopify, orders: list[Any]) -> None:
    def names(query: str, **args: str) -> list[str]:
        found = shopify.every("orders", "name", 250, query=f'"{query}"', **args)
        return [one["name"] for one in found]

    def expected(test: Any) -> set[str]:
        return {order["name"] for order in orders if test(order)}

    low, high = "2026-10-24T00:00:00Z", "2026-10-29T12:30:00Z"
    between = f"updated_at:>='{low}' AND updated_at:<'{high}'"
    assert set(names(between)) == expected(lambda o: low <= o["updatedAt"] < high) != set()
    ends = f"created_at:>'{low}' created_at:<='{high}'"
    assert set(names(ends)) == expected(lambda o: low < o["createdAt"] <= high)
    zoned = "processed_at:>='2026-10-24T02:00:00+02:00' AND processed_at:<2026-10-27"
    assert set(names(zoned)) == expected(lambda o: low <= o["processedAt"] < "2026-10-27T00:00:00Z")
    for key, field in (("UPDATED_AT", "updatedAt"), ("CREATED_AT", "createdAt"), ("PROCESSED_AT", "processedAt")):

        def moment(order: Any, field: str = field) -> tuple[str, int]:
            return order[field], int(order["legacyResourceId"])

        ascending = [order["name"] for order in sorted(orders, key=moment)]
        assert names("", sortKey=key) == ascending
    odd = shopify.post('{ orders(first: 2, query: "colour:red AND updated_at:>=whenever") { nodes { id } } }').json()
    assert len(odd["data"]["orders"]["nodes"]) == 2  # as Shopify does it: what is not understood does not count
    (told,) = odd["extensions"]["search"]
    assert [one["code"] for one in told["warnings"]] == ["invalid_field", "invalid_value"]
    for unplayed in ("updated_at:>=2026-10-24 OR test:true", "NOT test:true", "(test:true)", "coffee"):
        (error,) = shopify.errors("query($q: String) { orders(first: 1, query: $q) { nodes { id } } }", q=unplayed)
        assert error["extensions"]["code"] == "SANDBOX_DOES_NOT_PLAY"


def test_pages_and_bad_cursors(shopify: Shopify) -> None:
    text = """query($first: Int, $after: String, $key: OrderSortKeys!) {
      orders(first: $first, after: $after, sortKey: $key) {
        pageInfo { hasNextPage endCursor } edges { cursor node { id } } } }"""
    first = shopify.ask(text, first=5, key="CREATED_AT")["orders"]
    assert first["pageInfo"] == {"hasNextPage": True, "endCursor": first["edges"][-1]["cursor"]}
    second = shopify.ask(text, first=5, after=first["edges"][1]["cursor"], key="CREATED_AT")["orders"]
    assert second["edges"][:3] == first["edges"][2:]
    for cursor, key in (
        (first["pageInfo"]["endCursor"], "UPDATED_AT"),
        ("nonsense", "CREATED_AT"),
        ("WzFd", "CREATED_AT"),
    ):
        (error,) = shopify.errors(text, first=5, after=cursor, key=key)
        assert error["message"] == "Invalid cursor for current pagination sort."
    assert shopify.errors(text, key="CREATED_AT")[0]["extensions"]["code"] == "BAD_REQUEST"
    ids = [edge["node"]["id"] for edge in first["edges"]]
    nodes = "query($ids: [ID!]!) { nodes(ids: $ids) { id ... on Order { name } } }"
    found = shopify.ask(nodes, ids=[*ids, "gid://shopify/Order/1"])["nodes"]
    assert [one and one["id"] for one in found] == [*ids, None]
    assert shopify.errors(nodes, ids=ids * 60)[0]["extensions"]["code"] == "MAX_INPUT_SIZE_EXCEEDED"
    assert "Invalid global id" in shopify.errors(nodes, ids=["17"])[0]["message"]


def test_without_the_scope_history_ends_after_sixty_days() -> None:
    clock = Clock()
    with sandbox_of(clock, history_days=8) as running:
        shopify, short = Shopify(running), Shopify(running, scopes=["read_orders"])
        everything = shopify.every("orders", "id processedAt", 250)
        assert short.every("orders", "id processedAt", 250) == everything
        clock.forward(days=55)
        shopify.sign_in()
        short.sign_in(scopes=["read_orders"])
        assert shopify.every("orders", "id processedAt", 250) == everything
        seen = short.every("orders", "id processedAt", 250)
        assert seen == [one for one in everything if one["processedAt"] >= "2026-10-30T12:00:00Z"]
        assert 0 < len(seen) < len(everything)
        query = "query($id: ID!) { node(id: $id) { id } }"
        assert short.ask(query, id=everything[0]["id"]) == {"node": None}
        assert shopify.ask(query, id=everything[0]["id"])["node"] == {"id": everything[0]["id"]}


_AGREEMENTS = f"id currentTotalPriceSet {BAG} agreements(first: 5) {{ {SALES} }}"


def test_agreements_come_to_what_orders_are_worth(shopify: Shopify) -> None:
    """Every order's sales add up to its current total: as it was placed, what came back, what was cancelled."""
    found = shopify.every("orders", _AGREEMENTS, 3, sortKey="CREATED_AT")
    kinds: Counter[str] = Counter()
    for order in found:
        agreements = order["agreements"]["nodes"]
        sales = [sale for one in agreements for sale in one["sales"]["nodes"]]
        assert total(sales, "totalAmount") == minor(order["currentTotalPriceSet"])
        assert agreements[0]["reason"] == "ORDER"
        assert [one["happenedAt"] for one in agreements] == sorted(one["happenedAt"] for one in agreements)
        kinds.update(one["__typename"] for one in agreements)
        kinds.update(f"{sale['lineType']} {sale['actionType']}" for sale in sales)
    assert set(kinds) >= {"OrderAgreement", "RefundAgreement", "PRODUCT ORDER", "PRODUCT RETURN", "SHIPPING ORDER"}


def test_an_edit_is_an_agreement_of_what_it_changed() -> None:
    clock = Clock()
    with sandbox_of(clock) as running:
        shopify, world = Shopify(running), running.world
        goods = [(shopify.merchant.items[0], 2), (shopify.merchant.items[4], 1)]
        sale = world.sell(shopify.merchant.locations[1].id, goods=goods)
        clock.forward(minutes=5)
        world.edit(sale.id, add_units=1)
        clock.forward(minutes=5)
        world.refund(sale.id, [0])
        query = f"query($id: ID!) {{ node(id: $id) {{ ... on Order {{ {_AGREEMENTS} }} }} }}"
        order = shopify.ask(query, id=f"gid://shopify/Order/{sale.id}")["node"]
        placed, edited, refunded = order["agreements"]["nodes"]
        assert [one["reason"] for one in (placed, edited, refunded)] == ["ORDER", "ORDER_EDIT", "REFUND"]
        assert [one["quantity"] for one in placed["sales"]["nodes"]] == [2, 1]
        (more,) = edited["sales"]["nodes"]
        assert (more["actionType"], more["quantity"]) == ("ORDER", 1)
        assert 2 * minor(more["totalAmount"]) == minor(placed["sales"]["nodes"][0]["totalAmount"])
        (back,) = refunded["sales"]["nodes"]
        assert (back["actionType"], back["quantity"]) == ("RETURN", -3)
        assert placed["happenedAt"] < edited["happenedAt"] < refunded["happenedAt"]


def test_orders_change_as_the_world_does() -> None:
    clock = Clock()
    with sandbox_of(clock) as running:
        shopify, world = Shopify(running), running.world
        sale = world.sell(
            shopify.merchant.locations[1].id, goods=[(shopify.merchant.items[0], 2), (shopify.merchant.items[4], 1)]
        )
        query = f"query($id: ID!) {{ node(id: $id) {{ ... on Order {{ {ORDER} }} }} }}"
        id_ = f"gid://shopify/Order/{sale.id}"

        def order() -> Any:
            return shopify.ask(query, id=id_)["node"]

        before = order()
        assert (before["displayFinancialStatus"], before["edited"]) == ("PAID", False)
        assert [line["quantity"] for line in before["lineItems"]["nodes"]] == [2, 1]
        clock.forward(minutes=5)
        world.edit(sale.id, add_units=1)
        edited = order()
        assert edited["edited"] is True
        assert [line["quantity"] for line in edited["lineItems"]["nodes"]] == [3, 1]
        assert edited["updatedAt"] > before["updatedAt"]
        clock.forward(minutes=5)
        world.refund(sale.id, [0])
        partly = order()
        assert partly["displayFinancialStatus"] == "PARTIALLY_REFUNDED"
        assert [line["currentQuantity"] for line in partly["lineItems"]["nodes"]] == [0, 1]
        assert [line["quantity"] for line in partly["lineItems"]["nodes"]] == [3, 1]
        assert minor(partly["totalPriceSet"]) == minor(edited["totalPriceSet"])
        (money,) = [one for one in partly["transactions"] if one["kind"] == "REFUND"]
        left = minor(edited["totalPriceSet"]) - minor(money["amountSet"])
        assert (minor(partly["currentTotalPriceSet"]), partly["returnStatus"]) == (left, "RETURNED")
        assert money["parentTransaction"]["id"] == partly["transactions"][0]["id"]
        clock.forward(minutes=5)
        world.refund(sale.id, [1])
        assert order()["displayFinancialStatus"] == "REFUNDED"
        assert len(order()["refunds"]) == 2
        found = shopify.every("orders", "name", query="\"updated_at:>='2026-11-04T12:14:00Z'\"")
        assert [one["name"] for one in found] == [before["name"]]
        late = world.sell_late(30.0, shopify.merchant.locations[1].id)
        id_ = f"gid://shopify/Order/{late.id}"
        assert order()["processedAt"] < order()["createdAt"] <= order()["updatedAt"]
        for kind in ("types", "totals", "currency", "timestamp"):
            id_ = f"gid://shopify/Order/{world.malform(kind, shopify.merchant.locations[1].id).id}"
            answer = shopify.post(
                "query($id: ID!) { node(id: $id) { ... on Order { processedAt currentTotalPriceSet { shopMoney { amount currencyCode } } } } }",
                id=id_,
            )
            shown = answer.json()["data"]["node"]
            money = shown["currentTotalPriceSet"]["shopMoney"]
            odd = {"types": money["amount"] == "twelve", "totals": money["amount"] == "99999999.99"}
            odd |= {"currency": money["currencyCode"] == "XXQ", "timestamp": shown["processedAt"] == "yesterday"}
            assert odd[kind]


def test_goods_stock_and_deletions() -> None:
    clock = Clock()
    with sandbox_of(clock) as running:
        shopify, world = Shopify(running), running.world
        merchant = shopify.merchant
        products = shopify.every(
            "products",
            "id title status variants(first: 20) { nodes { id legacyResourceId sku barcode price inventoryItem { id tracked } } }",
            10,
        )
        shown = {int(one["legacyResourceId"]): one for product in products for one in product["variants"]["nodes"]}
        assert set(shown) == {legacy("ProductVariant", item.id) for item in merchant.items}
        for item in merchant.items:
            one = shown[legacy("ProductVariant", item.id)]
            assert (one["sku"] or "", Decimal(one["price"]) * 100) == (item.sku, item.price)
        levels = {}
        names = '["available", "on_hand", "committed"]'
        inner = f"inventoryLevels(first: 100) {{ nodes {{ item {{ id }} quantities(names: {names}) {{ name quantity }} }} }}"
        for place in shopify.every("locations", f"legacyResourceId {inner}", 5):
            for level in place["inventoryLevels"]["nodes"]:
                levels[int(place["legacyResourceId"]), int(level["item"]["id"].rsplit("/", 1)[-1])] = level[
                    "quantities"
                ][0]["quantity"]
        expected = {
            (legacy("Location", location), legacy("InventoryItem", item)): count.quantity
            for (location, item), count in merchant.counts.items()
        }
        assert levels == expected != {}
        wrong = '{ locations(first: 1) { nodes { inventoryLevels(first: 1) { nodes { quantities(names: ["nonsense"]) { quantity } } } } } }'
        assert "quantity names nonsense" in shopify.errors(wrong)[0]["message"]
        clock.forward(minutes=1)
        item = merchant.items[0]
        world.set_stock(merchant.locations[0].id, item.id, 321)
        text = f"query($id: ID!) {{ location(id: $id) {{ {inner.replace('quantity }', 'quantity updatedAt }')} }} }}"
        shown_now = shopify.ask(text, id=f"gid://shopify/Location/{merchant.locations[0].id}")["location"]
        (now,) = [
            level["quantities"][0]
            for level in shown_now["inventoryLevels"]["nodes"]
            if level["item"]["id"].endswith(f"/{item.id}")
        ]
        assert now == {"name": "available", "quantity": 321, "updatedAt": "2026-11-04T12:01:00Z"}
        world.change_item(merchant, item.id, price=4321)
        prices = shopify.every("products", "variants(first: 20) { nodes { legacyResourceId price } }", 10)
        variants = [one for product in prices for one in product["variants"]["nodes"]]
        assert {"legacyResourceId": item.id, "price": "43.21"} in variants
        alone = next(one for one in merchant.items if one.name == "Decaf")
        world.delete_item(merchant, alone.id)
        assert alone.name not in {one["title"] for one in shopify.every("products", "title")}
        events = shopify.every(
            "events",
            "... on BasicEvent { action subjectId subjectType createdAt }",
            query='"action:destroy AND subject_type:Product"',
            sortKey="CREATED_AT",
        )
        assert (events[-1]["action"], events[-1]["subjectId"]) == (
            "destroy",
            f"gid://shopify/Product/{alone.product_id}",
        )
