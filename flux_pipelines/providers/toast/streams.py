"""Toast's menus, restaurants, stock and time entries, each object exactly as received.

| stream | records |
|---|---|
| `catalog` | `location` (restaurants/v1), `menu` (all published menus of a restaurant, one object), `alternate_payment_type` (config/v2) |
| `inventory` | `stock`: everything that is not simply in stock, then the menu's other items |
| `labor` | `time_entry` of a business date; `job`, for their titles. Employees are never asked for: the entry has their id |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from flux_pipelines.domain.decoding import decoder
from flux_pipelines.domain.errors import ConfigurationError, ProviderUnavailableError
from flux_pipelines.providers.base import Record, Window
from flux_pipelines.providers.common.paging import by_cursor
from flux_pipelines.providers.toast.orders import business_date
from flux_pipelines.transport.errors import RefusedError

if TYPE_CHECKING:
    from flux_pipelines.transport.client import Response

_MOST_IDS = 100  # of one stock search
_LONGEST_INTERVAL = timedelta(days=30)
_MOST_RESTARTS = 5


class _Item(msgspec.Struct, rename="camel"):
    guid: str | None = None


class _Group(msgspec.Struct, rename="camel"):
    menu_items: list[_Item] | None = None
    menu_groups: list[_Group] | None = None


class _Menu(msgspec.Struct, rename="camel"):
    menu_groups: list[_Group] | None = None


class _Menus(msgspec.Struct, rename="camel"):
    menus: list[_Menu] | None = None


class _Stock(msgspec.Struct):
    guid: str | None = None


class _Entry(msgspec.Struct, rename="camel"):
    business_date: str | int | None = None
    in_date: datetime | None = None


_decode_raw = decoder(msgspec.Raw)
_decode_list = decoder(list[msgspec.Raw])
_decode_menus = decoder(_Menus)
_decode_stock = decoder(_Stock)
_decode_entry = decoder(_Entry)


class ToastStreams:
    """What a Toast connection can be asked for beside orders.

    Args:
        get: sends a request for a restaurant.
        noon: an instant that lies in a restaurant's business date.
        connection: the connection's key, for errors.

    """

    def __init__(
        self, get: Callable[..., Response[Any]], noon: Callable[[str, date], datetime], connection: str
    ) -> None:
        self._get = get
        self._noon = noon
        self._connection = connection

    def read(self, stream: str, window: Window) -> Iterator[Sequence[Record]]:
        """Yield the records of a stream, a page at a time.

        Raises:
            ConfigurationError: Toast has no such stream.

        """
        collectors = {"catalog": self._catalog, "inventory": self._inventory, "labor": self._labor}
        if stream not in collectors:
            raise ConfigurationError(f"Toast has no stream called {stream!r}")
        for restaurant in window.location_ids:
            yield from collectors[stream](restaurant, window)

    def changes(self, stream: str, window: Window) -> Iterator[tuple[str, datetime]]:
        """Yield where, and at an instant of which business date, time entries changed in a window.

        Raises:
            ConfigurationError: the stream is not one by day.

        """
        if stream != "labor":
            raise ConfigurationError(f"Toast cannot be asked what changed in {stream!r}")
        for restaurant in window.location_ids:
            days = set()
            start = window.start
            while start < window.end:
                end = min(start + _LONGEST_INTERVAL, window.end)
                asked = {"modifiedStartDate": stamp(start), "modifiedEndDate": stamp(end, up=True)}
                for raw in self._list("/labor/v1/timeEntries", restaurant, asked):
                    day = _day_of(raw)
                    if day is not None:
                        days.add(day)
                start = end
            for day in sorted(days):
                yield restaurant, self._noon(restaurant, day)

    def _catalog(self, restaurant: str, _window: Window) -> Iterator[Sequence[Record]]:
        yield [Record("location", restaurant, self._whole(f"/restaurants/v1/restaurants/{restaurant}", restaurant))]
        yield [Record("menu", restaurant, self._whole("/menus/v2/menus", restaurant))]
        kinds = self._config("/config/v2/alternatePaymentTypes", restaurant)
        yield [Record("alternate_payment_type", restaurant, raw) for raw in kinds]

    def _inventory(self, restaurant: str, _window: Window) -> Iterator[Sequence[Record]]:
        listed = self._list("/stock/v1/inventory", restaurant, {})
        yield [Record("stock", restaurant, raw) for raw in listed]
        # What is simply in stock is left out of the list; of the menu's items it is asked for, so that it is not guessed.
        known = {_decode_stock(raw).guid for raw in listed}
        menus = self._get("/menus/v2/menus", restaurant, decode=_decode_menus).value
        others = [guid for guid in _items_of(menus) if guid not in known]
        for first in range(0, len(others), _MOST_IDS):
            answer = self._get(
                "/stock/v1/inventory/search",
                restaurant,
                json={"guids": others[first : first + _MOST_IDS], "multiLocationIds": []},
                decode=_decode_list,
            )
            yield [Record("stock", restaurant, raw) for raw in answer.value]

    def _labor(self, restaurant: str, window: Window) -> Iterator[Sequence[Record]]:
        day = f"{window.first_date:%Y%m%d}"
        entries = self._list("/labor/v1/timeEntries", restaurant, {"businessDate": day})
        yield [Record("time_entry", restaurant, raw) for raw in entries]
        yield [Record("job", restaurant, raw) for raw in self._list("/labor/v1/jobs", restaurant, {})]

    def _whole(self, path: str, restaurant: str) -> msgspec.Raw:
        found: msgspec.Raw = self._get(path, restaurant, decode=_decode_raw).value
        return found.copy()

    def _list(self, path: str, restaurant: str, asked: dict[str, str]) -> list[msgspec.Raw]:
        found: list[msgspec.Raw] = self._get(path, restaurant, params=asked, decode=_decode_list).value
        return found

    def _config(self, path: str, restaurant: str) -> list[msgspec.Raw]:
        """Follow page tokens to the end; from the beginning again when the configuration was published meanwhile (409)."""
        for _ in range(_MOST_RESTARTS):
            pages = by_cursor(
                lambda _, token: self._get(
                    path,
                    restaurant,
                    params={"pageToken": token} if token else {},
                    repeat_conflicts=False,
                    decode=_decode_list,
                ),
                lambda answer: answer.headers.get("toast-next-page-token", ""),
                lambda answer: answer.value,
                connection=self._connection,
                what=path,
            )
            try:
                return [one for answer in pages for one in answer.value]
            except RefusedError as refused:
                if refused.status != 409:
                    raise
        raise ProviderUnavailableError(
            f"Toast publishes the configuration anew while {path} is being read", connection=self._connection
        )


def _items_of(menus: _Menus) -> list[str]:
    """Return the GUIDs of every item on the menus, each once."""
    found: dict[str, None] = {}
    pending = [group for menu in menus.menus or () for group in menu.menu_groups or ()]
    while pending:
        group = pending.pop()
        found.update((item.guid, None) for item in group.menu_items or () if item.guid)
        pending += group.menu_groups or ()
    return list(found)


def _day_of(raw: msgspec.Raw) -> date | None:
    """Return a time entry's business date; None when it has none that can be read: its day will say so when fetched."""
    try:
        entry = _decode_entry(raw)
        if entry.business_date is not None:
            return business_date(int(entry.business_date))
    except (msgspec.DecodeError, ValueError):
        return None
    return entry.in_date.date() if entry.in_date is not None else None


def stamp(instant: datetime, *, up: bool = False) -> str:
    """Return an instant as Toast writes it, in whole milliseconds: the one before, or (`up`) the one after."""
    if up:
        instant += timedelta(microseconds=999)
    instant = instant.astimezone(UTC)
    return instant.strftime("%Y-%m-%dT%H:%M:%S.") + f"{instant.microsecond // 1000:03d}+0000"
