"""What Shopify answers when things are not well, from a scripted server; and the parts of a bulk operation."""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flux_pipelines.domain.errors import (
    BadResponseError,
    ConfigurationError,
    PermissionLostError,
    ProviderUnavailableError,
    RateLimitedError,
)
from flux_pipelines.providers.base import Window
from flux_pipelines.providers.shopify import bulk, client, shops
from flux_pipelines.providers.shopify.graphql import Bucket, Cost
from flux_pipelines.providers.shopify.orders import read
from flux_pipelines.transport import RefusedError, RetryPolicy, Transport
from flux_pipelines_tests.providers.shopify.nodes import bag, gid
from flux_pipelines_tests.providers.shopify.wire import COST, TOKEN, errors, graphql, shopify
from flux_pipelines_tests.transport.server import Reply, sequence, serve

SHOP = {
    "shop": {
        "id": gid("Shop", 7),
        "name": "Acme",
        "myshopifyDomain": "acme.myshopify.com",
        "currencyCode": "USD",
        "ianaTimezone": "America/New_York",
    }
}
NOW = datetime(2026, 11, 12, tzinfo=UTC)
WINDOW = Window(("7",), NOW - timedelta(days=1), NOW)
VERSIONS = {"publicApiVersions": [{"handle": "2026-10", "supported": True}]}


def page(nodes: list[Any], cursor: str | None = None) -> dict[str, Any]:
    return {"pageInfo": {"hasNextPage": cursor is not None, "endCursor": cursor}, "nodes": nodes}


def sale(number: int, amount: str = "10.0", line_type: str = "PRODUCT") -> dict[str, Any]:
    return {"id": gid("ProductSale", number), "lineType": line_type, "totalAmount": bag(amount)}


def edges(*agreements: dict[str, Any], cursor: str | None = None) -> dict[str, Any]:
    """Return a page of agreements, each behind a cursor of its own id."""
    found = [{"cursor": f"behind {one['id']}", "node": one} for one in agreements]
    return {"pageInfo": {"hasNextPage": cursor is not None, "endCursor": cursor}, "edges": found}


def order(number: int, lines: list[Any] | None = None, cursor: str | None = None, **more: Any) -> dict[str, Any]:
    at = (WINDOW.start + timedelta(minutes=number)).strftime("%Y-%m-%dT%H:%M:%SZ")
    node = {
        "id": gid("Order", number),
        "legacyResourceId": str(number),
        "processedAt": at,
        "updatedAt": at,
        "currencyCode": "USD",
        "displayFinancialStatus": "PAID",
        "currentTotalPriceSet": bag("10.0"),
        "lineItems": page(lines or [], cursor),
        "agreements": edges(),
    }
    return {**node, **more}


def ask(script: Any, folder: Path, retry: RetryPolicy | None = None, **settings: Any) -> Any:
    """Ask for the API versions of a scripted Shopify; return them or the error, and how often it was asked."""
    with serve(script) as server, shopify(server.url, folder, retry=retry, **settings) as made:
        try:
            return made.api_versions(), len(server.seen)
        except Exception as error:  # noqa: BLE001 - whichever it is, the test looks at it
            return error, len(server.seen)


def good(data: Any = VERSIONS, **headers: str) -> Reply:
    return Reply(200, json.dumps({"data": data, "extensions": {"cost": COST}}).encode(), headers)


def test_the_token_goes_where_shopify_wants_it(tmp_path: Path) -> None:
    with serve(lambda _: good()) as server, shopify(server.url, tmp_path) as made:
        assert made.api_versions() == {"2026-10": True}
    (seen,) = server.seen
    assert (seen.method, seen.path) == ("POST", "/admin/api/2026-10/graphql.json")
    assert seen.headers["x-shopify-access-token"] == TOKEN
    assert "authorization" not in seen.headers


def test_a_throttled_query_waits_as_long_as_its_cost_takes(tmp_path: Path) -> None:
    status = {"maximumAvailable": 1000.0, "currentlyAvailable": 700, "restoreRate": 100.0}
    throttled = errors("THROTTLED", {"requestedQueryCost": 752, "actualQueryCost": None, "throttleStatus": status})
    started = time.monotonic()
    found, asked = ask(sequence(throttled, good()), tmp_path, RetryPolicy(base_seconds=0.001))
    assert (found, asked) == ({"2026-10": True}, 2)
    assert 0.5 <= time.monotonic() - started < 2.5  # (752 - 700) / 100


def test_the_published_throttled_answer_is_one(examples: Path, tmp_path: Path) -> None:
    body = (examples / "graphql_throttled_error.json").read_bytes()
    error, asked = ask(lambda _: Reply(200, body), tmp_path, RetryPolicy(attempts=2, waiting=False))
    assert (type(error), asked) == (RateLimitedError, 2)
    assert "THROTTLED: Throttled" in str(error)


@pytest.mark.parametrize(
    ("reply", "kind", "asked", "said"),
    [
        (errors("ACCESS_DENIED", message="Access denied for orders field."), PermissionLostError, 1, "Access denied"),
        (errors("SHOP_INACTIVE"), PermissionLostError, 1, "SHOP_INACTIVE"),
        (errors("INTERNAL_SERVER_ERROR"), ProviderUnavailableError, 3, "INTERNAL_SERVER_ERROR"),
        (errors("MAX_COST_EXCEEDED"), RefusedError, 1, "MAX_COST_EXCEEDED"),
        (errors("undefinedField", message="Field 'x' doesn't exist"), RefusedError, 1, "doesn't exist"),
        (Reply(200, b'{"errors":"[API] This action requires approval"}'), RefusedError, 1, "requires approval"),
        (Reply(200, b"{}"), BadResponseError, 3, "neither data nor errors"),
        (Reply(200, b'{"data":null}'), BadResponseError, 3, "neither data nor errors"),
        (Reply(402, b'{"errors":"Unavailable Shop"}'), PermissionLostError, 1, "frozen"),
        (Reply(423, b'{"errors":"Locked"}'), PermissionLostError, 1, "locked"),
        (Reply(404, b'{"errors":"Not Found"}'), PermissionLostError, 1, "no such shop"),
        (Reply(403, b'{"errors":"Forbidden"}'), PermissionLostError, 1, "403"),
        (Reply(430, b"{}"), ProviderUnavailableError, 1, "430"),
        (Reply(503, b""), ProviderUnavailableError, 3, "503"),
    ],
)
def test_every_refusal_has_its_own_error(reply: Reply, kind: type, asked: int, said: str, tmp_path: Path) -> None:
    error, count = ask(lambda _: reply, tmp_path, RetryPolicy(attempts=3, waiting=False))
    assert (type(error), count) == (kind, asked)
    assert said in str(error)
    assert TOKEN not in repr(error) + str(error)


def test_another_version_than_the_pinned_one_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.WARNING),
        serve(lambda _: good(**{"X-Shopify-API-Version": "2027-01"})) as server,
        shopify(server.url, tmp_path) as made,
    ):
        made.api_versions()
        made.api_versions()
        assert made.versions_answered == {"2027-01"}
    assert [record.message for record in caplog.records if "2027-01" in record.message] == [
        "shopify:test: Shopify answers with version 2027-01 instead of 2026-10, which it no longer supports: update Flux"
    ]


def test_pages_become_smaller_when_they_could_cost_too_much_and_inner_ones_are_read_to_the_end(tmp_path: Path) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []
    lost = [True]

    def answer(name: str, variables: Any) -> Any:
        if name == "Shop":
            return SHOP
        if name == "Orders":
            if variables["first"] > 3:
                return errors(
                    "MAX_COST_EXCEEDED", message="Query cost is 1200, which exceeds the single query max cost limit"
                )
            first = int(variables["after"] or 0)
            numbers = range(first, min(7, first + variables["first"]))
            nodes = [order(n, [{"id": f"{n}.0"}], "more" if n == 4 else None) for n in numbers]
            return {"orders": page(nodes, str(numbers[-1] + 1) if numbers[-1] < 6 else None)}
        if name == "MoreLines":
            assert variables["id"] == gid("Order", 4)
            after = variables["after"]
            if after == "then" and lost.pop() if lost else False:
                return errors("INVALID_CURSOR", message="Invalid cursor for current pagination sort.")
            nodes, cursor = {"more": (["4.1"], "then"), "then": (["4.2"], None), None: (["4.0", "4.1", "4.2"], None)}[
                after
            ]
            return {"node": {"connection": page([{"id": line} for line in nodes], cursor)}}
        raise AssertionError(name)

    with serve(graphql(answer, asked)) as server, shopify(server.url, tmp_path) as made:
        found = [o for part in made.pages(WINDOW, "created") for o in part.orders]
    assert [o.header.order_id for o in found if o.header] == [str(n) for n in range(7)]
    lines = [json.loads(bytes(o.raw))["lineItems"] for o in found]
    assert lines[4] == {"nodes": [{"id": "4.0"}, {"id": "4.1"}, {"id": "4.2"}]}
    assert lines[5] == {"nodes": [{"id": "5.0"}]}
    sizes = [variables["first"] for name, variables in asked if name == "Orders"]
    assert sizes[:4] == [20, 10, 5, 2]
    assert max(sizes[4:]) <= 4
    assert json.loads(bytes(found[0].raw))["flux_location_id"] == "7"


def test_agreements_and_their_sales_are_read_to_their_ends(tmp_path: Path) -> None:
    def agreement(name: str, sales: list[Any], cursor: str | None = None) -> dict[str, Any]:
        return {"id": name, "happenedAt": "2026-11-11T00:01:00Z", "reason": "ORDER", "sales": page(sales, cursor)}

    asked: list[tuple[str, dict[str, Any]]] = []
    lost = {"MoreAgreements": [True], "MoreSales": [True]}

    def answer(name: str, variables: Any) -> Any:
        if name == "Shop":
            return SHOP
        if name == "Orders":
            first = agreement("A", [sale(1)], "behind 1")
            return {"orders": page([order(1, agreements=edges(first, cursor="behind A"))])}
        if lost[name]:
            lost[name].pop()
            return errors("INVALID_CURSOR", message="Invalid cursor for current pagination sort.")
        if name == "MoreAgreements":
            rest = [agreement("B", [sale(4)], "behind 4"), agreement("C", [sale(6)])]
            every = rest if variables["after"] else [agreement("A", [sale(1)], "behind 1"), *rest]
            return {"node": {"connection": edges(*every)}}
        assert name == "MoreSales"
        mine = {None: ("A", 1, 3), "behind A": ("B", 4, 5)}[variables["agreement"]]
        first = int(variables["after"][7:]) + 1 if variables["after"] else mine[1]
        cursor = None if first == mine[2] else f"behind {first}"
        return {"node": {"agreements": {"nodes": [{"id": mine[0], "connection": page([sale(first)], cursor)}]}}}

    with serve(graphql(answer, asked)) as server, shopify(server.url, tmp_path) as made:
        (found,) = made.pages(WINDOW, "created")
    landed = json.loads(bytes(found.orders[0].raw))["agreements"]
    assert [(one["id"], one["sales"]) for one in landed["nodes"]] == [
        ("A", {"nodes": [sale(1), sale(2), sale(3)]}),
        ("B", {"nodes": [sale(4), sale(5)]}),
        ("C", {"nodes": [sale(6)]}),
    ]
    assert lost == {"MoreAgreements": [], "MoreSales": []}
    assert b"pageInfo" not in bytes(found.orders[0].raw)
    assert len([name for name, _ in asked if name == "MoreSales"]) > 4


def test_sales_of_another_agreement_are_never_taken(tmp_path: Path) -> None:
    def answer(name: str, variables: Any) -> Any:
        if name == "Orders":
            one = {"id": "A", "happenedAt": "2026-11-11T00:01:00Z", "sales": page([sale(1)], "behind 1")}
            return {"orders": page([order(1, agreements=edges(one))])}
        moved = {"id": "B", "connection": page([sale(2)])}
        return SHOP if name == "Shop" else {"node": {"agreements": {"nodes": [moved]}}}

    with (
        serve(graphql(answer)) as server,
        shopify(server.url, tmp_path) as made,
        pytest.raises(ProviderUnavailableError, match="agreements changed"),
    ):
        list(made.pages(WINDOW, "created"))


def test_a_lost_cursor_begins_again_where_it_was_and_gives_up_in_the_end(tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []

    def answer(name: str, variables: Any) -> Any:
        if name == "Shop":
            return SHOP
        asked.append(variables)
        if variables["after"] is not None:
            return errors("", message="Invalid cursor for current pagination sort.")
        return {"orders": page([order(60, agreements=None)], "next")}

    with (
        serve(graphql(answer)) as server,
        shopify(server.url, tmp_path) as made,
        pytest.raises(ProviderUnavailableError, match="cursors"),
    ):
        list(made.pages(WINDOW, "updated"))
    searches = [variables["query"] for variables in asked if variables["after"] is None]
    assert searches[0] == "updated_at:>='2026-11-11T00:00:00Z' AND updated_at:<'2026-11-12T00:00:00Z'"
    assert searches[1] == "updated_at:>='2026-11-11T01:00:00Z' AND updated_at:<'2026-11-12T00:00:00Z'"
    assert 5 < len(searches) < 20


def test_deep_searches_begin_anew_before_shopify_ends_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_DEEPEST", 4)
    asked: list[dict[str, Any]] = []

    def answer(name: str, variables: Any) -> Any:
        if name == "Shop":
            return SHOP
        asked.append(variables)
        since = datetime.fromisoformat(variables["query"].split("'")[1])
        first = int(variables["after"]) if variables["after"] else int((since - WINDOW.start) / timedelta(minutes=1))
        numbers = range(first, min(first + 2, 10))
        return {"orders": page([order(n) for n in numbers], None if numbers[-1] == 9 else str(numbers[-1] + 1))}

    with serve(graphql(answer)) as server, shopify(server.url, tmp_path) as made:
        found = [o.header.order_id for p in made.pages(WINDOW, "created") for o in p.orders if o.header]
    assert set(found) == {str(n) for n in range(10)}
    assert len({variables["query"] for variables in asked}) > 2


def test_an_order_of_an_unknown_place_or_that_cannot_be_read_is_not_lost(tmp_path: Path) -> None:
    elsewhere = order(1, retailLocation={"id": gid("Location", 99), "legacyResourceId": "99"})
    broken = order(2, processedAt=None)
    odd = {"id": gid("Order", 3)}
    fraction = order(4, currentTotalPriceSet=bag("1.005"))

    def answer(name: str, variables: Any) -> Any:
        if name == "Orders":
            return {"orders": page([elsewhere, broken, odd, fraction])}
        return SHOP if name == "Shop" else {"locations": page([])}

    with serve(graphql(answer)) as server, shopify(server.url, tmp_path) as made:
        (found,) = made.pages(WINDOW, "created")
    assert [o.header.location_id if o.header else o.problem.split(":")[0] for o in found.orders] == [
        "99",
        "the order's header cannot be read",
        "the order is not in the form that was asked for",
        "the order's header cannot be read",
    ]
    assert json.loads(bytes(found.orders[2].raw)) == odd


#: Four more given back than the goods were worth, as a whole order tells it and as a header does.
ADJUSTED = {"agreements": {"nodes": [{"sales": {"nodes": [sale(1), sale(2, "-4.0", "ADJUSTMENT")]}}]}}
ADJUSTED_HEAD = {
    "agreements": None,
    "refunds": [{"orderAdjustments": {"nodes": [{"amountSet": bag("-3.5"), "taxAmountSet": bag("-0.5")}]}}],
}


@pytest.mark.parametrize(
    ("more", "state", "total"),
    [
        ({}, "COMPLETED", 1000),
        ({"displayFinancialStatus": "REFUNDED"}, "COMPLETED", 1000),
        ({"displayFinancialStatus": "PARTIALLY_PAID"}, "OPEN", 1000),
        ({"displayFinancialStatus": "EXPIRED"}, "OPEN", 1000),
        ({"displayFinancialStatus": None}, "OPEN", 1000),
        ({"displayFinancialStatus": "VOIDED"}, "CANCELED", 1000),
        ({"cancelledAt": "2026-11-13T00:00:00Z"}, "CANCELED", 0),
        ({"test": True}, "TEST", 1000),
        ({"totalCashRoundingAdjustment": {"paymentSet": bag("0.02"), "refundSet": bag("-0.01")}}, "COMPLETED", 1003),
        # Given back beyond what was calculated: the current total leaves it out in the first, and not in the second.
        ({**ADJUSTED, "netPaymentSet": bag("6.0"), "totalOutstandingSet": bag("0")}, "COMPLETED", 600),
        ({**ADJUSTED, "netPaymentSet": bag("10"), "totalOutstandingSet": bag("0")}, "COMPLETED", 1000),
        ({**ADJUSTED_HEAD, "netPaymentSet": bag("6.0"), "totalOutstandingSet": bag("0")}, "COMPLETED", 600),
        # A fee for cancelling was kept.
        (
            {**ADJUSTED, "cancelledAt": "2026-11-13T00:00:00Z", "currentTotalPriceSet": bag("0.0")}
            | {"netPaymentSet": bag("-4.0"), "totalOutstandingSet": bag("0")},
            "CANCELED",
            -400,
        ),
    ],
)
def test_state_and_total(more: dict[str, Any], state: str, total: int) -> None:
    landed = {**order(1), "agreements": {"nodes": []}, **more}
    header = read(msgspec.Raw(json.dumps(landed).encode()), "7").header
    assert header is not None
    assert header.counts is (state != "TEST")
    assert (header.state, header.total, header.location_id) == (state, total, "7")
    assert header.closed_at == (datetime(2026, 11, 13, tzinfo=UTC) if "cancelledAt" in more else header.created_at)


def test_threads_share_the_bucket_and_reserve_before_they_send() -> None:
    waits: list[float] = []
    bucket = Bucket(0, waits.append)
    bucket.told("orders", msgspec.convert(COST, Cost))
    assert [bucket.reserve("orders") for _ in range(21)] == [100] * 21
    assert waits[0] == pytest.approx(0.0, abs=0.1) or len(waits) == 2
    assert waits[-1] == pytest.approx(2.0, abs=0.2)  # 2,100 reserved, 1,900 there, 100 a second
    bucket.release(2100)
    before = len(waits)
    bucket.reserve("orders")
    assert len(waits) == before
    slow: list[float] = []
    own = Bucket(50, slow.append)
    own.told("orders", msgspec.convert(COST, Cost))
    own.reserve("orders")
    own.reserve("orders")
    assert slow == [pytest.approx(2.0, abs=0.1)]


def test_a_shops_address() -> None:
    template = "https://{shop}.myshopify.com"
    for name in ("acme", "Acme.myshopify.com", "https://acme.myshopify.com/"):
        assert shops.address(template, name) == "https://acme.myshopify.com"
    assert shops.address("http://127.0.0.1:8000/shopify", "acme") == "http://127.0.0.1:8000/shopify"
    for name in ("", "evil.com", "acme.myshopify.com.evil.com", "a/b", "acme.myshopify.com@evil", "-acme", "a b"):
        with pytest.raises(ConfigurationError, match="shop"):
            shops.address(template, name)


# ── bulk operations ──────────────────────────────────────────────────────────────────────────────────────────────────


def lines(*objects: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in objects)


def child(parent: int, number: int, **more: Any) -> dict[str, Any]:
    return {"id": gid("LineItem", number), "__parentId": gid("Order", parent), **more}


def root(number: int) -> dict[str, Any]:
    return {name: value for name, value in order(number).items() if name not in ("lineItems", "agreements")}


def test_children_come_before_or_long_after_their_parents() -> None:
    placed = {"id": gid("OrderAgreement", 30), "happenedAt": "2026-11-11T00:01:00Z", "__parentId": gid("Order", 1)}
    sold = {**sale(31), "__parentId": placed["id"]}
    content = lines(child(2, 20), sold, root(2), root(1), child(2, 21), placed, child(1, 11))
    first, second = bulk.assemble(content, 2, 7)
    assert msgspec.json.decode(first["lineItems"])["nodes"] == [{"id": gid("LineItem", 11)}]
    (edge,) = msgspec.json.decode(first["agreements"])["edges"]
    assert edge["node"]["id"] == placed["id"]
    assert edge["node"]["sales"] == {"pageInfo": {"hasNextPage": False}, "nodes": [sale(31)]}
    assert [node["id"][-2:] for node in msgspec.json.decode(second["lineItems"])["nodes"]] == ["20", "21"]
    assert msgspec.json.decode(second["agreements"])["edges"] == []


@pytest.mark.parametrize(
    ("content", "roots", "objects"),
    [
        (lines(root(1)), 2, 1),
        (lines(root(1), child(1, 2)), 1, 3),
        (lines(root(1), child(9, 2)), 1, 2),
        (lines(root(1), {**sale(3), "__parentId": gid("OrderAgreement", 4)}), 1, 2),
        (lines(root(1))[:-9], 1, 1),
        (b"[]\n", 1, 1),
    ],
)
def test_a_file_that_is_not_whole_is_not_used(content: bytes, roots: int, objects: int) -> None:
    with pytest.raises(bulk.BulkUnavailableError):
        bulk.assemble(content, roots, objects)


def test_a_bulk_operation_is_waited_for_fetched_without_the_token_and_cut_when_too_large(tmp_path: Path) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []
    busy = [{"code": "OPERATION_IN_PROGRESS", "message": "already in progress"}]
    polls: dict[str, int] = {}
    searches: list[str] = []

    def answer(name: str, variables: Any) -> Any:
        if name == "Shop":
            return SHOP
        if name == "BulkRun":
            if busy:
                return {"bulkOperationRunQuery": {"bulkOperation": None, "userErrors": [busy.pop()]}}
            searches.append(variables["query"].split('"')[1])
            operation = {"id": f"op{len(searches)}", "status": "CREATED"}
            return {"bulkOperationRunQuery": {"bulkOperation": operation, "userErrors": []}}
        if name == "BulkPoll":
            polls[variables["id"]] = polls.get(variables["id"], 0) + 1
            if polls[variables["id"]] < 2:
                return {"bulkOperation": {"id": variables["id"], "status": "RUNNING", "objectCount": "0"}}
            first = variables["id"] == "op1"
            return {
                "bulkOperation": {
                    "id": variables["id"],
                    "status": "COMPLETED",
                    "objectCount": "2",
                    "rootObjectCount": "1",
                    "fileSize": str(bulk.LARGEST_FILE + 1) if first else "200",
                    "url": f"{server.url}/files/{variables['id']}?Signature=abc%2Fdef%3D",
                }
            }
        assert name.startswith("/files/op"), name
        number = {"2": 60, "3": 60 * 24 * 5}[name[9]]
        return Reply(200, lines(root(number), child(number, 1)))

    long = Window(("7",), WINDOW.start, WINDOW.start + timedelta(days=8))
    with serve(graphql(answer, asked)) as server, shopify(server.url, tmp_path) as made:
        pages = list(made.pages(long, "created"))
    assert [o.header.order_id for p in pages for o in p.orders if o.header] == ["60", "7200"]
    assert [p.last for p in pages] == [False, True]
    assert searches == [
        "processed_at:>='2026-11-11T00:00:00Z' AND processed_at:<'2026-11-19T00:00:00Z'",
        "processed_at:>='2026-11-11T00:00:00Z' AND processed_at:<'2026-11-15T00:00:00Z'",
        "processed_at:>='2026-11-15T00:00:00Z' AND processed_at:<'2026-11-19T00:00:00Z'",
    ]
    files = [seen for seen in server.seen if seen.path.startswith("/files")]
    assert [seen.path for seen in files] == ["/files/op2?Signature=abc%2Fdef%3D", "/files/op3?Signature=abc%2Fdef%3D"]
    assert all(TOKEN not in str(seen.headers) for seen in files)


class Clock:
    """Stands in for the waiting between polls."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.mark.parametrize(("found", "hours"), [("0", 0.5), ("more with every poll", 2)])
def test_a_bulk_operation_that_never_ends_is_cancelled_and_the_orders_are_paged(
    found: str, hours: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[tuple[str, dict[str, Any]]] = []
    clock = Clock()
    monkeypatch.setattr(Transport, "_sleep", lambda _transport, seconds: clock.sleep(seconds))

    def answer(name: str, variables: Any) -> Any:
        running = {"id": "op", "status": "RUNNING", "objectCount": "0" if found == "0" else str(len(names))}
        if name == "BulkRun":
            return {"bulkOperationRunQuery": {"bulkOperation": running, "userErrors": []}}
        if name == "BulkPoll":
            return {"bulkOperation": running}
        if name == "BulkCancel":
            return {"bulkOperationCancel": {"bulkOperation": {"id": "op"}, "userErrors": []}}
        return {"orders": {"pageInfo": {"hasNextPage": False}, "nodes": []}}

    long = Window(("7",), WINDOW.start, WINDOW.start + timedelta(days=8))
    with serve(graphql(answer, names)) as server, shopify(server.url, tmp_path) as made:
        assert [page.orders for page in made.pages(long, "created")] == [[]]
    assert [name for name, _ in names][-2:] == ["BulkCancel", "Orders"]
    assert clock.seconds > hours * 3600
    assert len(names) < hours * 3600 / 10 + 20


@pytest.mark.parametrize("cursor", ["the same", None])
@pytest.mark.parametrize("more", ["MoreLines", "MoreAgreements", "MoreSales", "MoreVariants"])
def test_connections_inside_of_others_that_never_end_are_noticed(more: str, cursor: str | None, tmp_path: Path) -> None:
    ending, endless = {"hasNextPage": False}, {"hasNextPage": True, "endCursor": cursor}
    names: list[tuple[str, dict[str, Any]]] = []

    def connection(operation: str) -> dict[str, Any]:
        return {"pageInfo": endless if more == operation else ending, "nodes": [{"id": "gid://shopify/LineItem/1"}]}

    def agreements() -> dict[str, Any]:
        node = {"id": "gid://shopify/SalesAgreement/1", "sales": connection("MoreSales")}
        return {
            "pageInfo": endless if more == "MoreAgreements" else ending,
            "edges": [{"cursor": "c", "node": node}],
        }

    def answer(name: str, _: Any) -> Any:
        of_sales = {"nodes": [{"id": "gid://shopify/SalesAgreement/1", "connection": connection("MoreSales")}]}
        known = {
            "MoreLines": {"node": {"connection": connection("MoreLines")}},
            "MoreVariants": {"node": {"connection": connection("MoreVariants")}},
            "MoreAgreements": {"node": {"connection": agreements()}},
            "MoreSales": {"node": {"agreements": of_sales}},
        }
        return known[name]

    with serve(graphql(answer, names)) as server, shopify(server.url, tmp_path) as made:
        order = {"id": "gid://shopify/Order/1", "lineItems": connection("MoreLines"), "agreements": agreements()}
        product = {"id": "gid://shopify/Product/1", "variants": connection("MoreVariants")}
        raw = msgspec.Raw(json.dumps(product if more == "MoreVariants" else order).encode())
        read = made._streams._whole_product if more == "MoreVariants" else lambda one: made._completer.whole([one])
        with pytest.raises(BadResponseError, match="do not end") as stuck:
            read(raw)
    assert stuck.value.connection == "shopify:test"
    assert len(names) <= 2


def test_a_bulk_operation_that_nobody_waits_for_is_cancelled(tmp_path: Path) -> None:
    names: list[tuple[str, dict[str, Any]]] = []

    def answer(name: str, variables: Any) -> Any:
        if name == "BulkRun":
            return {"bulkOperationRunQuery": {"bulkOperation": {"id": "op", "status": "RUNNING"}, "userErrors": []}}
        if name == "BulkPoll":
            return errors("ACCESS_DENIED")
        return {"bulkOperationCancel": {"bulkOperation": {"id": "op", "status": "CANCELING"}, "userErrors": []}}

    long = Window(("7",), WINDOW.start, WINDOW.start + timedelta(days=8))
    with (
        serve(graphql(answer, names)) as server,
        shopify(server.url, tmp_path) as made,
        pytest.raises(PermissionLostError),
    ):
        list(made.pages(long, "created"))
    assert [name for name, _ in names] == ["BulkRun", "BulkPoll", "BulkCancel"]
