"""Real order data, replayed: a folder of `items.csv`, `orders.csv`, `lines.csv` and perhaps `dataset.toml`.

Every order becomes a completed order paid in cash at its local wall time. Nothing is guessed: a row that does not fit
is refused with its file and line. A wall time that a change of clocks skipped or repeated is read as `zoneinfo` reads
it (`fold=0`), which keeps its local date.
"""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from flux_pipelines.domain.business_day import zone
from flux_pipelines.domain.errors import ConfigurationError, FluxError
from flux_pipelines.domain.money import exponent
from flux_sandbox.ids import code, token
from flux_sandbox.model import Item, Line, Location, Merchant, Payment, Returned, Sale

FILES: dict[str, tuple[str, ...]] = {
    "items.csv": ("item_id", "name", "category", "variation", "price"),
    "orders.csv": ("order_id", "ordered_at", "location", "kind", "source_order_id"),
    "lines.csv": ("order_id", "line_id", "item_id", "quantity", "unit_price"),
}
#: Where a folder's merchant has its account, and what its sales say of where they were made.
_PROVIDER, _COUNTER = "square", "Square Point of Sale"
_SETTINGS = frozenset({"currency", "timezone", "timezones", "cutoff_hour"})
_MAX_PRECISION = 5  # decimals that a point of sale keeps of a quantity
_MAX_REFERENCE = 40  # characters of an order's reference_id


class DatasetError(ConfigurationError):
    """A dataset folder that cannot be replayed: which file, which line, what is wrong with it."""

    default_next_step = "Correct the file, then start the sandbox again; nothing was served from it."


class _Row:
    """One row with its place, so that whatever is wrong with it can be said."""

    __slots__ = ("file", "line", "values")

    def __init__(self, file: str, line: int, values: dict[str, str]) -> None:
        self.file, self.line, self.values = file, line, values

    def __getitem__(self, column: str) -> str:
        return self.values[column]

    def wrong(self, what: str) -> DatasetError:
        return DatasetError(f"{self.file} line {self.line}: {what}")

    def text(self, column: str) -> str:
        value = self.values[column]
        if not value.strip():
            raise self.wrong(f"{column} is empty")
        return value

    def decimal(self, column: str) -> Decimal:
        try:
            value = Decimal(self.values[column])
        except InvalidOperation:
            raise self.wrong(f"{column} is not a decimal number: {self.values[column]!r}") from None
        if not value.is_finite():
            raise self.wrong(f"{column} is not a finite number: {self.values[column]!r}")
        return value

    def money(self, column: str, places: int) -> int:
        value = self.decimal(column)
        minor = value.scaleb(places)
        if value < 0 or minor != minor.to_integral_value():
            raise self.wrong(f"{column} must be zero or more, with at most {places} decimals: {self[column]!r}")
        return int(minor)

    def quantity(self) -> tuple[int, int]:
        value = self.decimal("quantity").normalize()
        places = max(0, -int(value.as_tuple().exponent))
        if value <= 0 or places > _MAX_PRECISION or value >= 10 ** (11 - places):
            raise self.wrong(f"quantity must be positive, with at most {_MAX_PRECISION} decimals: {self['quantity']!r}")
        return int(value.scaleb(places)), places


def _rows(folder: Path, name: str) -> Iterator[_Row]:
    path = folder / name
    columns = FILES[name]
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            missing = [column for column in columns if column not in header]
            if missing:
                raise DatasetError(f"{name} line 1: missing column(s) {', '.join(missing)}")
            if len(set(header)) != len(header):
                raise DatasetError(f"{name} line 1: a column appears twice")
            width = len(header)
            begin = reader.line_num + 1
            for cells in reader:
                # A quoted cell may span lines: a row is named by the line it begins on.
                line, begin = begin, reader.line_num + 1
                if not cells:
                    continue
                if len(cells) != width:
                    raise DatasetError(f"{name} line {line}: {len(cells)} cells where the header has {width}")
                yield _Row(name, line, dict(zip(header, cells, strict=True)))
    except FileNotFoundError:
        raise DatasetError(f"{folder} has no {name}") from None
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{name} is not UTF-8 (byte {error.start})") from error
    except csv.Error as error:
        raise DatasetError(f"{name} line {reader.line_num}: {error}") from error


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "dataset.toml"
    if not path.exists():
        return {}
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"dataset.toml: {error}") from error
    unknown = sorted(set(settings) - _SETTINGS)
    if unknown:
        raise DatasetError(
            f"dataset.toml: unknown setting(s) {', '.join(unknown)}; known: {', '.join(sorted(_SETTINGS))}"
        )
    for name in ("currency", "timezone"):
        if not isinstance(settings.get(name, ""), str):
            raise DatasetError(f"dataset.toml: {name} must be text")
    zones = settings.get("timezones", {})
    if not isinstance(zones, dict) or not all(isinstance(value, str) for value in zones.values()):
        raise DatasetError("dataset.toml: [timezones] must map locations to zone names")
    cutoff = settings.get("cutoff_hour", 0)
    if not isinstance(cutoff, int) or isinstance(cutoff, bool) or not 0 <= cutoff <= 23:
        raise DatasetError(f"dataset.toml: cutoff_hour must be 0 to 23, not {cutoff!r}")
    return settings


def _items(folder: Path, key: str, places: int) -> dict[str, Item]:
    items: dict[str, Item] = {}
    for row in _rows(folder, "items.csv"):
        id_ = row.text("item_id")
        if id_ in items:
            raise row.wrong(f"the item {id_!r} appears twice")
        price = row.money("price", places)
        items[id_] = Item(code(key, "item", id_), row.text("name"), row["variation"], row["category"], price, "none")
    return items


class _Order:
    """An order row and its lines, before it is known what they come to."""

    __slots__ = ("at", "item_ids", "lines", "row")

    def __init__(self, row: _Row, at: int) -> None:
        self.row = row
        self.at = at
        self.lines: list[Line] = []
        self.item_ids: list[str] = []


def _wall_time(row: _Row, where: ZoneInfo) -> int:
    try:
        wall = datetime.fromisoformat(row["ordered_at"])
    except ValueError:
        raise row.wrong(f"ordered_at is not an ISO 8601 time: {row['ordered_at']!r}") from None
    if wall.tzinfo is not None:
        raise row.wrong(f"ordered_at is local wall time and takes no offset: {row['ordered_at']!r}")
    if "T" not in row["ordered_at"] and " " not in row["ordered_at"]:
        raise row.wrong(f"ordered_at has no time of day: {row['ordered_at']!r}")
    return int(wall.replace(tzinfo=where).astimezone(UTC).timestamp() * 1000)


def load_dataset(folder: Path, seed: int) -> tuple[Merchant, list[Sale]]:
    """Read a dataset folder into one merchant and its orders.

    Raises:
        DatasetError: something in it is malformed; the message names file and line.

    """
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder")
    settings = _settings(folder)
    currency = settings.get("currency", "USD")
    default_zone = settings.get("timezone", "America/New_York")
    zones: dict[str, str] = settings.get("timezones", {})
    try:
        places = exponent(currency)
        for name in (default_zone, *zones.values()):
            zone(name)
    except FluxError as error:
        raise DatasetError(f"dataset.toml: {error.what}") from error
    handle = folder.resolve().name.lower() or "dataset"
    key = f"{seed}|{handle}"
    title = handle.replace("_", " ").replace("-", " ").title()
    merchant = Merchant(
        *("ML" + code(key, "merchant", length=11), handle, title, currency, "US", "en-US"),
        cutoff_hour=settings.get("cutoff_hour", 0),
        provider=_PROVIDER,
        counter=_COUNTER,
    )
    items = _items(folder, key, places)
    merchant.items = list(items.values())
    locations: dict[str, Location] = {}
    orders: dict[str, _Order] = {}
    for row in _rows(folder, "orders.csv"):
        id_, name = row.text("order_id"), row.text("location")
        if id_ in orders:
            raise row.wrong(f"the order {id_!r} appears twice")
        if row["kind"] not in ("sale", "return"):
            raise row.wrong(f"kind must be sale or return, not {row['kind']!r}")
        if row["source_order_id"] and row["kind"] == "sale":
            raise row.wrong("a sale has no source_order_id")
        if name not in locations:
            zone_name = zones.get(name, default_zone)
            locations[name] = _location(key, merchant, name, zone_name)
        orders[id_] = _Order(row, _wall_time(row, zone(locations[name].timezone)))
    strangers = sorted(set(zones) - set(locations))
    if strangers:
        raise DatasetError(f"dataset.toml: [timezones] names location(s) without orders: {', '.join(strangers)}")
    merchant.locations = list(locations.values())
    _read_lines(folder, items, orders, places)
    return merchant, _sales(key, locations, orders)


def _location(key: str, merchant: Merchant, name: str, zone_name: str) -> Location:
    id_ = "L" + code(key, "location", name, length=12)
    return Location(id_, merchant.id, name, zone_name, merchant.currency, "US", name, "", "")


def _read_lines(folder: Path, items: dict[str, Item], orders: dict[str, _Order], places: int) -> None:
    seen: set[str] = set()
    for row in _rows(folder, "lines.csv"):
        order = orders.get(row["order_id"])
        if order is None:
            raise row.wrong(f"orders.csv has no order {row['order_id']!r}")
        item = items.get(row["item_id"])
        if item is None:
            raise row.wrong(f"items.csv has no item {row['item_id']!r}")
        line_id = row.text("line_id")
        if line_id in seen:
            raise row.wrong(f"the line {line_id!r} appears twice")
        seen.add(line_id)
        quantity, precision = row.quantity()
        price = row.money("unit_price", places)
        order.lines.append(Line("ITEM", item, item.name, quantity, price, precision, tax_class="none"))
        order.item_ids.append(row["item_id"])


def _sales(key: str, locations: dict[str, Location], orders: dict[str, _Order]) -> list[Sale]:
    sales: dict[str, Sale] = {}
    # Sales first: a return may stand above the sale it undoes.
    for id_, order in sorted(orders.items(), key=lambda pair: pair[1].row["kind"] == "return"):
        row = order.row
        if not order.lines:
            raise row.wrong(f"the order {id_!r} has no lines in lines.csv")
        location = locations[row["location"]]
        sale = Sale(
            token(key, "order", id_),
            location,
            order.at,
            order.at,
            order.at,
            source=_COUNTER,
            reference=id_ if len(id_) <= _MAX_REFERENCE else "",
        )
        if row["kind"] == "sale":
            sale.lines, sale.payments = tuple(order.lines), (Payment("CASH"),)
        else:
            sale.returns = (_returned(order, orders, sales),)
        sales[id_] = sale
    return list(sales.values())


def _returned(order: _Order, orders: dict[str, _Order], sales: dict[str, Sale]) -> Returned:
    """Link a return's lines to the lines of its sale, where the same item was sold at the same price."""
    row = order.row
    source_id = row["source_order_id"]
    if not source_id:
        return Returned(None, lines=tuple(order.lines))
    source = sales.get(source_id)
    if source is None or not source.lines:
        raise row.wrong(f"orders.csv has no sale {source_id!r} to return from")
    links = []
    for item_id, line in zip(order.item_ids, order.lines, strict=True):
        candidates = zip(orders[source_id].item_ids, source.lines, strict=True)
        found = [i for i, (other, sold) in enumerate(candidates) if other == item_id]
        exact = [i for i in found if source.lines[i].unit_price == line.unit_price]
        links.append((exact or found or [-1])[0])
    return Returned(source, lines=tuple(order.lines), links=tuple(links))
