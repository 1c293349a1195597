"""Beside orders: people, goods in common, shifts, stock, the catalog, and what control makes of them over HTTP."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime
from itertools import pairwise
from typing import Any

import httpx
import pytest

from flux_pipelines.domain.errors import ConfigurationError
from flux_sandbox.events import WorldEvent
from flux_sandbox.options import SandboxOptions
from flux_sandbox.people import personal
from flux_sandbox.pricing import price
from flux_sandbox.server import RunningSandbox
from flux_sandbox.truth_feeds import inventory_truth, labor_truth, products_truth
from flux_sandbox.world import World

HOUR = 3_600_000
END = date(2026, 11, 20)


@pytest.fixture(scope="module")
def month() -> World:
    return World(SandboxOptions(history_days=30, end_day=END))


def test_one_tenant_has_accounts_at_several_providers(month: World) -> None:
    tenants: dict[str, set[str]] = {}
    for merchant in month.merchants.values():
        tenants.setdefault(merchant.tenant, set()).add(merchant.provider)
        assert month.merchant(merchant.handle) is merchant
        assert merchant in month.merchants_of(merchant.provider)
    assert tenants == {"harbor": {"square", "toast", "shopify"}, "sakura": {"square"}, "fjord": {"square", "shopify"}}
    assert month.merchants_of("nobody") == []
    told = {one["handle"]: (one["provider"], one["tenant"]) for one in month.describe()}
    assert told["harbor-kitchen"] == ("toast", "harbor")


def test_the_same_goods_carry_the_same_code_a_similar_name_or_nothing(month: World) -> None:
    square, kitchen, shop = (month.merchant(h) for h in ("harbor", "harbor-kitchen", "harbor-shop"))
    for one, other in ((square, kitchen), (square, shop)):
        skus = {i.sku for i in one.items if i.sku} & {i.sku for i in other.items if i.sku}
        upcs = {i.upc for i in one.items if i.upc} & {i.upc for i in other.items if i.upc}
        assert skus
        assert upcs
    by_sku = {i.sku: i for i in square.items if i.sku}
    # The same product by its bar code alone, and by its name alone.
    assert any(i.upc and not i.sku for i in kitchen.items)
    blue = next(i for i in shop.items if (i.name, i.variation) == ("Harbor Mug", "Blue"))
    assert not blue.sku
    assert not blue.upc
    assert (by_sku["HB-MUG-B"].name, by_sku["HB-MUG-B"].variation) == ("Harbor Mug", "Blue")
    assert not {i.name for i in kitchen.items if i.category == "Mains"} & {i.name for i in square.items}
    for merchant in month.merchants.values():
        for upc in (i.upc for i in merchant.items if i.upc):
            weights = [3 if place % 2 else 1 for place in range(len(upc))]
            assert sum(w * int(d) for w, d in zip(weights, reversed(upc), strict=True)) % 10 == 0
        codes = Counter(i.id for i in merchant.items)
        assert max(codes.values()) == 1
        assert all(i.product_id and i.updated for i in merchant.items)


def test_people_are_shared_within_a_tenant_under_other_ids(month: World) -> None:
    square, kitchen, sakura = (month.merchant(h) for h in ("harbor", "harbor-kitchen", "sakura"))
    mails = [{e.email: e.id for e in m.employees} for m in (square, kitchen)]
    both = mails[0].keys() & mails[1].keys()
    assert len(both) >= 3
    assert all(mails[0][mail] != mails[1][mail] for mail in both)
    buyers = {c.email for c in square.customers} & {c.email for c in kitchen.customers}
    assert len(buyers) >= 10
    assert not {c.email for c in square.customers} & {c.email for c in sakura.customers}
    texts = personal([square, kitchen])
    assert {c.email for c in square.customers} <= set(texts["emails"])
    assert all(texts.values())
    goods = " ".join(i.name for m in month.merchants.values() for i in m.items)
    assert not [name for name in texts["names"] if name in goods]


def test_customers_never_change_what_was_sold(month: World) -> None:
    sales = [sale for sale in month.sales.values() if sale.lines]
    assert 0.2 < sum(sale.customer is not None for sale in sales) / len(sales) < 0.5
    sale = next(sale for sale in sales if sale.customer is None and sale.state == "COMPLETED" and not sale.test)
    before, paid = price(sale), month.payments_of(sale)
    month.set_customer(sale.id, month.owner(sale).customers[0].email)
    assert sale.customer is month.owner(sale).customers[0]
    assert price(sale) == before
    assert [(one.id, one.amount, one.tip) for one in month.payments_of(sale)] == [
        (one.id, one.amount, one.tip) for one in paid
    ]


def test_shifts_cross_midnight_are_corrected_and_some_never_end(month: World) -> None:
    seen: Counter[str] = Counter()
    worked: dict[str, list[tuple[int, int]]] = {}
    for merchant in month.merchants.values():
        assert bool(merchant.shifts) == (merchant.provider != "shopify")
        for shift in merchant.shifts:
            seen["open"] += shift.end is None
            seen["deleted"] += shift.deleted
            seen["breaks"] += bool(shift.breaks)
            seen["tips"] += bool(shift.tips)
            assert shift.updated >= shift.start
            if shift.end is not None:
                assert shift.start < shift.end <= shift.updated
                seen["late edit"] += shift.updated - shift.end > 24 * HOUR
                seen["midnight"] += shift.start // (24 * HOUR) != shift.end // (24 * HOUR)
                worked.setdefault(shift.employee.id, []).append((shift.start, shift.end))
    for periods in worked.values():
        periods.sort()
        # Nobody is at two places at once.
        assert all(end <= start for (_, end), (start, _) in pairwise(periods))
    assert [w for w in ("open", "deleted", "breaks", "tips", "late edit", "midnight") if not seen[w]] == []
    kitchen = month.merchant("harbor-kitchen")
    ids = [location.id for location in kitchen.locations]
    found = list(month.shifts_between(ids, "updated", 0, 2**60))
    assert sorted(s.id for s in found) == sorted(s.id for s in kitchen.shifts)
    assert [s.updated for s in found] == sorted(s.updated for s in found)
    first = found[10].updated
    later = [s.id for s in month.shifts_between(ids, "updated", first, 2**60)]
    assert later == [s.id for s in found if s.updated >= first]
    told = labor_truth(month, merchant="harbor-kitchen", first=END, last=END)
    assert told
    assert {entry["business_date"] for entry in told} == {END.isoformat()}


def test_what_is_sold_is_gone_from_the_shelf_and_the_catalog_remembers(month: World) -> None:
    heard: list[WorldEvent] = []
    month.listeners.append(heard.append)
    shop = month.merchant("harbor-shop")
    place, item = shop.locations[1], shop.items[3]
    before = shop.counts[(place.id, item.id)].quantity
    month.sell(place.id, goods=[(item, 2)])
    assert shop.counts[(place.id, item.id)].quantity == before - 2
    assert [one.kind for one in heard] == ["sold", "stock_changed"]
    assert (heard[1].item, heard[1].count_before) == (item, before)
    month.set_stock(place.id, item.id, 40)
    dearer = month.change_item(shop, item.id, price=item.price + 100)
    gone = month.delete_item(shop, shop.items[-1].id)
    new = month.add_item(shop, "Winter Roast", 2150, sku="HB-WINTER")
    month.publish(shop)
    kinds = [one.kind for one in heard[2:]]
    assert kinds == ["stock_changed", "item_changed", "item_deleted", "item_created", "catalog_published"]
    products = {p["product_id"]: p for p in products_truth(month, "harbor-shop")}
    assert products[item.id]["price"] == item.price + 100
    assert dearer.updated > item.updated
    assert not products[gone.id]["active"]
    assert products[new.id]["sku"] == "HB-WINTER"
    counts = {(c["location_id"], c["product_id"]): c["quantity"] for c in inventory_truth(month, "harbor-shop")}
    assert counts[(place.id, item.id)] == 40
    assert not any(product == gone.id for _, product in counts)
    quantities = [c.quantity for m in month.merchants.values() for c in m.counts.values()]
    assert min(quantities) < 0
    assert 0 in quantities
    with pytest.raises(ConfigurationError, match="nobody counts the stock"):
        month.set_stock(month.merchant("harbor").locations[0].id, "Drip Coffee Small", 3)
    # A name is the product's: every variation has the new one.
    white = next(i for i in shop.items if (i.name, i.variation) == ("Harbor Mug", "White"))
    month.change_item(shop, white.id, renamed="Harbor Beaker")
    assert {i.variation for i in shop.items if i.name == "Harbor Beaker"} == {"White", "Blue"}
    assert not [i for i in shop.items if i.name == "Harbor Mug"]
    month.listeners.clear()


def test_control_tells_and_changes_over_http(start: Callable[..., RunningSandbox]) -> None:
    sandbox = start()
    world = sandbox.world
    with httpx.Client(base_url=f"{sandbox.url}/sandbox", timeout=30) as http:

        def post(path: str, **body: Any) -> dict[str, Any]:
            answer = http.post(path, json=body)
            assert answer.status_code == 200, answer.text
            return dict(answer.json())

        kitchen = world.merchant("harbor-kitchen")
        place = kitchen.locations[0]
        chowder = kitchen.items[0]
        assert post("catalog/change", merchant="harbor-kitchen", item=chowder.id, price=945)["price"] == 945
        lobster = next(i for i in kitchen.items if i.name == "Lobster Roll")
        assert post("stock/set", location_id=place.id, item=lobster.id, quantity=0)["quantity"] == 0
        shift = post("shifts/clock_in", location_id=place.id)
        done = post("shifts/clock_out", shift_id=shift["shift_id"], breaks=30)
        assert done["end_ms"] > done["start_ms"]
        moved = post("shifts/edit", shift_id=shift["shift_id"], start="2026-11-04T06:00:00-05:00", deleted=True)
        assert moved["start_ms"] == int(datetime(2026, 11, 4, 11, tzinfo=UTC).timestamp() * 1000)
        labor = http.get("truth/labor", params={"merchant": "harbor-kitchen", "from": "2026-11-04"}).json()
        (entry,) = [one for one in labor["time_entries"] if one["time_entry_id"] == shift["shift_id"]]
        assert (entry["deleted"], entry["breaks"], entry["business_date"]) == (True, 30, "2026-11-04")
        sold = post("orders/sell", location_id=place.id)["order_id"]
        customer = kitchen.customers[0]
        post("orders/customer", order_id=sold, customer=customer.id)
        listed = http.get("customers", params={"merchant": "harbor-kitchen"}).json()["customers"]
        assert sold in next(one["orders"] for one in listed if one["customer_id"] == customer.id)
        payments = {"merchant": "harbor-kitchen", "from": "2026-11-04"}
        before = http.get("truth/payments", params=payments).json()["totals"]["USD"]
        post("orders/refund", order_id=sold, lines=[0])
        after = http.get("truth/payments", params=payments).json()["totals"]["USD"]
        assert before["refunded"] == 0
        assert after["refunded"] == -price(world.refunds_of(world.sale(sold))[0]).refund < 0
        products = http.get("truth/products", params={"merchant": "harbor-kitchen"}).json()["products"]
        assert products[0]["price"] == 945
        assert products[0]["product_id"] == chowder.product_id
        counts = http.get("truth/inventory", params={"merchant": "harbor-kitchen"}).json()["counts"]
        assert {"quantity": 0, "location_id": place.id}.items() <= next(
            c for c in counts if c["location_id"] == place.id and c["product_id"] == lobster.product_id
        ).items()
        people = http.get("people").json()
        assert customer.email in people["emails"]
        assert {customer.given_name, customer.family_name} <= set(people["names"])
        merchants = http.get("merchants").json()["merchants"]
        assert [m["provider"] for m in merchants][:6] == ["square"] * 3 + ["toast", "shopify", "shopify"]
        for path, body in (
            ("stock/set", {"location_id": place.id, "item": lobster.id, "quantity": "many"}),
            ("shifts/edit", {"shift_id": shift["shift_id"], "start": "2026-11-04T06:00:00"}),
            ("catalog/change", {"merchant": "harbor-kitchen", "item": "nothing"}),
            ("orders/refund", {"order_id": sold, "lines": ["0"]}),
        ):
            answer = http.post(path, json=body)
            assert answer.status_code == 400
            assert answer.json()["error"]


def test_every_provider_sees_its_own_merchants_alone(start: Callable[..., RunningSandbox]) -> None:
    sandbox = start()
    query = {"client_id": "sandbox-demo-application", "scope": "ORDERS_READ", "redirect_uri": "http://127.0.0.1/back"}
    page = httpx.get(f"{sandbox.url}/oauth2/authorize", params=query).text
    assert "Harbor Coffee" in page
    assert "Harbor Kitchen" not in page
    token = httpx.post(f"{sandbox.url}/sandbox/tokens", json={"merchant": "harbor"}).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}", "Square-Version": "2026-09-16"}
    locations = httpx.get(f"{sandbox.url}/square/v2/locations", headers=headers).json()["locations"]
    assert len(locations) == len(sandbox.world.merchant("harbor").locations)
    assert httpx.get(f"{sandbox.url}/v2/locations", headers=headers).json()["locations"] == locations
    answer = httpx.get(f"{sandbox.url}/sandbox/credentials", params={"merchant": "harbor"})
    assert answer.status_code == 400
    assert "no machine clients" in answer.json()["error"]
