"""The client against the sandbox, which executes its queries against Shopify's own schema: both ways, streams, truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from flux_pipelines.domain.errors import FluxError, PermissionLostError, RateLimitedError
from flux_pipelines.providers.base import Location, Order, Record, Window
from flux_pipelines.providers.shopify import PROVIDER
from flux_pipelines.providers.shopify.client import ShopifyClient
from flux_pipelines.transport import RetryPolicy
from flux_pipelines_tests.providers.shopify.nodes import normalise
from flux_pipelines_tests.providers.shopify.wire import shopify
from flux_pipelines_tests.sync.streamfiles import run_sql
from flux_sandbox.options import SandboxOptions
from flux_sandbox.server import RunningSandbox

SHOPS = ("harbor-shop", "fjord-shop")
END = date(2026, 11, 10)
DAYS = 12


@dataclass
class Shop:
    """A shop of the sandbox, and what two ways of fetching its orders gave."""

    name: str
    url: str
    token: str
    locations: list[Location]
    window: Window
    paged: list[Order]
    bulk: list[Order]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    now = datetime(2026, 11, 12, 12, tzinfo=UTC)
    with RunningSandbox(
        SandboxOptions(rate_limit=100_000, history_days=DAYS, end_day=END, clock=lambda: now)
    ) as running:
        yield running


def token_of(sandbox: RunningSandbox, shop: str, **more: Any) -> str:
    answer = httpx.post(f"{sandbox.url}/sandbox/tokens", json={"merchant": shop, **more}).raise_for_status()
    return str(answer.json()["access_token"])


def everything(client: ShopifyClient, window: Window, time_field: Any = "created") -> list[Order]:
    pages = list(client.pages(window, time_field))
    assert [page.last for page in pages] == [False] * (len(pages) - 1) + [True]
    return [order for page in pages for order in page.orders]


@pytest.fixture(scope="module")
def shops(sandbox: RunningSandbox, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Shop]:
    found = {}
    for name in SHOPS:
        url, token = f"{sandbox.url}/shopify/shops/{name}", token_of(sandbox, name)
        folder = tmp_path_factory.mktemp(name)
        with shopify(url, folder, token) as client:
            locations = client.locations()
            zone = ZoneInfo(locations[0].timezone)
            end = datetime(END.year, END.month, END.day, tzinfo=zone).astimezone(UTC)
            ids = tuple(location.location_id for location in locations)
            first = END - timedelta(days=DAYS)  # clocks go back in between: the window is an hour longer than its days
            start = datetime(first.year, first.month, first.day, tzinfo=zone).astimezone(UTC)
            window = Window(ids, start, end)
            assert not client.supports_slicing(window, "created")
            bulk = everything(client, window)
        with shopify(url, folder, token, bulk_days=0) as client:
            assert client.supports_slicing(window, "created")
            paged = everything(client, window)
        found[name] = Shop(name, url, token, locations, window, paged, bulk)
    return found


@pytest.mark.parametrize("name", SHOPS)
def test_bulk_and_paging_give_the_same_bytes(name: str, shops: dict[str, Shop]) -> None:
    shop = shops[name]
    paged = {bytes(order.raw) for order in shop.paged}
    assert {bytes(order.raw) for order in shop.bulk} == paged
    assert len(shop.bulk) == len(shop.paged) == len(paged) > 100
    headers = [order.header for order in shop.paged if order.header is not None]
    assert len(headers) == len(paged)
    assert [h.created_at for h in headers] == sorted(h.created_at for h in headers)
    reasons = {reason for reason in ("ORDER", "REFUND") if any(f'"reason":"{reason}"'.encode() in raw for raw in paged)}
    assert reasons == {"ORDER", "REFUND"}
    assert not any(b"pageInfo" in raw for raw in paged)
    assert {h.location_id for h in headers} == {location.location_id for location in shop.locations}


@pytest.mark.parametrize("name", SHOPS)
def test_rows_come_to_the_truth(name: str, shops: dict[str, Shop], sandbox: RunningSandbox, tmp_path: Path) -> None:
    shop = shops[name]
    every, work = normalise(tmp_path, [bytes(order.raw) for order in shop.paged], shop.locations)
    assert [bad.reason for bad in work.bad] == []
    totals: Counter[str] = Counter()
    for row in every:
        totals[row["order_id"]] += row["total"]
    sold = [h for order in shop.paged if (h := order.header) is not None and h.counts]
    assert {h.state for h in sold} >= {"COMPLETED", "CANCELED"}
    assert {h.order_id: totals[h.order_id] * 100 for h in sold} == {h.order_id: h.total for h in sold}
    rows = [row for row in every if row["business_date"] < END]
    query = {
        "merchant": name,
        "from": str(END - timedelta(days=DAYS)),
        "to": str(END - timedelta(days=1)),
        "totals": "1",
    }
    truth = httpx.get(f"{sandbox.url}/sandbox/truth", params=query).json()["totals"][shop.locations[0].currency]

    def added(column: str, **where: str) -> Decimal:
        return 100 * sum(row[column] for row in rows if all(row[key] == value for key, value in where.items()))

    assert added("total") == truth["total"]
    assert added("gross") == truth["gross"]
    assert added("net") == truth["net"]
    assert added("tax") == truth["tax"]
    assert added("discount") == truth["discount"]
    assert added("total", line_type="tip") == truth["tips"]
    assert added("total", line_type="gift_card") == truth["gift_cards"]
    assert added("net", line_type="service_charge") == truth["service_charges"]
    assert added("net", kind="return") == truth["returns"]
    assert len({row["order_id"] for row in rows if row["kind"] == "sale"}) == truth["orders"]


@pytest.mark.parametrize("name", SHOPS)
def test_payments_come_to_the_truth(name: str, shops: dict[str, Shop], sandbox: RunningSandbox, tmp_path: Path) -> None:
    shop = shops[name]
    made = run_sql(tmp_path, PROVIDER, "payments", [bytes(o.raw) for o in shop.paged], shop.locations)
    assert made.bad == []
    rows = [row for row in made.rows.to_pylist() if row["business_date"] < END]
    query = {"merchant": name, "from": str(END - timedelta(days=DAYS)), "to": str(END - timedelta(days=1))}
    truth = httpx.get(f"{sandbox.url}/sandbox/truth/payments", params=query).json()
    (sums,) = truth["totals"].values()
    done = [row for row in rows if row["status"] == "completed"]

    def added(column: str, kind: str = "") -> Decimal:
        return 100 * sum(row[column] for row in done if kind in ("", row["kind"]))

    assert added("amount", "payment") == sums["paid"]
    assert added("amount", "refund") == sums["refunded"]
    assert added("tip") == sums["tip"]
    assert added("fee") == sums["fee"]
    assert len([row for row in done if row["kind"] == "refund"]) == sums["refunds"]
    tenders = {(row["kind"], row["tender"]) for row in done}
    assert {("payment", "card"), ("payment", "cash"), ("refund", "card")} <= tenders
    assert all(row["source_payment_id"] for row in done if row["kind"] == "refund")


def records(client: ShopifyClient, stream: str, ids: tuple[str, ...], now: datetime) -> list[Record]:
    window = Window(ids, now, now, now.date())
    return [record for page in client.read(stream, window) for record in page]


@pytest.mark.parametrize("name", SHOPS)
def test_catalog_locations_and_stock_come_to_the_truth(
    name: str, shops: dict[str, Shop], sandbox: RunningSandbox, tmp_path: Path
) -> None:
    shop = shops[name]
    now = datetime(2026, 11, 12, 12, tzinfo=UTC)
    with shopify(shop.url, tmp_path / "client", shop.token) as client:
        catalog = records(client, "catalog", (), now)
        stock = records(client, "inventory", shop.window.location_ids, now)
        assert list(client.changes("catalog", Window((), now, now, now.date()))) == []
    made = run_sql(tmp_path / "p", PROVIDER, "products", catalog, shop.locations, slot="current")
    assert made.bad == []
    truth = httpx.get(f"{sandbox.url}/sandbox/truth/products", params={"merchant": name}).json()["products"]
    wanted = {
        item["product_id"]: (item["item_id"], item["name"], item["sku"] or None, item["upc"] or None, item["category"])
        for item in truth
        if item["active"]
    }
    rows = made.rows.to_pylist()
    found = {r["product_id"]: (r["item_id"], r["product_name"], r["sku"], r["upc"], r["category"]) for r in rows}
    assert found == wanted
    assert {r["product_id"]: r["price"] * 100 for r in rows} == {
        i["product_id"]: i["price"] for i in truth if i["active"]
    }
    places = run_sql(tmp_path / "l", PROVIDER, "locations", catalog, shop.locations, slot="current").rows.to_pylist()
    assert {(p["location_id"], p["name"], p["timezone"], p["currency"]) for p in places} == {
        (x.location_id, x.name, x.timezone, x.currency) for x in shop.locations
    }
    made = run_sql(tmp_path / "s", PROVIDER, "inventory_levels", stock, shop.locations, slot="2026-11-12/12")
    assert made.bad == []
    counts = httpx.get(f"{sandbox.url}/sandbox/truth/inventory", params={"merchant": name}).json()["counts"]
    levels = {(r["location_id"], r["product_id"]): r["quantity"] for r in made.rows.to_pylist()}
    counted = {key: quantity for key, quantity in levels.items() if quantity is not None}
    assert counted == {(c["location_id"], c["product_id"]): c["quantity"] for c in counts}


def test_what_changed_is_asked_for_cheaply_and_says_the_same(shops: dict[str, Shop], tmp_path: Path) -> None:
    shop = shops["harbor-shop"]
    now = datetime(2026, 11, 12, 12, tzinfo=UTC)
    with shopify(shop.url, tmp_path, shop.token) as client:
        changed = everything(client, Window(shop.window.location_ids, shop.window.start, now), "updated")
        calls = client.stats.requests
        with pytest.raises(ValueError, match="closed"):
            next(iter(client.pages(shop.window, "closed")))
        pier = tuple(x.location_id for x in shop.locations if x.location_id != shop.locations[0].location_id)
        there = everything(client, Window(pier, shop.window.start, now), "updated")
    headers = {order.header.order_id: order.header for order in changed if order.header is not None}
    assert {o.header.order_id: o.header for o in shop.paged if o.header} == {
        h.order_id: headers[h.order_id] for o in shop.paged if (h := o.header) is not None
    }
    assert calls <= 5
    assert [o.header.location_id for o in there if o.header] == [pier[0]] * len(there)
    assert 0 < len(there) < len(changed)


def test_orders_by_id_and_half_open_windows(shops: dict[str, Shop], tmp_path: Path) -> None:
    shop = shops["harbor-shop"]
    headers = [o.header for o in shop.paged if o.header is not None]
    some = [h.order_id for h in headers[:23]]
    first, last = headers[10], headers[20]
    with shopify(shop.url, tmp_path, shop.token) as client:
        found = client.orders([*some, some[0], "999"])
        ids = shop.window.location_ids
        between = everything(client, Window(ids, first.created_at, last.created_at))
        later = everything(client, Window(ids, first.created_at + timedelta(milliseconds=1), last.created_at))
        assert everything(client, Window(ids, datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 2, tzinfo=UTC))) == []
        assert everything(client, Window(ids, datetime(2019, 1, 1, tzinfo=UTC), datetime(2020, 1, 2, tzinfo=UTC))) == []
    assert {bytes(o.raw) for o in found} == {bytes(o.raw) for o in shop.paged[:23]}
    inside = [h.order_id for h in headers if first.created_at <= h.created_at < last.created_at]
    assert [o.header.order_id for o in between if o.header] == inside
    assert [o.header.order_id for o in later if o.header] == [i for i in inside if i != first.order_id]


def test_a_bulk_operation_that_fails_is_replaced_by_paging(
    shops: dict[str, Shop], sandbox: RunningSandbox, tmp_path: Path
) -> None:
    shop = shops["fjord-shop"]
    httpx.post(f"{sandbox.url}/sandbox/shopify", json={"merchant": shop.name, "fail_bulk": 1}).raise_for_status()
    with shopify(shop.url, tmp_path, shop.token) as client:
        found = everything(client, shop.window)
    assert [bytes(o.raw) for o in found] == [bytes(o.raw) for o in shop.paged]


def test_permission_history_and_versions(sandbox: RunningSandbox, shops: dict[str, Shop], tmp_path: Path) -> None:
    now = datetime(2026, 11, 12, 12, tzinfo=UTC)
    url = shops["harbor-shop"].url
    with shopify(url, tmp_path, shops["harbor-shop"].token) as client:
        assert client.verify_access() == "harbor-shop.myshopify.com"
        assert client.history_from(now) is None
        assert client.api_versions()[PROVIDER.api_version] is True
        assert client.versions_answered == {PROVIDER.api_version}
    few = token_of(sandbox, "harbor-shop", scopes=["read_orders", "read_products", "read_locations"])
    with shopify(url, tmp_path, few) as client:
        assert client.history_from(now) == now - timedelta(days=60)
        with pytest.raises(PermissionLostError, match="read_inventory"):
            client.verify_access()
        with pytest.raises(PermissionLostError, match="ACCESS_DENIED"):
            records(client, "inventory", shops["harbor-shop"].window.location_ids, now)


@pytest.mark.parametrize(
    ("status", "kind"), [(402, PermissionLostError), (423, PermissionLostError), (403, PermissionLostError)]
)
def test_a_shop_that_is_closed_to_us(
    status: int, kind: type[FluxError], sandbox: RunningSandbox, shops: dict[str, Shop], tmp_path: Path
) -> None:
    shop = shops["harbor-shop"]
    httpx.post(f"{sandbox.url}/sandbox/shopify", json={"merchant": shop.name, "status": status}).raise_for_status()
    try:
        with shopify(shop.url, tmp_path, shop.token) as client, pytest.raises(kind):
            client.verify_access()
    finally:
        httpx.post(f"{sandbox.url}/sandbox/shopify", json={"merchant": shop.name, "status": 0}).raise_for_status()


def test_an_empty_bucket_is_waited_for(sandbox: RunningSandbox, shops: dict[str, Shop], tmp_path: Path) -> None:
    shop = shops["fjord-shop"]

    def bucket(points: int, rate: int) -> None:
        body = {"merchant": shop.name, "points": points, "restore_rate": rate}
        httpx.post(f"{sandbox.url}/sandbox/shopify", json=body).raise_for_status()

    try:
        bucket(0, 1)
        at_once = RetryPolicy(attempts=2, waiting=False)
        with (
            shopify(shop.url, tmp_path / "a", shop.token, retry=at_once) as client,
            pytest.raises(RateLimitedError, match="THROTTLED"),
        ):
            client.verify_access()
        bucket(0, 4)
        with shopify(shop.url, tmp_path / "b", shop.token, retry=RetryPolicy(base_seconds=0.01)) as client:
            assert client.verify_access() == "fjord-shop.myshopify.com"
            assert client.stats.retries <= 1  # it was told how long to wait, and did not knock in between
    finally:
        bucket(20_000, 20_000)


def test_faults_change_nothing(sandbox: RunningSandbox, shops: dict[str, Shop], tmp_path: Path) -> None:
    shop = shops["harbor-shop"]
    sandbox.world.faults.change("error500=0.06,error429=0.06,html=0.05,truncate=0.05,disconnect=0.04,cursor=0.15")
    try:
        with shopify(shop.url, tmp_path, shop.token, bulk_days=0) as client:
            seen = [everything(client, shop.window) for _ in range(3)]
            retried = client.stats.retries
    finally:
        sandbox.world.faults.change("")
    for orders in seen:
        assert {bytes(o.raw) for o in orders} == {bytes(o.raw) for o in shop.paged}
    assert retried > 0
