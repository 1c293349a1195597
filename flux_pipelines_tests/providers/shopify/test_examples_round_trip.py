"""Every published example that holds an order, payment, product or count goes through the sandbox and comes back whole.

Shopify publishes no GraphQL examples: its REST examples are given their GraphQL names (`nodes`), put into a running sandbox over
HTTP, collected by the client and the engine, page by page and by a bulk operation, and compared with what went in; and the
rows of a real lake with what is printed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from flux_pipelines.runtime import Runtime
from flux_pipelines_tests.providers.shopify import published
from flux_pipelines_tests.providers.shopify.asked import LEVELS, PRODUCTS, wired
from flux_pipelines_tests.providers.shopify.handwritten import line, made
from flux_pipelines_tests.providers.shopify.nodes import bag, level, order, product
from flux_pipelines_tests.providers.shopify.roundtrip import round_trip, shop_of

Json = dict[str, Any]
Rows = list[Json]
#: Shopify's own store that goods of the examples are sent from: here it is the sandbox's second one.
SENT_FROM = "655441491"

#: What holds no order, no payment, no product and no count, and why.
NOTHING = {
    "graphql_bulk_in_progress_usererrors": "a refused bulk operation",
    "graphql_throttled_error": "an error",
    "oauth_refresh_response": "a token",
    "pyfixture_shop": "a shop: its address, currency and time zone",
    "rest_inventory_items_list": "how goods are kept and what they cost; neither their names and prices nor how many there are",
    "rest_locations_list": "places",
    "rest_refund_calculate": "what a refund could be: it has no id, because nothing was given back",
    "rest_webhooks_list": "subscriptions",
}


class OrderExample:
    """An order of an example, or one that carries what the example holds; and what its rows must say."""

    def __init__(self, node: Json, expect: Callable[[Rows, Rows], None]) -> None:
        self.node = node
        self.expect = expect


def whole(examples: Path) -> Json:
    return published.order(examples, "rest_order_get_with_refunds")


def sold_and_given_back(examples: Path) -> OrderExample:
    printed = whole(examples)
    return OrderExample(order(printed), lambda lines, _: published.expect_lines(printed, lines))


def listed(examples: Path) -> OrderExample:
    (printed,) = published.read(examples, "rest_orders_list_status_any", "orders")
    return OrderExample(order(printed), lambda lines, _: published.expect_lines(printed, lines))


def cancelled(examples: Path) -> OrderExample:
    printed = published.order(examples, "rest_order_cancelled_with_refund")
    return OrderExample(order(printed), lambda lines, _: published.expect_cancelled(printed, lines))


def created(examples: Path) -> OrderExample:
    printed = published.order(examples, "rest_order_created_with_tax_lines")
    return OrderExample(order(printed), lambda lines, _: published.expect_sold(printed, lines))


def paid(examples: Path) -> OrderExample:
    """The transactions of the order that they name."""
    printed, owner = published.transactions(examples), whole(examples)
    every = [*printed, *owner["refunds"][0]["transactions"]]
    return OrderExample(order(owner, printed), lambda _, payments: published.expect_payments(every, payments))


def refunded(examples: Path) -> OrderExample:
    """The refunds of the order that they name."""
    owner = {**whole(examples), "refunds": published.read(examples, "rest_order_refunds_list", "refunds")}
    return OrderExample(order(owner), lambda lines, _: published.expect_lines(owner, lines))


def refunded_of_old(examples: Path) -> OrderExample:
    """A refund as the older Python fixture has it, on the order that it names.

    It does not say what its lines come to, which no answer of today's can leave out: the line's price, and its taxes. The order
    is worth that much less.
    """
    owner, refund = whole(examples), published.read(examples, "pyfixture_refund", "refund")
    for one in refund["refund_line_items"]:
        one["subtotal"] = Decimal(one["line_item"]["price"]) * one["quantity"]
        one["total_tax"] = sum(Decimal(t["price"]) for t in one["line_item"]["tax_lines"])
    back = sum(one["subtotal"] + one["total_tax"] for one in refund["refund_line_items"])
    for one in refund["transactions"]:
        one.setdefault("processed_at", one["created_at"])
    owner |= {"refunds": [refund], "current_total_price": str(Decimal(owner["total_price"]) - back)}

    def expect(lines: Rows, payments: Rows) -> None:
        published.expect_returns(refund, [row for row in lines if row["kind"] == "return"])
        assert sum(row["total"] for row in lines) == Decimal(owner["current_total_price"])
        published.expect_payments(refund["transactions"], payments)

    return OrderExample(order(owner), expect)


def tendered(examples: Path) -> OrderExample:
    """Tender transactions, Shopify's ledger of what the transactions of orders moved, as those transactions.

    Flux never asks for the ledger. An order of the same number and currency carries them.
    """
    printed = published.read(examples, "pyfixture_tender_transactions", "tender_transactions")
    transactions = [
        {
            "id": f"gid://shopify/OrderTransaction/{one['id']}",
            "kind": "SALE",
            "status": "SUCCESS",
            "gateway": "bogus",
            "test": False,  # the examples' payments are trials, as in `nodes.transaction`
            "createdAt": one["processed_at"],
            "processedAt": one["processed_at"],
            "amountSet": bag(one["amount"]),
            "paymentDetails": {
                "__typename": "CardPaymentDetails",
                "company": one["payment_details"]["credit_card_company"],
            },
        }
        for one in printed
    ]
    total = str(sum(Decimal(one["amount"]) for one in printed))
    currency = printed[0]["currency"]
    node = made(line(price=total), total=total, transactions=transactions, currencyCode=currency)
    node |= {"processedAt": printed[0]["processed_at"], "updatedAt": printed[0]["updated_at"]}

    def expect(_: Rows, payments: Rows) -> None:
        sales = [{**one, "kind": "sale", "status": "success", "parent_id": None} for one in printed]
        published.expect_payments(sales, payments)
        assert {row["currency"] for row in payments} == {currency}
        assert {row["tender_detail"] for row in payments} == {"bogus Bogus"}

    return OrderExample({**node, "id": "gid://shopify/Order/450789469"}, expect)


ORDER_EXAMPLES: Mapping[str, Callable[[Path], OrderExample]] = {
    "pyfixture_refund": refunded_of_old,
    "pyfixture_tender_transactions": tendered,
    "rest_order_cancelled_with_refund": cancelled,
    "rest_order_created_with_tax_lines": created,
    "rest_order_get_with_refunds": sold_and_given_back,
    "rest_order_refunds_list": refunded,
    "rest_order_transactions_list": paid,
    "rest_orders_list_status_any": listed,
}
PRODUCT_EXAMPLES = ("rest_products_list", "webhook_products_update_excerpt")
LEVEL_EXAMPLES = ("rest_inventory_levels",)


def test_every_example_is_looked_at(examples: Path) -> None:
    held = {*ORDER_EXAMPLES, *PRODUCT_EXAMPLES, *LEVEL_EXAMPLES}
    assert held.isdisjoint(NOTHING)
    assert {path.stem for path in examples.glob("*.json")} == held | NOTHING.keys()
    others = {path.suffix for path in examples.rglob("*") if path.is_file()}
    assert others == {".json", ".md", ".graphql"}  # the list of sources, and queries, which hold nothing


@pytest.mark.parametrize("name", ORDER_EXAMPLES)
def test_orders_and_payments_come_back_whole(name: str, examples: Path, runtime: Runtime) -> None:
    example = ORDER_EXAMPLES[name](examples)
    day = date.fromisoformat(example.node["processedAt"][:10])
    with shop_of(runtime, day) as shop:
        text = json.dumps(example.node).replace(SENT_FROM, shop.stores[1])
        (node,) = wired("orders", [json.loads(text)])
        lines, payments = round_trip(shop, node)
        example.expect(lines, payments)
        assert {row["location_id"] for row in [*lines, *payments]} == {shop.stores[0]}


@pytest.mark.parametrize("name", PRODUCT_EXAMPLES)
def test_products_come_back_whole(name: str, examples: Path, runtime: Runtime) -> None:
    content = json.loads((examples / f"{name}.json").read_text())
    printed = content.get("products", [content])
    given = wired("products", map(product, printed))
    numbers = {one["legacyResourceId"] for one in given}
    with shop_of(runtime, date(2026, 3, 2)) as shop:
        shop.take("products", given)
        manifest = shop.read("catalog")
        landed = [found for _, found in shop.records(manifest, "product")]
        mine = [found for found in landed if found["legacyResourceId"] in numbers]
        assert len(landed) > len(mine), "they are among products that are made up"
        expected = [PRODUCTS.of(one) for one in given]
        assert shop.redacted(expected) == expected
        assert sorted(mine, key=lambda one: one["id"]) == sorted(expected, key=lambda one: one["id"])
        rows = [row for row in shop.rows("products", manifest) if row["item_id"] in numbers]
        published.expect_products(printed, rows)


@pytest.mark.parametrize("name", LEVEL_EXAMPLES)
def test_counts_come_back_whole(name: str, examples: Path, runtime: Runtime) -> None:
    printed = published.read(examples, name, "inventory_levels")
    places = sorted({one["location_id"] for one in printed})
    with shop_of(runtime, date(2026, 3, 2)) as shop:
        text = json.dumps(printed)
        for place, store in zip(places, shop.stores, strict=True):
            text = text.replace(str(place), store)
        moved = json.loads(text)
        expected = []
        for number, store in enumerate(shop.stores):
            given = wired("inventoryLevels", [level(one) for one in moved if str(one["location_id"]) == store])
            shop.take("inventoryLevels", given, number)
            expected += [(store, LEVELS.of(one)) for one in given]
        manifest = shop.read("inventory")
        landed = shop.records(manifest, "level")
        mine = [one for one in landed if one[1]["id"] in {wanted["id"] for _, wanted in expected}]
        assert len(landed) > len(mine), "they are among counts that are made up"
        assert shop.redacted([wanted for _, wanted in expected]) == [wanted for _, wanted in expected]
        assert sorted(mine, key=str) == sorted(expected, key=str)
        counted = {(store, wanted["item"]["variant"]["legacyResourceId"]) for store, wanted in expected}
        rows = [
            row for row in shop.rows("inventory_levels", manifest) if (row["location_id"], row["product_id"]) in counted
        ]
        published.expect_levels(moved, rows)


def test_a_catalog_of_long_products_comes_back_whole(shared: Path, runtime: Runtime) -> None:
    """The cases of products with 2,048 variants (the most that Shopify has) and 250, and 50 products of 100 among them."""
    cases = shared / "cases/shopify"
    long, shorter = (json.loads((cases / f"product_{n}.json").read_text())["document"] for n in (2048, 250))

    def like(number: int) -> Json:
        first = number * 1000
        variants = [
            {
                **one,
                "id": f"gid://shopify/ProductVariant/{first + n}",
                "legacyResourceId": str(first + n),
                "sku": f"K{n}",
            }
            for n, one in enumerate(long["variants"]["nodes"][:100])
        ]
        head = {"id": f"gid://shopify/Product/{number}", "legacyResourceId": str(number), "title": f"Shelf {number}"}
        return {**long, **head, "variants": {"nodes": variants}}

    given = [long, shorter, *map(like, range(60_000, 60_050))]
    with shop_of(runtime, date(2026, 3, 12)) as shop:
        shop.take("products", given)
        manifest = shop.read("catalog")
        rows = shop.rows("products", manifest)
    wanted = {
        (product["legacyResourceId"], one["legacyResourceId"], one["sku"], Decimal(one["price"]))
        for product in given
        for one in product["variants"]["nodes"]
    }
    found = [(r["item_id"], r["product_id"], r["sku"], r["price"]) for r in rows]
    assert len(wanted) == 2048 + 250 + 50 * 100
    assert {one for one in found if one in wanted} == wanted
    assert len(found) == len(set(found))
