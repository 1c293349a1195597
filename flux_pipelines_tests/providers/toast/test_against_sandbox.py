"""The client and every SQL file against the sandbox: a small world comes out as it really was, to the cent."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from flux_pipelines.domain.business_day import BusinessCalendar, known_calendars
from flux_pipelines.domain.errors import PermissionLostError
from flux_pipelines.lake.raw import RawStore
from flux_pipelines.lake.store import object_store
from flux_pipelines.privacy.redactor import Redactor
from flux_pipelines.providers.base import Location, Order, Window
from flux_pipelines.providers.toast import PROVIDER
from flux_pipelines.providers.toast.client import ToastClient
from flux_pipelines.sync.normalise import Normalisation
from flux_pipelines.sync.transform import transform
from flux_pipelines_tests.providers.squarewire import FixedToken
from flux_pipelines_tests.providers.toast.sandboxed import HANDLE, Toast, toast_sandbox
from flux_pipelines_tests.providers.toast.wire import CONNECTION, toast
from flux_pipelines_tests.sync.streamfiles import land
from flux_sandbox.server import RunningSandbox
from flux_sandbox.truth import truth
from flux_sandbox.truth_feeds import inventory_truth, labor_truth, payments_truth, products_truth

CENT = Decimal("0.01")
FIRST, LAST = date(2026, 10, 26), date(2026, 11, 2)  # over New York's change of clocks on 1 November
DAYS = [FIRST + timedelta(days=n) for n in range((LAST - FIRST).days + 1)]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    with toast_sandbox() as running:
        yield running


@pytest.fixture(scope="module")
def wire(sandbox: RunningSandbox) -> Toast:
    return Toast(sandbox)


@pytest.fixture(scope="module")
def client(sandbox: RunningSandbox, wire: Toast, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToastClient]:
    token = str(wire.http.headers["Authorization"]).removeprefix("Bearer ")
    with toast(f"{sandbox.url}/toast", tmp_path_factory.mktemp("client"), credentials=FixedToken(token)) as opened:
        yield opened


@pytest.fixture(scope="module")
def locations(client: ToastClient) -> list[Location]:
    return client.locations()


@pytest.fixture(scope="module")
def orders(client: ToastClient, locations: list[Location]) -> dict[date, list[Order]]:
    """Every order of every restaurant, by the business date that it was asked for by."""
    return {day: [o for place in locations for o in ask(client, place, day)] for day in DAYS}


def ask(client: ToastClient, place: Location, day: date) -> list[Order]:
    start, end = BusinessCalendar(place.timezone, 4).window(day)
    pages = list(client.pages(Window((place.location_id,), start, end, day), "created"))
    assert [page.last for page in pages] == [False] * (len(pages) - 1) + [True]
    return [order for page in pages for order in page.orders]


def test_the_world_comes_out_as_it_was_to_the_cent(
    sandbox: RunningSandbox, orders: dict[date, list[Order]], locations: list[Location], tmp_path: Path
) -> None:
    raw = RawStore(object_store(str(tmp_path / "lake")))
    manifests = []
    for day, found in orders.items():
        assert {order.header.business_date for order in found if order.header} <= {day}
        writer = raw.writer(CONNECTION.key, day)
        segment = writer.segment()
        segment.write_many([order.raw for order in found])
        manifests.append(writer.commit([segment], fetched_at=datetime.now(UTC), api_version=PROVIDER.api_version))
    work = Normalisation(PROVIDER, raw, CONNECTION, manifests, known_calendars(locations, 4))
    rows = [row for batch in work.batches() for row in batch.to_pylist()]
    sums: dict[tuple[str, date], dict[str, Any]] = {}
    for row in rows:
        into = sums.setdefault((row["location_id"], row["business_date"]), defaultdict(int))
        for name in ("gross", "discount", "net", "tax", "total"):
            into[name] += int(row[name] / CENT)
        if row["line_type"] in ("tip", "gift_card", "rounding"):
            into[row["line_type"]] += int(row["total"] / CENT)
        if row["line_type"] == "service_charge":
            into["service_charge"] += int(row["net"] / CENT)
        if row["kind"] == "return":
            into["returns"] += int(row["net"] / CENT)
        for name in ("cash", "card", "gift_card", "other"):
            into[f"tendered_{name}"] += int(row[f"tendered_{name}"] / CENT)
        if row["line_type"] in ("item", "custom_amount") and row["kind"] != "void":
            into["units"] += row["quantity"]
    expected = truth(sandbox.world, merchant=HANDLE, first=FIRST, last=LAST)
    assert len(expected) == len(DAYS) * 3
    for real in expected:
        got = sums.get((real.location_id, real.business_date), defaultdict(int))
        where = f"{real.location_id} {real.business_date}"
        assert {
            "gross": got["gross"],
            "discount": got["discount"],
            "net": got["net"],
            "tax": got["tax"],
            "total": got["total"],
            "tips": got["tip"],
            "gift_cards": got["gift_card"],
            "service_charges": got["service_charge"],
            "returns": got["returns"],
            "units": got["units"],
        } == {
            name: getattr(real, name)
            for name in (
                "gross",
                "discount",
                "net",
                "tax",
                "total",
                "tips",
                "gift_cards",
                "service_charges",
                "returns",
                "units",
            )
        }, where
        tenders = real.tenders
        assert got["tendered_cash"] == tenders["CASH"], where
        assert got["tendered_card"] == tenders["CARD"] + tenders["WALLET"], where
        assert got["tendered_gift_card"] == tenders["GIFT_CARD"], where
        assert got["tendered_other"] == tenders["OTHER"], where
    assert len(work.bad) == sum(day.malformed for day in expected)
    # The world has what is hard: refunds, voids, tips, gift cards.
    assert any(day.returns for day in expected)
    assert any(day.voids for day in expected)
    assert {row["kind"] for row in rows} == {"sale", "return", "void"}
    voided = {row["order_id"] for row in rows if row["kind"] == "void"}
    assert len(voided) == sum(day.voids for day in expected)
    totals = {o.header.order_id: o.header.total for day in orders.values() for o in day if o.header}
    of_orders: Counter[str] = Counter()
    for row in rows:
        of_orders[row["order_id"]] += int(row["total"] / CENT)
    assert all(totals[order_id] == total for order_id, total in of_orders.items() if order_id not in voided)


def test_what_changed_is_what_was_made_when_everything_is_asked_for(
    client: ToastClient, locations: list[Location], orders: dict[date, list[Order]], sandbox: RunningSandbox
) -> None:
    now = sandbox.world.clock()
    made = {o.header.order_id for day in orders.values() for o in day if o.header is not None}
    changed = set()
    for place in locations:
        window = Window((place.location_id,), now - timedelta(days=70), now)  # three intervals
        changed |= {
            o.header.order_id for p in client.pages(window, "updated") for o in p.orders if o.header is not None
        }
    assert made <= changed
    place = locations[0]
    some = [o.header for o in orders[LAST] if o.header is not None and o.header.location_id == place.location_id]
    at = sorted(header.updated_at for header in some)[len(some) // 2]
    just = Window((place.location_id,), at, at + timedelta(milliseconds=1))
    assert {h.order_id for h in some if h.updated_at == at} <= {
        o.header.order_id for p in client.pages(just, "updated") for o in p.orders if o.header is not None
    }


def test_orders_by_id_are_found_at_whichever_restaurant(client: ToastClient, orders: dict[date, list[Order]]) -> None:
    headers = [order.header for order in orders[LAST] if order.header is not None]
    some = {header.location_id: header.order_id for header in headers}
    found = client.orders([*some.values(), "00000000-0000-4000-8000-000000000000"])
    assert {o.header.location_id: o.header.order_id for o in found if o.header} == some


def test_payments_are_those_that_were_taken(
    sandbox: RunningSandbox, orders: dict[date, list[Order]], locations: list[Location], tmp_path: Path
) -> None:
    raw = RawStore(object_store(str(tmp_path / "lake")))
    manifests = [
        land(raw, CONNECTION.key, [bytes(o.raw) for o in found if o.header], day=day) for day, found in orders.items()
    ]
    spec = next(one for one in PROVIDER.tables if one.table == "payments")
    made = transform(PROVIDER, spec, CONNECTION, locations, raw, manifests)
    tender_of = {"CASH": "cash", "CARD": "card", "WALLET": "card", "GIFT_CARD": "gift_card"}
    expected: dict[Any, list[int]] = {}
    for one in payments_truth(sandbox.world, merchant=HANDLE, first=FIRST, last=LAST):
        key = (one.location_id, one.business_date, one.kind, tender_of.get(one.type, "other"), one.status)
        sums = expected.setdefault(key, [0, 0, 0, 0])
        for n, value in enumerate((one.count, one.amount, one.tip, one.fee)):
            sums[n] += value
    got: dict[Any, list[int]] = {}
    for row in made.rows.to_pylist():
        key = (row["location_id"], row["business_date"], row["kind"], row["tender"], row["status"])
        sums = got.setdefault(key, [0, 0, 0, 0])
        for n, value in enumerate((1, *(int(row[name] / CENT) for name in ("amount", "tip", "fee")))):
            sums[n] += value
    malformed = {
        (d.location_id, d.business_date)
        for d in truth(sandbox.world, merchant=HANDLE, first=FIRST, last=LAST)
        if d.malformed
    }
    assert made.bad == []
    assert {k: v for k, v in got.items() if k[:2] not in malformed} == {
        k: v for k, v in expected.items() if k[:2] not in malformed
    }
    assert {key[2] for key in got} == {"payment", "refund"}


def read(client: ToastClient, stream: str, places: list[Location], day: date = LAST) -> list[Any]:
    now = datetime.now(UTC)
    window = Window(tuple(place.location_id for place in places), now, now, day)
    return list(itertools.chain.from_iterable(client.read(stream, window)))


def rows_of(
    folder: Path, table: str, records: list[Any], places: list[Location], slot: str = ""
) -> list[dict[str, Any]]:
    spec = next(one for one in PROVIDER.tables if one.table == table)
    raw = RawStore(object_store(str(folder / "lake")), spec.stream)
    made = transform(PROVIDER, spec, CONNECTION, places, raw, [land(raw, CONNECTION.key, records, day=LAST, slot=slot)])
    assert made.bad == []
    return list(made.rows.to_pylist())


def test_menus_and_restaurants(
    sandbox: RunningSandbox, client: ToastClient, locations: list[Location], tmp_path: Path
) -> None:
    records = read(client, "catalog", locations)
    assert Counter(record.kind for record in records)["menu"] == 3
    products = {row["product_id"]: row for row in rows_of(tmp_path, "products", records, locations, "current")}
    for item in products_truth(sandbox.world, HANDLE):
        if not item["active"]:
            assert item["product_id"] not in products
            continue
        row = products[item["product_id"]]
        assert (row["product_name"], row["category"], row["price"]) == (
            item["name"],
            item["category"],
            Decimal(item["price"]).scaleb(-2),
        )
        assert (row["sku"], row["currency"], row["active"]) == (item["sku"] or None, "USD", True)
    places = {
        row["location_id"]: row for row in rows_of(tmp_path / "places", "locations", records, locations, "current")
    }
    for location in sandbox.world.merchant(HANDLE).locations:
        row = places[location.id]
        assert (row["timezone"], row["currency"], row["city"], row["country"]) == (
            location.timezone,
            "USD",
            location.city,
            location.country,
        )
        assert row["cutoff_hour"] == 4


def test_stock_of_every_item_on_the_menu(
    sandbox: RunningSandbox, client: ToastClient, locations: list[Location], tmp_path: Path
) -> None:
    rows = rows_of(tmp_path, "inventory_levels", read(client, "inventory", locations), locations, f"{LAST}/10")
    found = {(row["location_id"], row["product_id"]): row for row in rows}
    counted = set()
    for count in inventory_truth(sandbox.world, HANDLE):
        row = found[count["location_id"], count["product_id"]]
        counted.add((count["location_id"], count["product_id"]))
        if count["quantity"] > 0:
            assert (row["availability"], row["quantity"]) == ("limited", count["quantity"])
        else:
            assert row["availability"] == "out_of_stock"
    active = [item["product_id"] for item in products_truth(sandbox.world, HANDLE) if item["active"]]
    for place in locations:
        for product in active:
            if (place.location_id, product) not in counted:
                assert found[place.location_id, product]["availability"] == "in_stock"
                assert found[place.location_id, product]["quantity"] is None


def test_time_entries_of_a_business_date(
    sandbox: RunningSandbox, client: ToastClient, locations: list[Location], tmp_path: Path
) -> None:
    found = {
        row["time_entry_id"]: row
        for row in rows_of(tmp_path, "time_entries", read(client, "labor", locations), locations)
    }
    expected = labor_truth(sandbox.world, merchant=HANDLE, first=LAST, last=LAST)
    assert {entry["time_entry_id"] for entry in expected} == set(found)
    for entry in expected:
        row = found[entry["time_entry_id"]]
        assert (row["employee_id"], row["job_title"]) == (entry["employee_id"], entry["job"])
        assert row["clock_in"] == datetime.fromtimestamp(entry["start_ms"] / 1000, UTC)
        assert row["unpaid_break_minutes"] == entry["breaks"]
        assert row["hourly_wage"] == Decimal(entry["wage"]).scaleb(-2)
        assert row["declared_cash_tips"] == Decimal(entry["tips"]).scaleb(-2)
        if entry["deleted"]:
            assert row["status"] == "deleted"
        elif entry["end_ms"] is not None:
            hours = Decimal(entry["end_ms"] - entry["start_ms"]) / 3_600_000 - Decimal(entry["breaks"]) / 60
            assert abs(row["paid_hours"] - hours) < Decimal("0.01")
    changed = set(
        client.changes(
            "labor",
            Window(
                tuple(place.location_id for place in locations),
                datetime(2026, 11, 1, tzinfo=UTC),
                sandbox.world.clock(),
                LAST,
            ),
        )
    )
    for place in locations:
        calendar = BusinessCalendar(place.timezone, 4)
        assert LAST in {calendar.date_of(at) for location_id, at in changed if location_id == place.location_id}


def test_nobodys_data_is_left_in_what_is_stored(
    sandbox: RunningSandbox, client: ToastClient, locations: list[Location], orders: dict[date, list[Order]]
) -> None:
    people = httpx.get(f"{sandbox.url}/sandbox/people", params={"merchant": HANDLE}).json()
    wanted = [value for kind in ("names", "emails", "phones", "streets") for value in people[kind]]
    received = [bytes(order.raw) for day in orders.values() for order in day]
    received += [bytes(one.raw) for stream in ("catalog", "labor") for one in read(client, stream, locations)]
    kept = b"\n".join(bytes(one) for one in Redactor(PROVIDER.redaction, None)(received)).decode()
    before = b"\n".join(received).decode()
    assert len([value for value in wanted if value in before]) > 20
    assert [value for value in wanted if value in kept] == []
    assert '"last4Digits":"' in before
    assert '"last4Digits":"' not in kept


def test_access_is_proved_and_its_loss_is_no_empty_answer(
    sandbox: RunningSandbox, client: ToastClient, wire: Toast, locations: list[Location]
) -> None:
    claims = msgspec.json.decode(_claims(str(wire.http.headers["Authorization"])))
    assert client.verify_access() == claims["https://toasttab.com/partner_guid"]
    control(sandbox, "tokens/scopes", merchant=HANDLE, remove=["orders:read"])
    try:
        with pytest.raises(PermissionLostError):
            client.verify_access()
        with pytest.raises(PermissionLostError):
            ask(client, locations[0], LAST)
    finally:
        httpx.post(f"{sandbox.url}/sandbox/tokens", json={"provider": "toast", "merchant": HANDLE})


def control(sandbox: RunningSandbox, what: str, **body: Any) -> None:
    answer = httpx.post(f"{sandbox.url}/sandbox/{what}", json={"provider": "toast", **body})
    assert answer.status_code == 200, answer.text


def _claims(authorization: str) -> bytes:
    import base64

    part = authorization.split(".")[1]
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
