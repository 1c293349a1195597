from __future__ import annotations

import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from flux_sandbox.app import build_world
from flux_sandbox.dataset import DatasetError, load_dataset
from flux_sandbox.options import SandboxOptions
from flux_sandbox.square.orders import OrderWriter
from flux_sandbox.truth import total_of, truth

ITEMS = "item_id,name,category,variation,price\np,Pie,Food,L,12.50\nt,Tea,Drink,,0.10\n"
ORDERS = "order_id,ordered_at,location,kind,source_order_id\n1,2015-07-01T11:38:36,main,sale,\n"
LINES = "order_id,line_id,item_id,quantity,unit_price\n1,1,p,2,12.00\n"


def folder(path: Path, items: str = ITEMS, orders: str = ORDERS, lines: str = LINES, toml: str = "") -> Path:
    for name, text in (("items.csv", items), ("orders.csv", orders), ("lines.csv", lines)):
        (path / name).write_text(text, encoding="utf-8")
    if toml:
        (path / "dataset.toml").write_text(toml, encoding="utf-8")
    return path


def test_real_orders_come_to_their_known_totals(shared: Path) -> None:
    began = time.process_time()
    world = build_world(SandboxOptions(orders=shared / "data/pizza"))
    assert time.process_time() - began < 5
    days = truth(world)
    totals = total_of(days)["USD"]
    assert (totals["orders"], totals["lines"], totals["units"]) == (21350, 48620, "49574")
    assert (totals["net"], totals["total"], totals["tenders"]) == (81786005, 81786005, {"CASH": 81786005})
    assert len(days) == 358
    used = {key for day in days for key in day.item_quantities}
    assert len(used) == 91
    assert len({sale.id for sale in world.sales.values()}) == 21350


def test_local_times_become_instants_and_the_same_second_stays_two_orders(tmp_path: Path) -> None:
    orders = ORDERS + "2,2015-07-01T11:38:36,main,sale,\n3,2015-01-01T23:30:00.250,west,sale,\n"
    lines = LINES + "2,2,p,1,12.50\n3,3,t,1,0.10\n"
    toml = 'timezone = "America/New_York"\ncutoff_hour = 4\n[timezones]\nwest = "America/Los_Angeles"\n'
    merchant, sales = load_dataset(folder(tmp_path, orders=orders, lines=lines, toml=toml), 1)
    assert merchant.cutoff_hour == 4
    assert [location.name for location in merchant.locations] == ["main", "west"]
    assert [datetime.fromtimestamp(sale.created / 1000, UTC) for sale in sales] == [
        datetime(2015, 7, 1, 15, 38, 36, tzinfo=UTC),
        datetime(2015, 7, 1, 15, 38, 36, tzinfo=UTC),
        datetime(2015, 1, 2, 7, 30, 0, 250_000, tzinfo=UTC),
    ]
    assert len({sale.id for sale in sales}) == 3


def test_an_hour_that_the_clocks_skipped_or_repeated_keeps_its_date(tmp_path: Path) -> None:
    orders = ORDERS + "2,2015-03-08T02:30:00,main,sale,\n3,2015-11-01T01:30:00,main,sale,\n"
    _, sales = load_dataset(folder(tmp_path, orders=orders, lines=LINES + "2,2,p,1,1\n3,3,p,1,1\n"), 1)
    assert datetime.fromtimestamp(sales[1].created / 1000, UTC) == datetime(2015, 3, 8, 7, 30, tzinfo=UTC)
    assert datetime.fromtimestamp(sales[2].created / 1000, UTC) == datetime(2015, 11, 1, 5, 30, tzinfo=UTC)


def test_fractions_zero_decimal_currencies_and_quoted_names(tmp_path: Path) -> None:
    items = 'item_id,name,category,variation,price\np,"Pie, ""hot""\nand big",Food,L,1250\n'
    lines = "order_id,line_id,item_id,quantity,unit_price\n1,1,p,0.250,333\n"
    _, sales = load_dataset(folder(tmp_path, items=items, lines=lines, toml='currency = "JPY"'), 1)
    order = msgspec.json.decode(OrderWriter()(sales[0]))
    line = order["line_items"][0]
    assert line["quantity"] == "0.25"
    assert line["quantity_unit"]["precision"] == 2
    assert line["total_money"] == {"amount": 83, "currency": "JPY"}
    assert line["name"] == 'Pie, "hot"\nand big'
    assert order["reference_id"] == "1"


def test_a_return_names_its_sale_and_its_line(tmp_path: Path) -> None:
    orders = (
        "order_id,ordered_at,location,kind,source_order_id\nr,2015-07-02T09:00:00,main,return,1\n"
        "1,2015-07-01T11:38:36,main,sale,\nu,2015-07-02T09:00:00,main,return,\n"
    )
    lines = LINES + "1,2,t,3,0.10\nr,3,t,2,0.10\nu,4,p,1,12.00\n"
    world = build_world(SandboxOptions(orders=folder(tmp_path, orders=orders, lines=lines)))
    write = OrderWriter()
    shown = {o["reference_id"]: o for o in (msgspec.json.decode(write(s)) for s in world.sales.values())}
    back = shown["r"]["returns"][0]
    assert back["source_order_id"] == shown["1"]["id"]
    assert back["return_line_items"][0]["source_line_item_uid"] == shown["1"]["line_items"][1]["uid"]
    assert back["return_line_items"][0]["quantity"] == "2"
    assert shown["r"]["net_amounts"]["total_money"]["amount"] == -20
    assert "source_order_id" not in shown["u"]["returns"][0]
    totals = total_of(truth(world))["USD"]
    assert totals["net"] == 2400 + 30 - 20 - 1200
    assert Decimal(totals["units"]) == 2 + 3 - 2 - 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"items": ITEMS + "p,Pie again,Food,L,1\n"}, r"items.csv line 4: the item 'p' appears twice"),
        ({"items": ITEMS.replace("12.50", "12.505")}, r"items.csv line 2: price must be zero or more"),
        ({"items": ITEMS.replace("12.50", "-1")}, r"items.csv line 2: price must be zero or more"),
        ({"items": ITEMS.replace(",price", "")}, r"items.csv line 1: missing column\(s\) price"),
        ({"items": ""}, r"items.csv line 1: missing column"),
        ({"orders": ORDERS + "1,2015-07-01T11:38:36,main,sale,\n"}, r"orders.csv line 3: the order '1' appears twice"),
        ({"orders": ORDERS.replace("11:38:36", "25:38:36")}, r"orders.csv line 2: ordered_at is not an ISO 8601"),
        ({"orders": ORDERS.replace("11:38:36", "11:38:36Z")}, r"orders.csv line 2: .* takes no offset"),
        ({"orders": ORDERS.replace("T11:38:36", "")}, r"orders.csv line 2: ordered_at has no time of day"),
        ({"orders": ORDERS.replace("sale", "gift")}, r"orders.csv line 2: kind must be sale or return"),
        ({"orders": ORDERS.replace("main", " ")}, r"orders.csv line 2: location is empty"),
        ({"orders": ORDERS.replace("sale,", "sale,1")}, r"orders.csv line 2: a sale has no source_order_id"),
        ({"orders": ORDERS.replace("sale,", "return,9")}, r"orders.csv line 2: orders.csv has no sale '9'"),
        ({"orders": ORDERS + "2,2015-07-01T11:38:36,main,sale,\n"}, r"orders.csv line 3: the order '2' has no lines"),
        ({"orders": ORDERS.replace("sale,", "sale")}, r"orders.csv line 2: 4 cells where the header has 5"),
        ({"lines": LINES + "9,2,p,1,1\n"}, r"lines.csv line 3: orders.csv has no order '9'"),
        ({"lines": LINES + "1,2,x,1,1\n"}, r"lines.csv line 3: items.csv has no item 'x'"),
        ({"lines": LINES + "1,1,p,1,1\n"}, r"lines.csv line 3: the line '1' appears twice"),
        ({"lines": LINES.replace(",2,12", ",0,12")}, r"lines.csv line 2: quantity must be positive"),
        ({"lines": LINES.replace(",2,12", ",-2,12")}, r"lines.csv line 2: quantity must be positive"),
        ({"lines": LINES.replace(",2,12", ",two,12")}, r"lines.csv line 2: quantity is not a decimal number: 'two'"),
        ({"lines": LINES.replace(",2,12", ",NaN,12")}, r"lines.csv line 2: quantity is not a finite number"),
        ({"lines": LINES.replace(",2,12", ",0.000001,12")}, r"lines.csv line 2: quantity must be positive, with at"),
        ({"lines": LINES.replace("12.00", "")}, r"lines.csv line 2: unit_price is not a decimal number: ''"),
        ({"lines": LINES + '1,2,p,"1,1\n'}, r"lines.csv line 3: unexpected end of data"),
        ({"toml": 'currency = "XQX"'}, r"dataset.toml: the currency code 'XQX'"),
        ({"toml": 'timezone = "America/Nowhere"'}, r"dataset.toml: the time zone 'America/Nowhere'"),
        ({"toml": "[timezones]\nelsewhere = 'UTC'"}, r"dataset.toml: .* without orders: elsewhere"),
        ({"toml": "cutoff_hour = 24"}, r"dataset.toml: cutoff_hour must be 0 to 23, not 24"),
        ({"toml": "cutof_hour = 4"}, r"dataset.toml: unknown setting\(s\) cutof_hour"),
        ({"toml": "cutoff_hour ="}, r"dataset.toml: "),
    ],
)
def test_refuses_what_does_not_fit_with_file_and_line(tmp_path: Path, change: dict[str, str], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        load_dataset(folder(tmp_path, **change), 1)


def test_refuses_folders_that_are_not_datasets(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is not a folder"):
        load_dataset(tmp_path / "nothing", 1)
    with pytest.raises(DatasetError, match=r"has no items.csv"):
        load_dataset(tmp_path, 1)
    folder(tmp_path)
    (tmp_path / "items.csv").write_bytes(ITEMS.encode() + b"x,\xff,y,z,1\n")
    with pytest.raises(DatasetError, match=r"items.csv is not UTF-8"):
        load_dataset(tmp_path, 1)
