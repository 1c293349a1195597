"""Bulk operations find what paging finds, and break the way Shopify's break."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest

from flux_pipelines_tests.providers.shopify.sandboxwire import Clock, Shopify, provider_of, sandbox_of
from flux_sandbox.server import RunningSandbox

RUN = """mutation($query: String!) { bulkOperationRunQuery(query: $query, groupObjects: false) {
  bulkOperation { id status } userErrors { field message code } } }"""
POLL = """query($id: ID!) { bulkOperation(id: $id) {
  id status errorCode objectCount rootObjectCount fileSize url partialDataUrl } }"""
HEAD = "id name updatedAt currentTotalPriceSet { shopMoney { amount } } refunds { id } transactions { kind amountSet { shopMoney { amount } } }"
LINE = "id title quantity originalUnitPriceSet { shopMoney { amount } }"
AGREEMENT = "id reason happenedAt"
ORDERS = f"""{{ orders(query: "QUERY") {{ edges {{ node {{ {HEAD}
  lineItems {{ edges {{ node {{ {LINE} }} }} }} agreements {{ nodes {{ {AGREEMENT} }} }} }} }} }} }}"""


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def sandbox(clock: Clock) -> Iterator[RunningSandbox]:
    with sandbox_of(clock, history_days=10) as running:
        yield running


@pytest.fixture(scope="module")
def shopify(sandbox: RunningSandbox) -> Shopify:
    return Shopify(sandbox)


def run(shopify: Shopify, query: str) -> dict[str, Any]:
    return shopify.ask(RUN, query=query)["bulkOperationRunQuery"]  # type: ignore[no-any-return]


def started(shopify: Shopify, query: str) -> str:
    answer = run(shopify, query)
    assert answer["userErrors"] == []
    assert answer["bulkOperation"]["status"] == "CREATED"
    return answer["bulkOperation"]["id"]  # type: ignore[no-any-return]


def finished(shopify: Shopify, id_: str) -> tuple[list[str], dict[str, Any]]:
    """What was seen of an operation until it was over."""
    seen: list[str] = []
    for _ in range(400):
        found = shopify.ask(POLL, id=id_)["bulkOperation"]
        if found["status"] not in seen[-1:]:
            seen.append(found["status"])
        if found["status"] not in ("CREATED", "RUNNING", "CANCELING"):
            return seen, found
        time.sleep(0.02)
    raise AssertionError(seen)


def lines_of(url: str) -> list[dict[str, Any]]:
    answer = httpx.get(url)  # without a token
    assert answer.status_code == 200
    return [msgspec.json.decode(line) for line in answer.content.splitlines()]


def joined(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Roots with their children put back, wherever in the file they are."""
    roots = {line["id"]: {**line, "lineItems": [], "agreements": []} for line in lines if "__parentId" not in line}
    for line in lines:
        if parent := line.pop("__parentId", None):
            roots[parent]["agreements" if "Agreement" in line["id"] else "lineItems"].append(line)
    return list(roots.values())


def test_bulk_finds_what_paging_finds(shopify: Shopify) -> None:
    span = "updated_at:>='2026-10-24T00:00:00Z' AND updated_at:<'2026-11-02T00:00:00Z'"
    seen, over = finished(shopify, started(shopify, ORDERS.replace("QUERY", span)))
    assert seen == ["RUNNING", "COMPLETED"]
    lines = lines_of(over["url"])
    assert (int(over["objectCount"]), over["errorCode"], over["partialDataUrl"]) == (len(lines), None, None)
    assert int(over["fileSize"]) == len(httpx.get(over["url"]).content)
    places = {line["id"]: place for place, line in enumerate(lines)}
    behind = [places[line["__parentId"]] < place for place, line in enumerate(lines) if "__parentId" in line]
    assert not all(behind)  # a child may come before its parent
    found = joined(lines)
    assert int(over["rootObjectCount"]) == len(found) > 100
    node = f"{HEAD} lineItems(first: 20) {{ nodes {{ {LINE} }} }} agreements(first: 9) {{ nodes {{ {AGREEMENT} }} }}"
    paged = shopify.every("orders", node, 10, query=f'"{span}"')
    for order in paged:
        order["lineItems"], order["agreements"] = order["lineItems"]["nodes"], order["agreements"]["nodes"]

    def by_id(order: dict[str, Any]) -> str:
        return order["id"]  # type: ignore[no-any-return]

    assert sorted(found, key=by_id) == sorted(paged, key=by_id)
    assert any(order["refunds"] for order in found)
    assert all(order["agreements"] for order in found)


def test_nothing_found_gives_no_file(shopify: Shopify) -> None:
    _, over = finished(shopify, started(shopify, ORDERS.replace("QUERY", "updated_at:<'2020-01-01T00:00:00Z'")))
    assert (over["status"], over["url"], over["objectCount"]) == ("COMPLETED", None, "0")


def test_products_with_two_levels(shopify: Shopify) -> None:
    text = "{ products { edges { node { id title variants { edges { node { id sku inventoryItem { id } } } } } } } }"
    _, over = finished(shopify, started(shopify, text))
    lines = lines_of(over["url"])
    assert sum("__parentId" in line for line in lines) == len(shopify.merchant.items)
    deep = """{ locations { edges { node { id name inventoryLevels { edges { node { id
      quantities(names: ["available"]) { quantity } } } } } } } }"""
    _, over = finished(shopify, started(shopify, deep))
    assert int(over["objectCount"]) == len(shopify.merchant.locations) + len(shopify.merchant.counts)


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("{ orders { edges { node { id refunds { id refundLineItems(first: 5) { nodes { id } } } } } } }", "within a list field"),
        ("{ orders { edges { node { lineItems { edges { node { id } } } } } } }", "must select the 'id' field"),
        ("{ orders { edges { node { id other: lineItems { edges { node { id variant { id product { id variants { edges { node { id product { id variants { edges { node { id } } } } } } } } } } } } } } } }", "levels deep"),
        ("{ shop { name } }", "exactly one top level field"),
        ("mutation { appUninstall { userErrors { message } } }", "only queries"),
        ("{ orders { edges { node { id nonsense } } } }", "Cannot query field 'nonsense'"),
        ("{ orders { edges { node { id a: lineItems { nodes { id } } b: lineItems { nodes { id } } c: shippingLines { nodes { id } } d: returns { nodes { id } } e: discountApplications { nodes { index } } } } } }", "more than 5 connections"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_in_bulk(shopify: Shopify, query: str, why: str) -> None:
    answer = run(shopify, query)
    assert answer["bulkOperation"] is None
    (error,) = answer["userErrors"]
    assert (error["code"], error["field"]) == ("INVALID", ["query"])
    assert why in error["message"]


def test_five_run_at_a_time(sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    shopify = Shopify(sandbox, "fjord-shop")
    bulk = provider_of(sandbox.world).bulk
    query = ORDERS.replace("QUERY", "")
    held = [started(shopify, query) for _ in range(5)]
    for one in held:  # as long as they are under way
        bulk._by_shop[shopify.merchant.id][one].done.wait(30)
        bulk._by_shop[shopify.merchant.id][one].over = False
    (error,) = run(shopify, query)["userErrors"]
    assert error["code"] == "OPERATION_IN_PROGRESS"
    assert error["message"] == f"A bulk query operation for this app and shop is already in progress: {held[0]}."
    cancel = "mutation($id: ID!) { bulkOperationCancel(id: $id) { bulkOperation { status } userErrors { message } } }"
    assert shopify.ask(cancel, id=held[0])["bulkOperationCancel"]["bulkOperation"] == {"status": "CANCELING"}
    assert finished(shopify, held[0])[1]["status"] == "CANCELED"
    assert started(shopify, query)
    assert shopify.ask(cancel, id=held[0])["bulkOperationCancel"]["userErrors"] != []
    for one in held:
        bulk._by_shop[shopify.merchant.id][one].over = True


def test_half_a_result_and_denied_access(sandbox: RunningSandbox) -> None:
    shopify = Shopify(sandbox)
    shopify.condition(fail_bulk=1)
    query = ORDERS.replace("QUERY", "")
    _, over = finished(shopify, started(shopify, query))
    assert (over["status"], over["errorCode"], over["url"]) == ("FAILED", "INTERNAL_SERVER_ERROR", None)
    half = [line for line in lines_of(over["partialDataUrl"]) if "__parentId" not in line]
    assert len(half) == (len(shopify.every("orders", "id", 250)) + 1) // 2
    assert finished(shopify, started(shopify, query))[1]["status"] == "COMPLETED"
    short = Shopify(sandbox, scopes=["read_products"])
    _, over = finished(short, started(short, query))
    assert (over["status"], over["errorCode"], over["url"]) == ("FAILED", "ACCESS_DENIED", None)


def test_addresses_of_results_are_secret_and_expire(clock: Clock, sandbox: RunningSandbox, shopify: Shopify) -> None:
    _, over = finished(shopify, started(shopify, ORDERS.replace("QUERY", "")))
    address = over["url"]
    assert httpx.get(address).status_code == 200
    assert httpx.get(address[:-1]).status_code == 403
    before = clock.now
    clock.forward(days=7, seconds=1)
    assert httpx.get(address).status_code == 403
    clock.now = before
