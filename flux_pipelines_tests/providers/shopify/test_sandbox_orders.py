"""Orders add up to the world's own figures, are found by Shopify's search, and change as the world does."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
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
ORDER = f"""
id legacyResourceId name test sourceName createdAt processedAt updatedAt cancelledAt closedAt currencyCode
presentmentCurrencyCode taxesIncluded displayFinancialStatus retailLocation {{ legacyResourceId }}
fulfillments {{ status location {{ legacyResourceId }} totalQuantity }}
totalPriceSet {BAG} currentTotalPriceSet {BAG} subtotalPriceSet {BAG} totalTaxSet {BAG} totalShippingPriceSet {BAG}
totalDiscountsSet {BAG} totalTipReceivedSet {BAG} totalRefundedSet {BAG} netPaymentSet {BAG} totalOutstandingSet {BAG}
currentTotalTaxSet {BAG}
totalCashRoundingAdjustment {{ paymentSet {BAG} refundSet {BAG} }}
taxLines {{ priceSet {BAG} }}
customer {{ firstName lastName email phone defaultAddress {{ address1 city }} }} email
lineItems(first: 50) {{ nodes {{
  id title sku quantity currentQuantity isGiftCard variant {{ legacyResourceId }} originalUnitPriceSet {BAG}
  originalTotalSet {BAG} discountAllocations {{ allocatedAmountSet {BAG} }} taxLines {{ priceSet {BAG} }}
}} }}
shippingLines(first: 5) {{ nodes {{ originalPriceSet {BAG} taxLines {{ priceSet {BAG} }} }} }}
transactions {{ id kind status amountSet {BAG} amountRoundingSet {BAG} parentTransaction {{ id }} fees {{ amount {{ amount }} }} }}
refunds {{
  id createdAt totalRefundedSet {BAG}
  refundLineItems(first: 50) {{ nodes {{ quantity lineItem {{ id title }} subtotalSet {BAG} totalTaxSet {BAG} }} }}
  refundShippingLines(first: 5) {{ nodes {{ subtotalAmountSet {BAG} taxAmountSet {BAG} }} }}
  orderAdjustments(first: 5) {{ nodes {{ amountSet {BAG} }} }}
  transactions(first: 5) {{ nodes {{ kind amountSet {BAG} }} }}
}}
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
    # Few a page: more would cost more than one query may.
    node = ORDER.replace("first: 50", "first: 6").replace("first: 5)", "first: 1)")
    return shopify.every("orders", node, 2, sortKey="CREATED_AT")


def minor(bag: Any) -> int:
    money = bag["shopMoney"]
    return int(Decimal(money["amount"]).scaleb(exponent(money["currencyCode"])))


def total(bags: Any, name: str) -> int:
    return sum(minor(bag[name]) for bag in bags)


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
        lines, shipping = order["lineItems"]["nodes"], order["shippingLines"]["nodes"]
        paid = minor(rounding["paymentSet"])
        if sale.state == "COMPLETED":
            assert minor(order["totalPriceSet"]) + paid == figures.total
        tip = [line for line in lines if line["title"] == "Tip"]
        assert total(tip, "originalTotalSet") == minor(order["totalTipReceivedSet"]) == figures.tip
        taxes = [tax for line in [*lines, *shipping] for tax in line["taxLines"]]
        assert total(taxes, "priceSet") == minor(order["totalTaxSet"]) == total(order["taxLines"], "priceSet")
        discounts = [one for line in lines for one in line["discountAllocations"]]
        assert total(discounts, "allocatedAmountSet") == minor(order["totalDiscountsSet"])
        goods = total(lines, "originalTotalSet") - minor(order["totalDiscountsSet"]) - figures.tip
        assert goods == minor(order["subtotalPriceSet"])
        added = 0 if order["taxesIncluded"] else minor(order["totalTaxSet"])
        assert total(shipping, "originalPriceSet") == minor(order["totalShippingPriceSet"])
        whole = goods + figures.tip + added + minor(order["totalShippingPriceSet"])
        assert whole == minor(order["totalPriceSet"])
        for line in lines:
            assert minor(line["originalUnitPriceSet"]) * line["quantity"] == minor(line["originalTotalSet"])
        back = 0
        for refund in order["refunds"]:
            parts, sent = refund["refundLineItems"]["nodes"], refund["refundShippingLines"]["nodes"]
            amount = total(parts, "subtotalSet") + total(sent, "subtotalAmountSet")
            if not order["taxesIncluded"]:
                amount += total(parts, "totalTaxSet") + total(sent, "taxAmountSet")
            amount -= total(refund["orderAdjustments"]["nodes"], "amountSet")
            money = total(refund["transactions"]["nodes"], "amountSet")
            assert money == minor(refund["totalRefundedSet"])
            if sale.state == "CANCELED":  # nobody had paid for what is taken back
                assert (amount, money) == (minor(order["totalPriceSet"]), 0)
                continue
            back += amount
            seen["shipping back"] += bool(sent)
            seen["money alone"] += not parts
        current = minor(order["currentTotalPriceSet"])
        given_back = sum(price(one).returns[0].total for one in world.refunds_of(sale))
        assert minor(order["totalRefundedSet"]) == given_back == back + minor(rounding["refundSet"])
        if sale.state == "CANCELED":
            assert (current, order["displayFinancialStatus"]) == (0, "VOIDED")
        elif sale.state == "COMPLETED":
            assert current + paid - minor(rounding["refundSet"]) == figures.total - given_back
            received = [one for one in order["transactions"] if one["kind"] == "SALE" and one["status"] == "SUCCESS"]
            if not sale.test:
                assert total(received, "amountSet") == figures.total
                assert minor(order["netPaymentSet"]) == figures.total - given_back
            assert [one for one in received if one["amountRoundingSet"]] == [] or paid
        seen[f"state {sale.state}"] += 1
        seen["refunded"] += bool(order["refunds"])
        seen["web"] += order["sourceName"] == "web"
        seen["pos"] += order["retailLocation"] is not None
        seen["two parcels"] += len(order["fulfillments"]) > 1
        seen["other currency"] += order["presentmentCurrencyCode"] != order["currencyCode"]
        seen["person"] += order["customer"] is not None
        seen["fees"] += any(one["fees"] for one in order["transactions"])
        seen["tips"] += bool(tip)
        assert order["currencyCode"] == shopify.merchant.currency
        assert (order["sourceName"] == "web") == (order["retailLocation"] is None)
        assert order["test"] == sale.test
    wanted = {"state COMPLETED", "state CANCELED", "refunded", "web", "pos", "two parcels", "person", "fees"}
    wanted |= {"other currency"} if shopify.shop == "fjord-shop" else set()
    assert {name for name, count in seen.items() if count} >= wanted, seen


def test_days_are_those_of_the_truth(shopify: Shopify, orders: list[Any]) -> None:
    calendar = BusinessCalendar(shopify.merchant.locations[0].timezone, 0)
    days: dict[tuple[str, Any], int] = defaultdict(int)
    shop = shopify.ask("{ shop { id } }")["shop"]["id"].rsplit("/", 1)[-1]
    from datetime import datetime

    def add(place: str, at: str, amount: int) -> None:
        days[place, calendar.date_of(datetime.fromisoformat(at))] += amount

    # Every order on the day it was placed, refunds and cancellations on theirs: help.shopify.com, the sales reports.
    for order in orders:
        if order["test"]:
            continue
        place = order["retailLocation"]["legacyResourceId"] if order["retailLocation"] else shop
        paid = minor(order["totalCashRoundingAdjustment"]["paymentSet"])
        add(place, order["processedAt"], minor(order["totalPriceSet"]) + paid)
        if order["cancelledAt"]:
            add(place, order["cancelledAt"], -minor(order["totalPriceSet"]))
        for refund in order["refunds"]:
            add(place, refund["createdAt"], -total(refund["transactions"]["nodes"], "amountSet"))
    known = truth(shopify.sandbox.world, merchant=shopify.shop)
    expected = {(str(legacy("Location", day.location_id)), day.business_date): day.total for day in known}
    assert {key: days.get(key, 0) for key in expected} == expected
    assert sum(expected.values()) > 0


def test_personal_data_is_there_to_be_removed(orders: list[Any]) -> None:
    people = [order["customer"] for order in orders if order["customer"]]
    assert all(one["email"] and one["phone"] and one["defaultAddress"]["address1"] for one in people)


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
    assert set(names("status:cancelled")) == expected(lambda o: o["cancelledAt"])
    assert set(names("NOT status:cancelled")) == expected(lambda o: not o["cancelledAt"])
    assert set(names("status:any")) == expected(lambda _: True)
    kinds = "financial_status:refunded OR financial_status:partially_refunded"
    assert set(names(kinds)) == expected(lambda o: o["refunds"] and not o["cancelledAt"]) != set()
    at_counters = expected(lambda o: o["refunds"] and o["retailLocation"] and not o["cancelledAt"])
    assert set(names(f"({kinds}) AND source_name:pos")) == at_counters
    one = orders[7]
    assert names(f"id:{one['legacyResourceId']}") == names(f"name:{one['name']}") == [one["name"]]
    assert set(names("test:false")) == expected(lambda o: not o["test"])
    for key, field in (("UPDATED_AT", "updatedAt"), ("CREATED_AT", "createdAt"), ("PROCESSED_AT", "processedAt")):

        def moment(order: Any, field: str = field) -> tuple[str, int]:
            return order[field], int(order["legacyResourceId"])

        ascending = [order["name"] for order in sorted(orders, key=moment)]
        assert names("", sortKey=key) == ascending
        assert names("", sortKey=key, reverse="true") == ascending[::-1]
    count = "query($q: String) { ordersCount(query: $q, limit: null) { count precision } }"
    assert shopify.ask(count, q=between)["ordersCount"] == {"count": len(names(between)), "precision": "EXACT"}
    odd = shopify.post('{ orders(first: 2, query: "colour:red AND updated_at:>=whenever") { nodes { id } } }').json()
    assert len(odd["data"]["orders"]["nodes"]) == 2  # as Shopify does it: what is not understood does not count
    (told,) = odd["extensions"]["search"]
    assert [one["code"] for one in told["warnings"]] == ["invalid_field", "invalid_value"]


def test_pages_back_and_forth_and_bad_cursors(shopify: Shopify) -> None:
    text = """query($first: Int, $last: Int, $after: String, $before: String, $key: OrderSortKeys!) {
      orders(first: $first, last: $last, after: $after, before: $before, sortKey: $key) {
        pageInfo { hasNextPage hasPreviousPage startCursor endCursor } edges { cursor node { id } } } }"""
    first = shopify.ask(text, first=5, key="CREATED_AT")["orders"]
    second = shopify.ask(text, first=5, after=first["pageInfo"]["endCursor"], key="CREATED_AT")["orders"]
    assert not first["pageInfo"]["hasPreviousPage"]
    assert second["pageInfo"]["hasPreviousPage"]
    again = shopify.ask(text, last=5, before=second["pageInfo"]["startCursor"], key="CREATED_AT")["orders"]
    assert again["edges"] == first["edges"]
    for cursor, key in (
        (first["pageInfo"]["endCursor"], "UPDATED_AT"),
        ("nonsense", "CREATED_AT"),
        ("WzFd", "CREATED_AT"),
    ):
        (error,) = shopify.errors(text, first=5, after=cursor, key=key)
        assert error["message"] == "Invalid cursor for current pagination sort."
    assert shopify.errors(text, first=1, last=1, key="ID")[0]["extensions"]["code"] == "BAD_REQUEST"
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
        query = "query($id: ID!) { order(id: $id) { id } }"
        assert short.ask(query, id=everything[0]["id"]) == {"order": None}
        assert shopify.ask(query, id=everything[0]["id"])["order"] == {"id": everything[0]["id"]}


_AGREEMENTS = f"""
id currentTotalPriceSet {BAG} agreements(first: 5) {{ nodes {{ __typename reason happenedAt sales(first: 8) {{ nodes {{
  __typename actionType lineType quantity totalAmount {BAG} ... on ProductSale {{ lineItem {{ id }} }}
}} }} }} }}
"""


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
        query = f"query($id: ID!) {{ order(id: $id) {{ {_AGREEMENTS} }} }}"
        order = shopify.ask(query, id=f"gid://shopify/Order/{sale.id}")["order"]
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
        query = f"query($id: ID!) {{ order(id: $id) {{ edited totalQuantity: subtotalLineItemsQuantity {ORDER} }} }}"
        id_ = f"gid://shopify/Order/{sale.id}"

        def order() -> Any:
            return shopify.ask(query.replace("first: 50", "first: 3").replace("first: 5)", "first: 1)"), id=id_)[
                "order"
            ]

        before = order()
        assert (before["displayFinancialStatus"], before["edited"], before["totalQuantity"]) == ("PAID", False, 3)
        clock.forward(minutes=5)
        world.edit(sale.id, add_units=1)
        edited = order()
        assert (edited["edited"], edited["totalQuantity"]) == (True, 4)
        assert edited["updatedAt"] > before["updatedAt"]
        clock.forward(minutes=5)
        world.refund(sale.id, [0])
        partly = order()
        assert partly["displayFinancialStatus"] == "PARTIALLY_REFUNDED"
        assert [line["currentQuantity"] for line in partly["lineItems"]["nodes"]] == [0, 1]
        assert [line["quantity"] for line in partly["lineItems"]["nodes"]] == [3, 1]
        assert minor(partly["totalPriceSet"]) == minor(edited["totalPriceSet"])
        left = minor(edited["totalPriceSet"]) - minor(partly["totalRefundedSet"])
        assert minor(partly["currentTotalPriceSet"]) == left
        (money,) = [one for one in partly["transactions"] if one["kind"] == "REFUND"]
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
                "query($id: ID!) { order(id: $id) { processedAt currentTotalPriceSet { shopMoney { amount currencyCode } } } }",
                id=id_,
            )
            shown = answer.json()["data"]["order"]
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
        inner = f"inventoryLevels(first: 100) {{ nodes {{ item {{ legacyResourceId }} quantities(names: {names}) {{ name quantity }} }} }}"
        for place in shopify.every("locations", f"legacyResourceId {inner}", 5):
            for level in place["inventoryLevels"]["nodes"]:
                levels[int(place["legacyResourceId"]), int(level["item"]["legacyResourceId"])] = level["quantities"][0][
                    "quantity"
                ]
        expected = {
            (legacy("Location", location), legacy("InventoryItem", item)): count.quantity
            for (location, item), count in merchant.counts.items()
        }
        assert levels == expected != {}
        assert (
            "quantity names nonsense"
            in shopify.errors(
                '{ inventoryItems(first: 1) { nodes { inventoryLevels(first: 1) { nodes { quantities(names: ["nonsense"]) { quantity } } } } } }'
            )[0]["message"]
        )
        clock.forward(minutes=1)
        item = merchant.items[0]
        world.set_stock(merchant.locations[0].id, item.id, 321)
        level = f"gid://shopify/InventoryLevel/{merchant.locations[0].id}?inventory_item_id={item.id}"
        text = 'query($id: ID!) { inventoryLevel(id: $id) { quantities(names: ["available"]) { quantity updatedAt } } }'
        (now,) = shopify.ask(text, id=level)["inventoryLevel"]["quantities"]
        assert now == {"quantity": 321, "updatedAt": "2026-11-04T12:01:00Z"}
        world.change_item(merchant, item.id, price=4321)
        found = shopify.every(
            "productVariants", "legacyResourceId price", query="\"updated_at:>='2026-11-04T12:00:30Z'\""
        )
        assert found == [{"legacyResourceId": item.id, "price": "43.21"}]
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
