"""A source of orders held in memory, with the habits of a real one: pages, ties, repeats, late arrivals, failures."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from flux_pipelines.providers.base import Location, Order, OrderHeader, Page, TimeField, Window
from flux_pipelines.sync.slices import INSTANT_OF


def stamp(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def sale(order_id: str, at: datetime, location: str = "L1", amount: int = 1000, **more: Any) -> dict[str, Any]:
    money = {"amount": amount, "currency": "USD"}
    return {
        "id": order_id,
        "location_id": location,
        "state": "COMPLETED",
        "created_at": stamp(at),
        "updated_at": stamp(at),
        "closed_at": stamp(at),
        "line_items": [{"uid": "l", "quantity": "1", "name": "Tea", "base_price_money": money, "total_money": money}],
        "total_money": money,
        **more,
    }


def read(order: dict[str, Any]) -> Order:
    raw = msgspec.Raw(json.dumps(order).encode())
    if order.get("unreadable"):
        return Order(raw, None, "it cannot be read")
    closed = order.get("closed_at")
    return Order(
        raw,
        OrderHeader(
            order["id"],
            order["location_id"],
            datetime.fromisoformat(order["created_at"]),
            datetime.fromisoformat(order["updated_at"]),
            datetime.fromisoformat(closed) if closed else None,
            order["state"],
            order["total_money"]["amount"],
            order["total_money"]["currency"],
            sold=order.get("sold"),
        ),
    )


class MemorySource:
    """A `Source` over a list of orders. `before_page` may change the list, or raise, before a page is made."""

    max_locations_per_window = 2
    by_business_date = False
    verified_by: Final = "closed"
    verification_is_whole = True

    def __init__(
        self,
        orders: list[dict[str, Any]],
        locations: list[Location],
        *,
        page_size: int = 10,
        seconds_a_page: float = 0.0,
        restart_every: int = 0,
        from_the_start: int = 0,
    ) -> None:
        self.orders = orders
        self.asked: list[tuple[TimeField, Window]] = []
        self.pages_given = 0
        self.access_confirmed = 0
        self.sorted_by: Callable[[tuple[datetime, Order]], Any] = lambda item: item[0]
        self.before_page: Callable[[TimeField, Window, int], None] = lambda time_field, window, number: None
        self._locations = locations
        self._page_size = page_size
        self._seconds = seconds_a_page
        self._restart_every = restart_every
        self._from_the_start = from_the_start
        self._lock = threading.Lock()

    def supports_slicing(self, _window: Window, _time_field: TimeField) -> bool:
        return True

    def history_from(self, _now: datetime) -> datetime | None:
        return None

    def locations(self) -> list[Location]:
        return self._locations

    def pages(self, window: Window, time_field: TimeField) -> Iterator[Page]:
        with self._lock:
            self.asked.append((time_field, window))
        at = 0
        number = 0
        while True:
            self.before_page(time_field, window, number)
            if self._seconds:
                time.sleep(self._seconds)
            found = sorted(self._matching(window, time_field), key=self.sorted_by)
            page = [order for _, order in found[at : at + self._page_size]]
            at += self._page_size
            number += 1
            with self._lock:
                self.pages_given += 1
            last = at >= len(found)
            yield Page(page, last)
            if last:
                return
            if self._restart_every and number % self._restart_every == 0:
                # A dead cursor: the search starts again at the last instant seen.
                reached = found[at - 1][0]
                at = next(i for i, (instant, _) in enumerate(found) if instant == reached)
            if number == self._from_the_start:
                at = 0  # a dead cursor of a provider whose search can only start from its beginning

    def _matching(self, window: Window, time_field: TimeField) -> Iterator[tuple[datetime, Order]]:
        for given in self.orders:
            order = read(given)
            if given["location_id"] not in window.location_ids:
                continue
            if order.header is None:
                instant: datetime | None = datetime.fromisoformat(given["created_at"])
            else:
                instant = INSTANT_OF[time_field](order.header)
            if instant is not None and window.start <= instant < window.end:
                yield instant, order

    def verify_access(self) -> str:
        self.access_confirmed += 1
        return ""

    def close(self) -> None:
        pass
