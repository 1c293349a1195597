"""Queries are validated against Shopify's own schema, answered as graphql-core would answer them, paid for, and kept within scopes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from flux_pipelines.providers.shopify.queries import bulk_orders, operation
from flux_pipelines_tests.providers.shopify.sandboxwire import Clock, Shopify, provider_of, sandbox_of
from flux_sandbox.server import RunningSandbox
from flux_sandbox.shopify import schema
from flux_sandbox.shopify.execute import Execution
from flux_sandbox.shopify.queries import compiled
from flux_sandbox.shopify.root import Root
from flux_sandbox.shopify.schema import VERSION, admin_schema
from flux_sandbox.shopify.schema.vendor import trimmed
from flux_sandbox.shopify.shop import Shop
from flux_sandbox.shopify.values import Call, Nodes, Page

SCOPES = frozenset(
    {"read_orders", "read_all_orders", "read_products", "read_inventory", "read_locations", "read_returns"}
)
BULK = bulk_orders("updated_at:>='2026-10-01T00:00:00Z'")


def operations(shop: Shop) -> list[tuple[str, dict[str, Any]]]:
    """Everything that the client asks, mutations left aside: fields, arguments, fragments, abstract types, aliases, nulls."""
    found = shop.orders({"first": 40}, everything=True, warnings=[]).items
    order = next(one for one in found if len(one["agreements"].items) > 1)
    product, place = shop.catalog.products()[0]["id"], shop.catalog.locations()[0]["id"]
    span = {"query": "updated_at:>='2026-10-01T00:00:00Z'", "sortKey": "UPDATED_AT"}
    deleted = "action:destroy AND subject_type:Product AND created_at:>='2025-10-01T00:00:00Z'"
    return [
        (operation("access"), {}),
        (operation("shop"), {}),
        (operation("shop_domain"), {}),
        (operation("versions"), {}),
        (operation("orders"), {"first": 5, **span}),
        (operation("order_heads"), {"first": 40, **span}),
        (operation("orders_by_id"), {"ids": [order["id"], "gid://shopify/Order/1"]}),
        (operation("more_lines"), {"id": order["id"], "first": 1}),
        (operation("more_agreements"), {"id": order["id"], "first": 2}),
        (operation("more_sales"), {"id": order["id"], "first": 1}),
        (operation("products"), {"first": 5}),
        (operation("more_variants"), {"id": product, "first": 1}),
        (operation("locations"), {"first": 9}),
        (operation("inventory"), {"location": place, "first": 3}),
        (operation("deletions"), {"first": 5, "query": deleted}),
        (_TOUCHING, {"first": 7}),
        (_TOUCHING, {"first": 7, "more": True}),
    ]


#: What GraphQL has and the client's operations do not: cursors of edges, aliases, directives, a node of a kind that is not there.
_TOUCHING = """
query Touching($first: Int!, $more: Boolean = false) {
  shop { __typename id currency: currencyCode name @include(if: $more) }
  orders(first: $first, sortKey: UPDATED_AT) {
    pageInfo { hasNextPage endCursor }
    edges { cursor node { ...Head } }
    nodes { ...Head total: totalPriceSet { shopMoney { amount } } }
  }
  nothing: node(id: "gid://shopify/Nothing/1") { id }
}
fragment Head on Order { id name agreements(first: 2) { edges { cursor node { __typename id ... on RefundAgreement { reason } } } } }
"""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    with sandbox_of(Clock()) as running:
        yield running


@pytest.fixture(scope="module")
def shopify(sandbox: RunningSandbox) -> Shopify:
    return Shopify(sandbox)


def by_graphql_core(text: str, root: Any, variables: Mapping[str, Any]) -> Any:
    """What graphql-core makes of the same objects."""
    from graphql import GraphQLResolveInfo, graphql_sync

    def resolve(source: Any, info: GraphQLResolveInfo, **_: Any) -> Any:
        from graphql.execution.values import get_argument_values

        field = info.parent_type.fields[info.field_name]
        args = get_argument_values(field, info.field_nodes[0], info.variable_values)
        value = source[info.field_name]
        if isinstance(value, Call):
            value = value.make(args)
        if isinstance(value, Nodes):
            value = value.page(args)
        if isinstance(value, Page):
            cursors = [value.cursor(index) for index in range(len(value.items))]
            return {
                "nodes": value.items,
                "edges": [{"node": node, "cursor": c} for node, c in zip(value.items, cursors, strict=True)],
                "pageInfo": {
                    "hasNextPage": value.after,
                    "endCursor": cursors[-1] if cursors else None,
                },
            }
        return value[: args["first"]] if isinstance(value, list) and args.get("first") is not None else value

    def kind(value: Any, *_: Any) -> str:
        return value["__typename"]  # type: ignore[no-any-return]

    result = graphql_sync(
        admin_schema(), text, root, variable_values=dict(variables), field_resolver=resolve, type_resolver=kind
    )
    assert result.errors is None, result.errors
    return result.data


def test_answers_are_those_of_graphql_core(sandbox: RunningSandbox) -> None:
    provider = provider_of(sandbox.world)
    for shop in provider.shops.values():
        for text, variables in operations(shop):
            execution = Execution(compiled(text, variables, None, SCOPES), Root(shop, SCOPES, []).query())
            ours = execution.run()
            theirs = by_graphql_core(text, Root(shop, SCOPES, []).query(), variables)
            assert execution.errors == []
            assert ours == theirs
            assert json.dumps(ours) == json.dumps(theirs)  # in the same order, too
            assert ours is not None
            assert any(ours.values())


def test_the_schema_is_the_published_one(shared: Path) -> None:
    published = shared / f"specs/shopify/admin_{VERSION}.json.gz"
    if not published.exists():
        pytest.skip("Shopify's published schema is not here")
    kept = Path(schema.__file__).with_name(f"admin_{VERSION}.json.gz")
    expected = trimmed(json.loads(gzip.decompress(published.read_bytes())))
    assert json.loads(gzip.decompress(kept.read_bytes())) == expected
    assert expected["scopes"]["InventoryLevel"] == ["read_inventory"]
    assert len(admin_schema().type_map) > 3000


def test_every_query_of_the_client_is_one_that_is_played() -> None:
    with sandbox_of(Clock()) as running:
        shopify = Shopify(running)
        for text, variables in operations(provider_of(running.world).shops[shopify.merchant.id]):
            assert None not in [value for name, value in shopify.ask(text, **variables).items() if name != "nothing"]
        started = shopify.ask(operation("bulk_run"), query=BULK)["bulkOperationRunQuery"]
        assert started["userErrors"] == []
        id_ = started["bulkOperation"]["id"]
        assert shopify.ask(operation("bulk_poll"), id=id_)["bulkOperation"]["status"] == "RUNNING"
        assert shopify.ask(operation("bulk_cancel"), id=id_)["bulkOperationCancel"]["userErrors"] == []
        assert shopify.ask(operation("uninstall"))["appUninstall"]["userErrors"] == []


def test_what_is_no_query_of_this_schema_is_refused(shopify: Shopify) -> None:
    (unknown,) = shopify.errors("{ orders(first: 1) { nodes { total_price } } }")
    assert unknown["message"].startswith("Cannot query field 'total_price' on type 'Order'.")
    assert unknown["locations"] == [{"line": 1, "column": 30}]
    assert "Syntax Error" in shopify.errors("{ orders(")[0]["message"]
    assert "first" in shopify.errors("query($first: Int!) { orders(first: $first) { nodes { id } } }")[0]["message"]
    wrong = shopify.errors("{ orders(first: 1, sortKey: UPDATED) { nodes { id } } }")[0]["message"]
    assert wrong.startswith("Value 'UPDATED' does not exist in 'OrderSortKeys' enum.")
    assert shopify.errors("{ orders { nodes { id } } }")[0]["message"] == "you must provide one of first or last"
    assert shopify.errors("{ orders(first: 251) { nodes { id } } }")[0]["extensions"]["code"] == "BAD_REQUEST"
    assert shopify.errors("   ")[0]["message"] == "No query string was present"
    (unplayed,) = shopify.errors("{ shop { taxSettings: customerAccounts } }")
    assert unplayed["extensions"]["code"] == "SANDBOX_DOES_NOT_PLAY"
    assert shopify.http.post("/admin/api/2026-10/graphql.json", content=b"[1]").status_code == 400


def test_fields_need_their_scopes(sandbox: RunningSandbox) -> None:
    shopify = Shopify(sandbox, "fjord-shop", scopes=["read_orders", "read_locations"])
    query = "{ orders(first: 1) { nodes { id lineItems(first: 1) { nodes { product { id } } } } } shop { name } }"
    answer = shopify.post(query).json()
    (error,) = answer["errors"]
    assert error["extensions"]["code"] == "ACCESS_DENIED"
    path = ["orders", "nodes", 0, "lineItems", "nodes", 0]
    assert error["path"] == [*path, "product"]
    assert answer["data"]["orders"]["nodes"][0]["lineItems"]["nodes"][0]["product"] is None
    assert answer["data"]["shop"]["name"] == "Fjord Verkkokauppa"
    denied = shopify.post("{ shop { name } products(first: 1) { nodes { id } } }").json()
    assert denied["data"] is None  # products may not be null, so nothing is left
    assert "read_products" in denied["errors"][0]["message"]
    granted = shopify.ask("{ currentAppInstallation { accessScopes { handle } } }")["currentAppInstallation"]
    assert [one["handle"] for one in granted["accessScopes"]] == ["read_locations", "read_orders"]
    httpx.post(f"{sandbox.url}/sandbox/tokens/scopes", json={"merchant": "fjord-shop", "remove": ["read_orders"]})
    assert (
        shopify.post("{ orders(first: 1) { nodes { id } } }").json()["errors"][0]["extensions"]["code"]
        == "ACCESS_DENIED"
    )


def test_the_cost_is_told_before_and_after(shopify: Shopify) -> None:
    product = shopify.every("products", "id")[0]["id"]
    # What Shopify was seen to ask for exactly this of a product (25 points there, where `node` is `product`), and one for one
    # that is not there.
    text = """query($id: ID!) { node(id: $id) { ... on Product {
      variants(first: 250) { nodes { inventoryItem { id tracked } } } } } }"""
    cost = shopify.post(text, id="gid://shopify/Product/1").json()["extensions"]["cost"]
    assert cost["requestedQueryCost"] == 25
    found = shopify.post(text, id=product).json()["extensions"]["cost"]
    assert found["requestedQueryCost"] == 25
    assert 0 < found["actualQueryCost"] < 25
    line = "taxLines { priceSet { shopMoney { amount } } } totalDiscountSet { shopMoney { amount } } product { id } variant { id }"
    deep = f"{{ orders(first: 250) {{ nodes {{ lineItems(first: 250) {{ nodes {{ {line} }} }} }} }} }}"
    answer = shopify.post(deep).json()
    assert answer["errors"][0]["extensions"]["code"] == "MAX_COST_EXCEEDED"
    assert "data" not in answer
    assert answer["extensions"]["cost"]["actualQueryCost"] is None


def test_an_empty_bucket_throttles_and_fills_again() -> None:
    with sandbox_of(Clock(), rate_limit=500) as running:
        shopify = Shopify(running)
        heads = "{ orders(first: 50) { nodes { id totalPriceSet { shopMoney { amount } } } } }"
        status = shopify.post(heads).json()["extensions"]["cost"]["throttleStatus"]
        assert (status["maximumAvailable"], status["restoreRate"]) == (2000.0, 100.0)
        shopify.condition(points=0)
        answer = shopify.post(heads)
        assert answer.status_code == 200
        refused = answer.json()
        assert "data" not in refused
        assert refused["errors"][0]["message"] == "Throttled"
        assert refused["errors"][0]["extensions"]["code"] == "THROTTLED"
        cost = refused["extensions"]["cost"]
        assert cost["actualQueryCost"] is None
        assert cost["requestedQueryCost"] > cost["throttleStatus"]["currentlyAvailable"]
        other = Shopify(running, "fjord-shop")
        assert "data" in other.post(heads).json()  # every shop has a bucket of its own
        shopify.condition(points=1000)
        before = shopify.post("{ shop { id } }").json()["extensions"]["cost"]
        after = shopify.post(heads).json()["extensions"]["cost"]
        spent = before["throttleStatus"]["currentlyAvailable"] - after["throttleStatus"]["currentlyAvailable"]
        assert spent <= after["actualQueryCost"]  # what was asked for and not found was given back
        assert httpx.get(f"{running.url}/sandbox/stats").json()["rate_limited"] == 1


def test_versions_fall_forward_and_unknown_ones_are_not_found(shopify: Shopify) -> None:
    for asked, answered in (
        ("2026-10", "2026-10"),
        ("2026-01", "2026-01"),
        ("2024-01", "2026-01"),
        ("unstable", "unstable"),
    ):
        answer = shopify.post("{ shop { id } }", version=asked)
        assert (answer.status_code, answer.headers["X-Shopify-API-Version"]) == (200, answered)
    for asked in ("2027-01", "2026-09", "latest", "v1"):
        assert shopify.post("{ shop { id } }", version=asked).status_code == 404
    listed = shopify.ask("{ publicApiVersions { handle supported } }")["publicApiVersions"]
    assert [one["handle"] for one in listed if one["supported"]] == ["2026-01", "2026-04", "2026-07", "2026-10"]


def test_refusals_by_status(sandbox: RunningSandbox) -> None:
    shopify = Shopify(sandbox, "fjord-shop")
    for status in (402, 403, 423):
        shopify.condition(status=status)
        answer = shopify.post("{ shop { id } }")
        assert answer.status_code == status
        assert isinstance(answer.json()["errors"], str)
    shopify.condition(status=0)
    assert shopify.ask("{ shop { id } }")["shop"]["id"]
    # One shop's token opens no other shop, and a bearer header opens none.
    stranger = httpx.Client(base_url=f"{sandbox.url}/shopify/shops/harbor-shop/")
    token = shopify.tokens["access_token"]
    for headers in ({"X-Shopify-Access-Token": token}, {"Authorization": f"Bearer {token}"}, {}):
        answer = stranger.post("admin/api/2026-10/graphql.json", json={"query": "{ shop { id } }"}, headers=headers)
        assert answer.status_code == 401
    # Where the address names no shop, the token does.
    anywhere = httpx.post(
        f"{sandbox.url}/shopify/admin/api/2026-10/graphql.json",
        json={"query": "{ shop { myshopifyDomain } }"},
        headers={"X-Shopify-Access-Token": token},
    )
    assert anywhere.json()["data"]["shop"]["myshopifyDomain"] == "fjord-shop.myshopify.com"
    assert stranger.get("admin/api/2026-10/orders.json").status_code == 404
    nobody = f"{sandbox.url}/shopify/shops/nobody/admin/api/2026-10/graphql.json"
    assert httpx.post(nobody, json={"query": "{ shop { id } }"}).status_code in (401, 404)


def test_faults_come_in_shopifys_forms() -> None:
    with sandbox_of(Clock(), faults="error429=0.3,error500=0.2,html=0.1,truncate=0.1") as running:
        shopify = Shopify(running)
        seen = set()
        for _ in range(80):
            answer = shopify.post("{ shop { id } }")
            try:
                body = answer.json()
                errors = body.get("errors")
                code = errors[0].get("extensions", {}).get("code") if isinstance(errors, list) else errors
            except ValueError:
                code = "no JSON"
            seen.add((answer.status_code, code))
        assert {(200, None), (200, "THROTTLED"), (200, "INTERNAL_SERVER_ERROR"), (200, "no JSON")} <= seen
        assert {status for status, _ in seen} >= {200, 500, 503}


def test_the_official_sdk_runs_against_it(sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    sdk = pytest.importorskip("shopify", reason="the official ShopifyAPI SDK is not installed")
    tokens = Shopify(sandbox).tokens
    session = sdk.Session("harbor-shop.myshopify.com", "2026-10", tokens["access_token"])
    # The SDK makes the address itself: only its scheme and host are other ones here.
    monkeypatch.setattr(sdk.Session, "protocol", "http")
    session.url = f"{sandbox.url.removeprefix('http://')}/shopify/shops/harbor-shop"
    sdk.ShopifyResource.activate_session(session)
    try:
        text = "query($first: Int!) { orders(first: $first, sortKey: UPDATED_AT) { nodes { id name } } }"
        answer = json.loads(sdk.GraphQL().execute(text, variables={"first": 3}))
    finally:
        sdk.ShopifyResource.clear_session()
    assert len(answer["data"]["orders"]["nodes"]) == 3
    assert answer["extensions"]["cost"]["throttleStatus"]["restoreRate"] > 0
