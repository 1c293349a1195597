"""Records that the sandbox was given stand among those that it makes up: found by the same searches, on the same pages, whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from typing import Any

import httpx
import pytest

from flux_pipelines.runtime import Runtime
from flux_pipelines_tests.providers.shopify.asked import LEVELS, ORDERS, PRODUCTS
from flux_pipelines_tests.providers.shopify.handwritten import back, line, made, refund, tax
from flux_pipelines_tests.providers.shopify.nodes import bag, gid, nodes
from flux_pipelines_tests.providers.shopify.roundtrip import ConnectedShop, round_trip, shop_of
from flux_pipelines_tests.providers.shopify.sandboxwire import Clock, Shopify, provider_of, sandbox_of
from flux_sandbox.documents import DocumentedSandbox
from flux_sandbox.server import RunningSandbox

Json = dict[str, Any]
DAY = date(2026, 3, 2)


@pytest.fixture(scope="module")
def shop(runtime: Runtime) -> Iterator[ConnectedShop]:
    with shop_of(runtime, DAY) as connected:
        yield connected


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    with sandbox_of(Clock()) as running:
        yield running


@pytest.fixture(scope="module")
def shopify(sandbox: RunningSandbox) -> Shopify:
    return Shopify(sandbox)


def busy(number: int, place: str | None = None) -> Json:
    """An order with more lines, and more of them given back, than one page of either holds; at a counter, if one is named."""
    lines = [line(n, "10.0", taxLines=tax("1.0"), currentQuantity=int(n > 12)) for n in range(1, 26)]
    returned = [back(n, 1, "10.0", "1.0") for n in range(1, 13)]
    return made(
        *lines,
        total="143.0",
        id=gid("Order", number),
        legacyResourceId=str(number),
        name="#EXAMPLE",
        displayFinancialStatus="PARTIALLY_REFUNDED",
        retailLocation={"id": gid("Location", place), "legacyResourceId": place} if place else None,
        refunds=[refund(number + 1, refundLineItems=nodes(returned[:11])), refund(number + 2, refundLineItems=nodes(returned[11:]))],
        customer={"id": gid("Customer", 1), "firstName": "Bob", "email": "bob.norman@example.com"},
    )  # fmt: skip


def give(sandbox: RunningSandbox, kind: str, document: Any, location_id: str | None = None) -> httpx.Response:
    where = location_id or sandbox.world.merchant("harbor-shop").locations[0].id
    body = {"kind": kind, "location_id": where, "document": document}
    return httpx.post(f"{sandbox.url}/sandbox/documents", json=body)


def given(sandbox: RunningSandbox, kind: str, document: Any, location_id: str | None = None) -> Json:
    answer = give(sandbox, kind, document, location_id)
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


def test_an_order_goes_round_with_everything_below_it(shop: ConnectedShop) -> None:
    node = ORDERS.wired(busy(7001))
    lines, _ = round_trip(shop, node)
    assert [row["kind"] for row in lines] == ["sale"] * 25 + ["return"] * 12
    assert sum(row["total"] for row in lines) == 143
    assert {row["location_id"] for row in lines} == {shop.stores[0]}


def test_an_order_at_a_counter_is_of_its_store(shop: ConnectedShop) -> None:
    node = ORDERS.wired({**busy(7101, shop.stores[1]), "refunds": [], "currentTotalPriceSet": bag("275.0")})
    for one in node["lineItems"]["nodes"]:
        one["currentQuantity"] = 1
    node["displayFinancialStatus"] = "PAID"
    node["lineItems"] = {"edges": [{"node": one} for one in node["lineItems"]["nodes"]]}
    shop.take("orders", [node], store=1)
    found = [json.loads(record) for record in shop.raw(shop.sync("paged", DAY))]
    (mine,) = [one for one in found if one["legacyResourceId"] == "7101"]
    assert mine["flux_location_id"] == shop.stores[1]
    assert [one["id"] for one in mine["lineItems"]["nodes"]] == [gid("LineItem", n) for n in range(1, 26)]


def test_a_product_with_more_variants_than_a_page_goes_round(shop: ConnectedShop) -> None:
    variants = [
        {"id": gid("ProductVariant", n), "legacyResourceId": str(n), "title": f"Size {n}", "price": "4.50"}
        for n in range(8001, 8121)
    ]
    product = {"id": gid("Product", 8000), "legacyResourceId": "8000", "title": "Shoe", "variants": nodes(variants)}
    node = PRODUCTS.wired({**product, "status": "ACTIVE", "updatedAt": "2026-03-01T10:00:00Z"})
    shop.take("products", [node])
    manifest = shop.read("catalog")
    landed = [found for _, found in shop.records(manifest, "product")]
    assert [found for found in landed if found["title"] == "Shoe"] == [PRODUCTS.of(node)]
    assert len(landed) > 1
    assert sum(row["item_id"] == "8000" for row in shop.rows("products", manifest)) == 120


def test_a_count_is_of_the_store_that_it_was_given_for(shop: ConnectedShop) -> None:
    item = {"id": gid("InventoryItem", 9), "sku": "S9", "tracked": True, "variant": {"legacyResourceId": "9"}}
    node = LEVELS.wired(
        {
            "id": f"gid://shopify/InventoryLevel/{shop.stores[1]}?inventory_item_id=9",
            "updatedAt": "2026-03-01T10:00:00Z",
            "isActive": True,
            "quantities": [{"name": "available", "quantity": 5, "updatedAt": None}],
            "item": item,
        }
    )
    shop.take("inventoryLevels", [node], store=1)
    manifest = shop.read("inventory")
    mine = [one for one in shop.records(manifest, "level") if one[1]["id"] == node["id"]]
    assert mine == [(shop.stores[1], LEVELS.of(node))]
    rows = [row for row in shop.rows("inventory_levels", manifest) if row["product_id"] == "9"]
    assert [(row["location_id"], row["quantity"], row["sku"]) for row in rows] == [(shop.stores[1], 5, "S9")]


def test_searches_sort_and_filter_them_like_the_others(sandbox: RunningSandbox, shopify: Shopify) -> None:
    node = {
        **ORDERS.wired(busy(7201)),
        # As REST writes them: of the offset, the search knows nothing.
        "createdAt": "2026-11-02T09:00:00-05:00",
        "processedAt": "2026-11-02T08:00:00-05:00",
        "updatedAt": "2026-11-03T23:30:00-05:00",
    }
    assert given(sandbox, "orders", node)["order_id"] == "7201"
    every = shopify.every("orders", "id processedAt updatedAt", 7, sortKey="UPDATED_AT")
    assert sum(one["id"] == node["id"] for one in every) == 1
    assert every[-1]["id"] == node["id"]  # by its instant: the last of all
    span = "updated_at:>='2026-11-04T04:30:00Z' AND updated_at:<'2026-11-04T04:30:01Z'"
    for query, found in (
        (span, True),
        ("updated_at:<'2026-11-04T04:30:00Z'", False),
        ("processed_at:'2026-11-02T13:00:00Z'", True),
        ("created_at:>'2026-11-02T14:00:00Z'", False),
    ):
        ids = {one["id"] for one in shopify.every("orders", "id", 50, query=f'"{query}"')}
        assert (node["id"] in ids) is found, query
    shown = {"id": node["id"], "name": "#EXAMPLE", "updatedAt": node["updatedAt"], "sourceIdentifier": None}
    of = "query($id: ID!) { node(id: $id) { ... on Order { id name updatedAt sourceIdentifier } } }"
    assert shopify.ask(of, id=node["id"]) == {"node": shown}
    assert Shopify(sandbox, "fjord-shop").ask(of, id=node["id"]) == {"node": None}


def test_of_quantities_those_are_given_that_are_asked_for(sandbox: RunningSandbox, shopify: Shopify) -> None:
    place = sandbox.world.merchant("harbor-shop").locations[1]
    quantities = [{"name": name, "quantity": n} for n, name in enumerate(("available", "on_hand", "incoming"))]
    node = {"id": "gid://shopify/InventoryLevel/1?inventory_item_id=2", "updatedAt": "2026-11-01T10:00:00-05:00"}
    given(sandbox, "inventoryLevels", {**node, "quantities": quantities}, place.id)
    text = """query($id: ID!) { location(id: $id) { inventoryLevels(first: 250) {
      nodes { id updatedAt quantities(names: ["incoming", "available"]) { name quantity } } } } }"""
    found = shopify.ask(text, id=gid("Location", place.id))["location"]["inventoryLevels"]["nodes"]
    assert [one for one in found if one["id"] == node["id"]] == [{**node, "quantities": [quantities[0], quantities[2]]}]
    assert len(found) > 1


def test_what_lacks_a_member_that_is_never_null_is_an_error_and_ends_a_bulk_operation() -> None:
    with sandbox_of(Clock()) as running:
        shop = Shopify(running)
        node = {**busy(7301), "processedAt": "2026-11-02T12:00:00Z", "updatedAt": "2026-11-02T12:34:56Z"}
        given(running, "orders", node)
        (error,) = shop.errors('{ node(id: "gid://shopify/Order/7301") { ... on Order { id confirmed } } }')
        assert error["message"] == "Cannot return null for non-nullable field confirmed."
        run = "mutation($query: String!) { bulkOperationRunQuery(query: $query) { bulkOperation { id } } }"
        query = '{ orders(query: "updated_at:2026-11-02T12:34:56Z") { edges { node { id confirmed } } } }'
        id_ = shop.ask(run, query=query)["bulkOperationRunQuery"]["bulkOperation"]["id"]
        provider_of(running.world).bulk._by_shop[shop.merchant.id][id_].done.wait(30)
        poll = "query($id: ID!) { bulkOperation(id: $id) { status errorCode } }"
        seen = [shop.ask(poll, id=id_)["bulkOperation"] for _ in range(4)]
        assert seen[-1] == {"status": "FAILED", "errorCode": "INTERNAL_SERVER_ERROR"}


def test_what_it_refuses(sandbox: RunningSandbox) -> None:
    assert isinstance(provider_of(sandbox.world), DocumentedSandbox)
    good = ORDERS.wired(busy(7401))
    assert given(sandbox, "orders", good)["order_id"] == "7401"
    refused = [
        (give(sandbox, "customers", {}), "takes in no 'customers'"),
        (give(sandbox, "orders", [good]), "must be a JSON object"),
        (give(sandbox, "orders", good), "has an order '7401' already"),
        (give(sandbox, "orders", {**good, "id": gid("Order", 5), "processedAt": None}), "`processedAt`, `updatedAt`"),
        (give(sandbox, "orders", {name: good[name] for name in good if name != "updatedAt"}), "`processedAt`, `updatedAt`"),
        (give(sandbox, "orders", {**good, "updatedAt": "2026-03-02T12:00:00"}), "`updatedAt` is no instant"),
        (give(sandbox, "orders", {**good, "closedAt": "yesterday"}), "`closedAt` is no instant"),
        (give(sandbox, "orders", {**good, "createdAt": 12}), "`createdAt` is no instant"),
        (give(sandbox, "orders", {**good, "id": 450789469}), "gid://shopify/Order/450789469"),
        (give(sandbox, "orders", {**good, "id": gid("Refund", 5)}), "gid://shopify/Order/450789469"),
        (give(sandbox, "products", {}, "nowhere"), "no location 'nowhere'"),
    ]  # fmt: skip
    assert [(answer.status_code, text in answer.json()["error"]) for answer, text in refused] == [
        (400, True) for _ in refused
    ], [answer.text for answer, _ in refused]
    assert "5" not in sandbox.world.sales


def test_no_truth_counts_them(sandbox: RunningSandbox) -> None:
    asked = {"merchant": "harbor-shop", "totals": "1"}
    before = httpx.get(f"{sandbox.url}/sandbox/truth", params=asked).json()
    node = {**busy(7501), "processedAt": "2026-11-02T12:00:00Z", "updatedAt": "2026-11-02T12:00:00Z"}
    given(sandbox, "orders", ORDERS.wired(node))
    assert httpx.get(f"{sandbox.url}/sandbox/truth", params=asked).json() == before
