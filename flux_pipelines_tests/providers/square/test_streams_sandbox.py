"""What the sandbox's merchants really took, sell, have and worked, through the client and the SQL: it is the truth."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flux_pipelines.domain.business_day import BusinessCalendar
from flux_pipelines.domain.errors import PermissionLostError
from flux_pipelines.domain.money import from_minor
from flux_pipelines.privacy import Redactor
from flux_pipelines.privacy.pseudonyms import Pseudonyms
from flux_pipelines.providers.base import Record, Window
from flux_pipelines.providers.square import PROVIDER
from flux_pipelines_tests.providers.square.conftest import FIRST, LAST, House
from flux_pipelines_tests.sync.streamfiles import run_sql
from flux_sandbox.people import personal

Settled = Callable[[str], House]
DAYS = [FIRST + timedelta(days=n) for n in range((LAST - FIRST).days + 1)]
REDACT = Redactor(PROVIDER.redaction, Pseudonyms(bytes(32)))


def windows(house: House, day: date) -> list[Window]:
    """A day's windows, one a time zone, as the engine asks for them."""
    zones: dict[str, list[str]] = {}
    for one in house.locations:
        zones.setdefault(one.timezone, []).append(one.location_id)
    return [Window(tuple(ids), *BusinessCalendar(zone).window(day), day) for zone, ids in zones.items()]


def rows(
    house: House, folder: Path, table: str, records: list[Record], day: date = LAST, slot: str = ""
) -> list[dict[str, Any]]:
    """The rows of records as they are stored: without what is personal."""
    stored = REDACT([bytes(one.raw) for one in records])
    given = [one._replace(raw=msgspec.Raw(raw)) for one, raw in zip(records, stored, strict=True)]
    made = run_sql(folder / f"{table}-{day}", PROVIDER, table, given, house.locations, day=day, slot=slot)
    assert made.bad == []
    assert all(row["source_version"] == PROVIDER.api_version for row in made.rows.to_pylist())
    return list(made.rows.to_pylist())


@pytest.mark.parametrize("handle", ["harbor", "sakura", "fjord"])
def test_payments_are_the_truth_day_by_day(settled: Settled, handle: str, tmp_path: Path) -> None:
    house = settled(handle)
    currency = house.merchant.currency
    found: dict[tuple[str, str, str, str, str], list[Any]] = {}
    offline = beside = 0
    for day in DAYS:
        records = [one for window in windows(house, day) for one in house.read("payments", window)]
        offline += sum(b"client_created_at" in bytes(one.raw) for one in records)
        made = rows(house, tmp_path, "payments", records, day)
        assert len(made) == sum(one.kind in ("payment", "refund") for one in records), "each once"
        beside += sum(one.kind == "refunded_tender" for one in records)
        assert all(one.kind != "refunded_payment" for one in records), (
            "orders name what was paid with, a hundred at a time"
        )
        for row in made:
            key = (row["location_id"], row["business_date"].isoformat(), row["kind"], row["tender"], row["status"])
            sums = found.setdefault(key, [0, Decimal(0), Decimal(0)])
            sums[0] += 1
            sums[1] += row["amount"] + row["tip"]
            sums[2] += row["fee"]
            if row["kind"] == "payment":
                assert row["order_id"]
    told: dict[tuple[str, str, str, str, str], list[Any]] = {}
    tenders = {"CASH": "cash", "CARD": "card", "WALLET": "card", "GIFT_CARD": "gift_card", "OTHER": "other"}
    truth = house.truth("payments", **{"from": FIRST.isoformat(), "to": LAST.isoformat(), "cutoff_hour": 0})
    for row in truth["payments"]:
        key = (row["location_id"], row["business_date"], row["kind"], tenders[row["type"]], row["status"])
        sums = told.setdefault(key, [0, Decimal(0), Decimal(0)])
        sums[0] += row["count"]
        sums[1] += from_minor(row["amount"] + row["tip"], currency)
        sums[2] += from_minor(row["fee"], currency)
    assert found == told
    assert {key[2] for key in told} == {"payment", "refund"}
    if handle == "harbor":
        assert {key[4] for key in told} == {"completed", "canceled", "failed"}
        assert offline > 10
        assert beside > 10
        assert sum(sums[2] for sums in told.values()) < 0


def test_tips_of_payments_are_those_of_the_orders(settled: Settled, tmp_path: Path) -> None:
    house = settled("harbor")
    (east, *_) = windows(house, DAYS[3])
    made = rows(house, tmp_path, "payments", house.read("payments", east), DAYS[3])
    with house.client() as client:
        # An invoice is paid weeks after its order was made.
        asked = Window(east.location_ids, east.start - timedelta(days=30), east.end)
        orders = [json.loads(bytes(o.raw)) for page in client.pages(asked, "created") for o in page.orders]
    tenders = {one["id"]: one for order in orders for one in order.get("tenders", ())}
    tipped = 0
    for row in made:
        if row["kind"] == "payment" and row["status"] == "completed":
            tender = tenders[row["payment_id"]]
            assert row["amount"] + row["tip"] == from_minor(tender["amount_money"]["amount"], "USD")
            tip = tender.get("tip_money", {"amount": 0})["amount"]
            assert row["tip"] == from_minor(tip, "USD")
            tipped += bool(tip)
    assert tipped > 20


def test_what_changed_is_found_where_it_happened(settled: Settled) -> None:
    house = settled("harbor")
    ids = tuple(one.location_id for one in house.locations)
    start = datetime(2026, 10, 28, tzinfo=UTC)
    window = Window(ids, start, start + timedelta(days=1), date(2026, 10, 28))
    with house.client() as client:
        changed = set(client.changes("payments", window))
        worked = set(client.changes("labor", window))
    everything = house.read("payments", replace(window, start=start - timedelta(days=30), end=house.clock.now))
    expected = set()
    for one in map(json.loads, (bytes(record.raw) for record in everything)):
        if start <= datetime.fromisoformat(one["updated_at"]) < window.end:
            taken = one.get("offline_payment_details", {}).get("client_created_at", one["created_at"])
            expected.add((one["location_id"], datetime.fromisoformat(taken)))
    assert changed == expected
    assert any(at < start - timedelta(days=1) for _, at in changed), "late fees, refunds, offline payments"
    shifts = house.world.shifts_between(ids, "updated", _ms(start), _ms(window.end) - 1)
    assert worked == {
        (one.location.id, datetime.fromtimestamp(one.start // 60_000 * 60, UTC)) for one in shifts if not one.deleted
    }


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


@pytest.mark.parametrize("handle", ["harbor", "sakura"])
def test_goods_stores_and_stock_are_the_truth(settled: Settled, handle: str, tmp_path: Path) -> None:
    house = settled(handle)
    catalog = house.read("catalog", house.now())
    made = {row["product_id"]: row for row in rows(house, tmp_path, "products", catalog)}
    told = house.truth("products")["products"]
    assert made.keys() == {one["product_id"] for one in told}
    for one in told:
        row = made[one["product_id"]]
        assert (row["product_name"], row["variation"] or "", row["category"]) == (
            one["name"], one["variation"], one["category"],
        )  # fmt: skip
        assert (row["sku"] or "", row["upc"] or "", row["item_id"]) == (one["sku"], one["upc"], one["item_id"])
        assert (row["price"], row["currency"]) == (from_minor(one["price"], one["currency"]), one["currency"])
        assert row["active"] is one["active"]
        assert _ms(row["changed_at"]) >= one["updated_ms"]
    stores = rows(house, tmp_path, "locations", catalog)
    assert {(row["location_id"], row["name"], row["timezone"], row["city"], row["active"]) for row in stores} == {
        (one.id, one.name, one.timezone, one.city, one.active) for one in house.merchant.locations
    }
    counts = house.read("inventory", house.now())
    levels = rows(house, tmp_path, "inventory_levels", counts, slot=f"{LAST}/12")
    assert {(row["location_id"], row["product_id"], row["quantity"], _ms(row["counted_at"])) for row in levels} == {
        (one["location_id"], one["product_id"], Decimal(one["quantity"]), one["updated_ms"])
        for one in house.truth("inventory")["counts"]
    }
    assert any(row["availability"] == "out_of_stock" for row in levels)


def test_work_is_the_truth_to_the_minute(settled: Settled, tmp_path: Path) -> None:
    house = settled("harbor")
    truth = house.truth("labor", **{"from": FIRST.isoformat(), "to": LAST.isoformat(), "cutoff_hour": 0})
    told = {one["time_entry_id"]: one for one in truth["time_entries"] if not one["deleted"]}
    assert len(told) > 50
    seen = set()
    for day in DAYS:
        records = [one for window in windows(house, day) for one in house.read("labor", window)]
        for row in rows(house, tmp_path, "time_entries", records, day):
            one = told[row["time_entry_id"]]
            seen.add(row["time_entry_id"])
            assert row["business_date"].isoformat() == one["business_date"]
            assert (row["employee_id"], row["job_title"]) == (one["employee_id"], one["job"])
            assert row["hourly_wage"] == from_minor(one["wage"], "USD")
            begin = one["start_ms"] // 60_000
            assert _ms(row["clock_in"]) == begin * 60_000
            if one["end_ms"] is None:
                assert (row["status"], row["paid_hours"], row["clock_out"]) == ("open", None, None)
                continue
            minutes = one["end_ms"] // 60_000 - begin - one["breaks"]
            assert row["unpaid_break_minutes"] == one["breaks"]
            assert abs(row["paid_hours"] - Decimal(minutes) / 60) < Decimal("0.00001")
            assert row["declared_cash_tips"] == from_minor(one["tips"], "USD")
    assert seen == told.keys()


def test_faults_lose_nothing(settled: Settled) -> None:
    house = settled("harbor")
    start = datetime(2026, 10, 30, tzinfo=UTC)
    ids = tuple(one.location_id for one in house.locations[:4])
    window = Window(ids, start, start + timedelta(days=3), date(2026, 10, 30))

    def everything() -> dict[str, Counter[tuple[str, str, bytes]]]:
        return {
            stream.name: Counter(
                {(one.kind, one.location_id, bytes(one.raw)): 1 for one in house.read(stream.name, window)}
            )
            for stream in PROVIDER.streams
            if stream.name != "orders"
        }

    calm = everything()
    assert all(calm.values())
    house.post("faults", faults="error500=0.1,error429=0.1,truncate=0.05,empty=0.05,html=0.05,cursor=0.3")
    try:
        for _ in range(20):  # which fault hits which request depends on the tests before this one
            assert everything() == calm
            if house.world.faults.injected["cursor"]:
                break
        assert house.world.faults.injected["cursor"] > 0
    finally:
        house.post("faults", faults="")


def test_nothing_personal_is_stored(settled: Settled) -> None:
    house = settled("harbor")
    texts = personal([house.merchant])
    start = datetime(2026, 10, 25, tzinfo=UTC)
    ids = tuple(one.location_id for one in house.locations[:10])
    window = Window(ids, start, start + timedelta(days=4), date(2026, 10, 25))
    raw = [bytes(one.raw) for stream in ("payments", "labor", "catalog") for one in house.read(stream, window)]
    with house.client() as client:
        pages = client.pages(Window(ids, start, window.end), "created")
        raw += [bytes(order.raw) for page in pages for order in page.orders]
    before, after = b"\n".join(raw), b"\n".join(REDACT(raw))
    for kind in ("names", "emails", "phones", "streets"):
        shown = [text for text in texts[kind] if text.encode() in before]
        assert shown, f"there is something to remove: {kind}"
        assert [text for text in shown if text.encode() in after] == []
    # Digits alone would be found in ids and amounts: it is the members that must hold none.
    for name in (b"last_4", b"bin", b"exp_month", b"exp_year"):
        assert b'"' + name + b'":' in before
        assert after.count(b'"' + name + b'":') == after.count(b'"' + name + b'":null')
    assert b'"customer_id":"hmac:' in after
    assert b'"fingerprint":"hmac:' in after


def test_an_older_authorisation_goes_on_giving_orders(lively: House) -> None:
    lively.post(
        "tokens/scopes", merchant="sakura", remove=["ITEMS_READ", "INVENTORY_READ", "TIMECARDS_READ", "PAYMENTS_READ"]
    )
    now = lively.now()
    window = replace(now, start=now.start - timedelta(days=4))
    with lively.client() as client:
        assert client.verify_access() == lively.merchant.id
        orders = client.pages(Window(window.location_ids, window.start, window.end), "created")
        assert sum(len(page.orders) for page in orders) > 50
        for stream, scope in (
            ("payments", "PAYMENTS_READ"), ("catalog", "ITEMS_READ"), ("inventory", "INVENTORY_READ"), ("labor", "TIMECARDS_READ"),
        ):  # fmt: skip
            with pytest.raises(PermissionLostError, match=scope) as lost:
                list(client.read(stream, window))
            assert "Connect the account again" in str(lost.value)


def test_deleted_and_changed_goods(lively: House, tmp_path: Path) -> None:
    keep, gone, dearer = lively.merchant.items[0], lively.merchant.items[1], lively.merchant.items[5]
    lively.clock.forward(60)
    lively.post("catalog/delete", merchant="sakura", item=gone.id)
    lively.post("catalog/change", merchant="sakura", item=dearer.id, price=777)
    made = {row["product_id"]: row for row in rows(lively, tmp_path, "products", lively.read("catalog", lively.now()))}
    assert (made[gone.id]["active"], made[gone.id]["product_name"]) == (False, gone.name)
    assert made[keep.id]["active"], "another variation of the same item"
    assert (made[dearer.id]["price"], _ms(made[dearer.id]["changed_at"])) == (777, _ms(lively.clock.now))
