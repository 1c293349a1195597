"""Toast's sandbox beside orders: menus, configuration, stock, time entries, restaurants."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from flux_pipelines.settings import PROJECT_ROOT
from flux_pipelines_tests.providers.toast.sandboxed import HANDLE, Toast, exact, message_of, toast_sandbox
from flux_pipelines_tests.sandbox.conftest import END_DAY, Clock
from flux_sandbox.model import Count, Shift
from flux_sandbox.toast.ids import guid_of, restaurant_guid
from flux_sandbox.toast.values import instant_ms

EXAMPLES = PROJECT_ROOT.parent / "shared" / "examples" / "toast"


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def toast(clock: Clock) -> Iterator[Toast]:
    with toast_sandbox(clock, history_days=10) as running:
        yield Toast(running)


def example(name: str) -> Any:
    path: Path = EXAMPLES / f"{name}.json"
    if not path.exists():
        pytest.skip("Toast's examples are not here: they may not be copied into this repository")
    return json.loads(path.read_text())


def members(value: Any, path: str = "") -> set[str]:
    """Return the paths of all members; the keys of maps by number are one."""
    found: set[str] = set()
    if isinstance(value, dict):
        for key, one in value.items():
            name = "#" if key.isdigit() else key
            found |= {f"{path}.{name}"} | members(one, f"{path}.{name}")
    elif isinstance(value, list):
        for one in value:
            found |= members(one, f"{path}[]")
    return found


def items_of(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        item["guid"]: item for menu in document["menus"] for group in menu["menuGroups"] for item in group["menuItems"]
    }


def test_menus_hold_every_item_and_refer_by_number(toast: Toast) -> None:
    document = exact(toast.get("/menus/v2/menus"))
    found = items_of(document)
    assert len(found) == len(toast.merchant.items)
    for item in toast.merchant.items:
        shown = found[item.id]
        assert (shown["name"], shown["sku"], shown["plu"]) == (item.name, item.sku, item.upc)
        assert shown["price"] == Decimal(item.price) / 100
        assert shown["multiLocationId"] == item.product_id
        offered = {
            document["modifierOptionReferences"][str(number)]["guid"]
            for group in shown["modifierGroupReferences"]
            for number in document["modifierGroupReferences"][str(group)]["modifierOptionReferences"]
        }
        assert offered == {modifier.id for modifier in item.modifiers}
    assert all(int(key) == one["referenceId"] for key, one in document["modifierGroupReferences"].items())
    required = {one["name"]: one["requiredMode"] for one in document["modifierGroupReferences"].values()}
    assert required["Size"] == "REQUIRED"


def test_menus_have_the_examples_members(toast: Toast) -> None:
    shown = members(toast.get("/menus/v2/menus").json())
    priced = example("menus_v2_size_pricing_excerpt")
    missing = {one for one in members(priced) - shown if "pricingRules." not in one}
    assert not missing, "nothing is priced by size in the sandbox's world, but all else is there"


def test_publishing_moves_last_updated_and_on_request_the_guids(toast: Toast, clock: Clock) -> None:
    before = toast.get("/menus/v2/menus").json()
    assert before["restaurantGuid"] == toast.here
    clock.forward(60)
    toast.control("toast/menus/publish", merchant=HANDLE)
    after = toast.get("/menus/v2/menus").json()
    assert after["lastUpdated"] > before["lastUpdated"]
    same = items_of(after)
    clock.forward(60)
    toast.control("toast/menus/publish", merchant=HANDLE, new_guids=True)
    changed = items_of(toast.get("/menus/v2/menus").json())
    assert not set(changed) & set(same)
    assert {i["multiLocationId"] for i in changed.values()} == {i["multiLocationId"] for i in same.values()}
    sold = toast.control("orders/sell", location_id=toast.merchant.locations[0].id)
    order = toast.get(f"/orders/v2/orders/{sold['order_id']}").json()
    assert order["checks"][0]["selections"][0]["item"]["guid"] in changed
    assert toast.day(END_DAY)[0]["checks"][0]["selections"][0]["item"]["guid"] in same


def test_stock_lists_only_what_is_short_or_counted(toast: Toast) -> None:
    location = toast.merchant.locations[1]
    here = restaurant_guid(location)
    counted = [item for item in toast.merchant.items if item.tracked]
    for item, left in zip(counted, (25, 0, -2), strict=False):
        toast.merchant.counts[(location.id, item.id)] = Count(left, toast.world.now_ms())
    shown = {one["multiLocationId"]: one for one in exact(toast.get("/stock/v1/inventory", here))}
    assert set(shown) == {item.product_id for item in counted}
    assert (shown[counted[0].product_id]["status"], shown[counted[0].product_id]["quantity"]) == ("QUANTITY", 25)
    for item in counted[1:3]:
        assert (shown[item.product_id]["status"], shown[item.product_id]["quantity"]) == ("OUT_OF_STOCK", None)
    assert set(shown[counted[0].product_id]) == set(example("stock_inventory")[0])


def test_a_search_of_stock_says_what_is_in_stock_and_what_is_unknown(toast: Toast) -> None:
    def search(body: Any) -> httpx.Response:
        headers = {"Toast-Restaurant-External-ID": toast.here}
        return toast.http.post("/toast/stock/v1/inventory/search", json=body, headers=headers)

    plain = next(item for item in toast.merchant.items if not item.tracked)
    guid = next(g for g, one in items_of(toast.get("/menus/v2/menus").json()).items() if one["sku"] == plain.sku)
    found = search({"guids": [guid, "nowhere"], "multiLocationIds": [plain.product_id, "1"]}).json()
    assert [one["status"] for one in found] == ["IN_STOCK", "OUT_OF_STOCK", "IN_STOCK", "OUT_OF_STOCK"]
    assert [one["itemGuidValidity"] for one in found] == ["VALID", "INVALID", "VALID", "INVALID"]
    assert found[1]["multiLocationId"] == "null"
    assert set(found[0]) == set(example("stock_inventory_search")[0])
    message_of(search({}), 400)
    message_of(search({"guids": [str(n) for n in range(101)]}), 400)


def test_configuration_is_paged_and_dies_when_it_is_republished(toast: Toast) -> None:
    first = toast.get("/config/v2/alternatePaymentTypes")
    token = first.headers["Toast-Next-Page-Token"]
    second = toast.get("/config/v2/alternatePaymentTypes", pageToken=token)
    assert "Toast-Next-Page-Token" not in second.headers
    names = [one["name"] for one in first.json() + second.json()]
    assert len(names) == len(set(names)) == 3
    toast.control("toast/config/publish", merchant=HANDLE)
    message_of(toast.get("/config/v2/alternatePaymentTypes", pageToken=token), 409)
    message_of(toast.get("/config/v2/alternatePaymentTypes", pageToken="nonsense"), 400)


def test_time_entries_are_found_by_day_and_change(toast: Toast) -> None:
    location = next(one.location for one in toast.merchant.shifts if one.end is None and not one.deleted)
    here = restaurant_guid(location)
    shifts = {guid_of("shift", one.id): one for one in toast.merchant.shifts if one.location is location}
    gone = next(one for one in shifts.values() if one.end is not None and not one.deleted)
    gone.deleted, gone.updated = True, toast.world.now_ms()
    asked: dict[str, Any] = {}
    for back in range(10):
        day = f"{END_DAY - timedelta(days=back):%Y%m%d}"
        entries = exact(toast.get("/labor/v1/timeEntries", here, businessDate=day))
        assert {one["businessDate"] for one in entries} <= {day}
        asked |= {one["guid"]: one for one in entries}
    assert set(asked) == {guid for guid, shift in shifts.items() if not shift.deleted}
    assert any(one["outDate"] is None for one in asked.values())
    for guid, entry in asked.items():
        check_entry(entry, shifts[guid])
    start, end = "2026-10-20T00:00:00.000+0000", "2026-11-06T00:00:00.000+0000"
    changed = toast.get("/labor/v1/timeEntries", here, modifiedStartDate=start, modifiedEndDate=end).json()
    assert {one["guid"] for one in changed} == set(shifts)
    assert any(one["deleted"] and one["deletedDate"] for one in changed)


def check_entry(entry: dict[str, Any], shift: Shift) -> None:
    assert instant_ms(entry["inDate"]) == shift.start
    assert (instant_ms(entry["outDate"]) if entry["outDate"] else None) == shift.end
    if shift.end is not None:
        hours = Decimal(shift.end - shift.start - shift.breaks * 60_000) / 3_600_000
        assert abs(Decimal(entry["regularHours"]) - hours) < Decimal("1e-12")
    assert Decimal(entry["hourlyWage"]) == Decimal(shift.employee.wage) / 100
    assert Decimal(entry["declaredCashTips"]) == Decimal(shift.tips) / 100
    minutes = [instant_ms(one["outDate"]) - instant_ms(one["inDate"]) for one in entry["breaks"]]  # type: ignore[operator]
    assert sum(minutes) == (shift.breaks * 60_000 if shift.end is not None else 0)


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"businessDate": "20261101", "modifiedStartDate": "2026-11-01T00:00:00.000+0000"},
        {"modifiedStartDate": "2026-11-01T00:00:00.000+0000"},
        {"modifiedStartDate": "2026-10-01T00:00:00.000+0000", "modifiedEndDate": "2026-10-31T00:00:00.001+0000"},
        {"businessDate": "yesterday"},
    ],
)
def test_time_entries_are_asked_for_in_one_way_and_for_thirty_days(toast: Toast, query: dict[str, str]) -> None:
    message_of(toast.get("/labor/v1/timeEntries", **query), 400)


def test_jobs_are_those_of_the_staff(toast: Toast) -> None:
    titles = {one["title"] for one in toast.get("/labor/v1/jobs").json()}
    assert titles == {one.job for one in toast.merchant.employees}


def test_restaurants_tell_their_zone_and_close_out_hour(toast: Toast) -> None:
    location = toast.merchant.locations[2]
    here = restaurant_guid(location)
    shown = toast.get(f"/restaurants/v1/restaurants/{here}", here).json()
    general = shown["general"]
    assert (general["timeZone"], general["closeoutHour"], general["currencyCode"]) == (location.timezone, 4, "USD")
    message_of(toast.get(f"/restaurants/v1/restaurants/{here}"), 400)
    assert members(example("restaurant_info")) - members(shown) == set()


def test_partners_need_no_restaurant(toast: Toast) -> None:
    listed = toast.http.get("/toast/partners/v1/restaurants").json()
    assert [one["restaurantGuid"] for one in listed] == list(toast.restaurants)
    assert set(listed[0]) == set(example("partners_restaurants_a")[0])


def test_a_connection_gets_its_credentials_in_one_step(toast: Toast) -> None:
    query = {"provider": "toast", "merchant": HANDLE}
    given = toast.http.get("/sandbox/credentials", params=query).json()
    assert given["secrets"] == {"client_id": toast.secrets["clientId"], "client_secret": toast.secrets["clientSecret"]}
