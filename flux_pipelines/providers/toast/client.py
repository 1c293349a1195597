"""Toast's orders and restaurants: pages of orders as received, with the few fields that landing needs.

Sources of every fact here are in README.md beside this file.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

import msgspec

from flux_pipelines.domain.decoding import decoder
from flux_pipelines.domain.errors import (
    ConfigurationError,
    PermissionLostError,
    UnknownZoneError,
)
from flux_pipelines.providers import witness
from flux_pipelines.providers.base import (
    Location,
    Order,
    OrderHeader,
    Page,
    RateLimit,
    Record,
    SourceContext,
    TimeField,
    Window,
)
from flux_pipelines.providers.common.paging import by_cursor
from flux_pipelines.providers.toast.login import account_of, scopes_of
from flux_pipelines.providers.toast.orders import page_decoder, read_order
from flux_pipelines.providers.toast.reports import PERMISSION, ToastReports
from flux_pipelines.providers.toast.streams import ToastStreams, stamp
from flux_pipelines.transport.errors import RefusedError

if TYPE_CHECKING:
    from flux_pipelines.transport import Stats
    from flux_pipelines.transport.client import ApiClient, Response

_PAGE_SIZE = 100  # the most that ordersBulk gives
#: The longest interval of modified time that Toast asks to be asked for at once ("one month").
LONGEST_INTERVAL = timedelta(days=30)
#: Orders can be asked for from here on (startDate "must be after 2015-12-01").
_BEGINNING = datetime(2015, 12, 2, tzinfo=UTC)
_RESTAURANT = "Toast-Restaurant-External-ID"
_READING = ("orders:read", "restaurants:read")
_ORDERS = "/orders/v2/ordersBulk"
_NEXT = re.compile(r'<([^>]*)>\s*;[^,]*\brel="?next"?', re.IGNORECASE)
#: Where Toast sells, for restaurants whose description names no currency.
_CURRENCY_OF = {"US": "USD", "CA": "CAD", "GB": "GBP", "IE": "EUR", "AU": "AUD"}


class _General(msgspec.Struct, rename="camel"):
    name: str | None = None
    location_name: str | None = None
    time_zone: str | None = None
    closeout_hour: int | None = None
    currency_code: str | None = None
    archived: bool | None = None


class _Place(msgspec.Struct):
    country: str | None = None


class _Restaurant(msgspec.Struct):
    guid: str
    general: _General
    location: _Place | None = None

    @property
    def currency(self) -> str:
        """ISO 4217 code: its own, else its country's, else that of Toast's home."""
        return self.general.currency_code or _CURRENCY_OF.get((self.location or _Place()).country or "", "USD")

    @property
    def title(self) -> str:
        """Its name, with the location's where several restaurants share one."""
        name, place = self.general.name or "", self.general.location_name or ""
        return (place if name in place else f"{name} - {place}".removesuffix(" - ")) or self.guid


class _Accessible(msgspec.Struct, rename="camel"):
    restaurant_guid: str
    deleted: bool | None = None


_decode_restaurant = decoder(_Restaurant)
_decode_accessible = decoder(list[_Accessible])


def limits_of(requests_per_hour: int) -> tuple[RateLimit, ...]:
    """Return what holds for every call, per restaurant: Toast's present limits, or an hourly figure instead.

    The hourly figure is kept in slices of five minutes, so that nobody waits for most of an hour.
    """
    if requests_per_hour <= 0:
        return (RateLimit(20, 1.0), RateLimit(10_000, 900.0))
    return (RateLimit(min(20, requests_per_hour), 1.0), RateLimit(max(1, requests_per_hour // 12), 300.0))


class ToastClient:
    """One API client's orders, restaurants and streams (`Source`). Safe to use from threads."""

    max_locations_per_window = 1  # every call is for the one restaurant in its header
    by_business_date = True
    verified_by: Final = "updated"
    verification_is_whole = True

    def __init__(self, context: SourceContext) -> None:
        settings = context.provider.settings_of(context.connection)
        self._connection = context.connection.key
        self._credentials = context.credentials
        self._chosen = tuple(dict.fromkeys(re.findall(r"[^,\s]+", str(settings["restaurants"]))))
        self._pause = float(settings["history_pause_seconds"])
        everything = limits_of(int(settings["requests_per_hour"]))

        def client(*own: RateLimit) -> ApiClient:
            # All of them count against the same restaurant's budget; the slower kinds have a limit of their own besides.
            return context.transport.client(
                provider=context.provider.name,
                connection=context.connection.key,
                base_url=str(settings["base_url"]),
                limits=(*own, *everything),
                credentials=context.credentials,
                headers={},
            )

        self._api = client()
        self._bulk = client(RateLimit(5, 1.0))
        self._menus = client(RateLimit(1, 1.0))
        # What is asked of months has a lower limit still; they are few.
        self._reports_asked = client(RateLimit(10, 60.0), RateLimit(60, 3600.0))
        self._reports_had = client(RateLimit(5, 1.0), RateLimit(30, 60.0))
        self._clients = (self._api, self._bulk, self._menus, self._reports_asked, self._reports_had)
        self._mutex = threading.Lock()
        self._known: dict[str, _Restaurant] = {}
        self._accessible: tuple[str, ...] | None = None
        self._streams = ToastStreams(self._get, self._noon, self._connection)
        patience = float(settings["report_wait_seconds"])
        self._reports = ToastReports(
            self._reports_asked, self._reports_had, self._connection, self._restaurants, patience
        )

    @property
    def stats(self) -> Stats:
        """What this client's calls have cost so far: requests, retries, seconds waited for limits, bytes."""
        total = self._api.stats
        for other in (client.stats for client in self._clients[1:]):
            total.requests += other.requests
            total.retries += other.retries
            total.waited_seconds += other.waited_seconds
            total.bytes += other.bytes
        return total

    def supports_slicing(self, _window: Window, _time_field: TimeField) -> bool:
        """Never: Toast does not say in what order orders come."""
        return False

    def history_from(self, _now: datetime) -> datetime | None:
        """Toast keeps every order, but cannot be asked for those before December 2015."""
        return _BEGINNING

    def locations(self) -> list[Location]:
        """Return every restaurant that the connection is for, archived ones too, as Toast describes it."""
        found = []
        for guid in self._restaurants(anew=True):
            restaurant = self._restaurant(guid)
            general = restaurant.general
            found.append(
                Location(guid, restaurant.title, general.time_zone or "UTC", restaurant.currency, not general.archived)
            )
        return found

    def pages(self, window: Window, time_field: TimeField) -> Iterator[Page]:
        """Yield a restaurant's orders of a business date, or those last changed in an interval, in whatever order.

        An order may come twice: numbered pages shift while orders change.

        Raises:
            ConfigurationError: orders cannot be asked for by the time they were closed.

        """
        if time_field == "closed":
            raise ConfigurationError("Toast cannot be asked for orders by the time they were closed")
        for restaurant in window.location_ids:
            last = restaurant == window.location_ids[-1]
            questions = self._by_change(window) if time_field == "updated" else self._by_date(restaurant, window)
            for number, question in enumerate(questions):
                if number and time_field == "updated" and self._pause > 0:
                    time.sleep(self._pause)  # Toast asks for some seconds between intervals of history
                for page in self._search(restaurant, question):
                    if time_field == "created" and window.business_date is None:
                        page = page._replace(orders=[o for o in page.orders if _made_within(o.header, window)])
                    yield page._replace(last=page.last and last and number == len(questions) - 1)

    def orders(self, order_ids: Sequence[str]) -> list[Order]:
        """Return the orders of these ids as they are now; those that no restaurant of the connection has are left out."""
        found = []
        likely = ""  # an id does not say whose it is: begin where the last one was
        for order_id in dict.fromkeys(order_ids):
            for restaurant in sorted(self._restaurants(), key=lambda guid: guid != likely):
                order = self._order(restaurant, order_id)
                if order is not None:
                    found.append(order)
                    likely = restaurant
                    break
        return found

    def verify_access(self) -> str:
        """Prove that every restaurant's orders may be read, so that an empty answer means that there are none.

        Returns:
            The partner's or management set's id when the connection is for all of its restaurants; else nothing, since
            several connections may then share one API client.

        Raises:
            PermissionLostError: the token's scopes or a restaurant's answer say otherwise.

        """
        now = datetime.now(UTC)
        restaurants = self._restaurants(anew=True)
        if not restaurants:
            raise PermissionLostError(
                "no restaurant is accessible to this API client",
                connection=self._connection,
                next_step="Have a restaurant add the integration, or name its GUID in the setting `restaurants`.",
            )
        for restaurant in restaurants:
            self._bulk_page(restaurant, {"startDate": stamp(now - timedelta(seconds=1)), "endDate": stamp(now)}, 1)
        token = self._credentials.token()
        scopes = scopes_of(token)
        missing = [] if scopes is None else [scope for scope in _READING if scope not in scopes]
        if missing:
            raise PermissionLostError(
                f"the API client does not have the scope {' and '.join(missing)}", connection=self._connection
            )
        return "" if self._chosen else account_of(token)

    def accessible(self) -> tuple[str, ...]:
        """Return the connection's restaurants that Toast lists for this API client now."""
        return tuple(guid for guid in self._listed() if not self._chosen or guid in self._chosen)

    def read(self, stream: str, window: Window) -> Iterator[Sequence[Record]]:
        """Yield the records of a stream, a page at a time; see `streams.py`."""
        if stream == witness.STREAM:
            return witness.records(window, lambda: self._reports.stores(window), PERMISSION)
        return self._streams.read(stream, window)

    def changes(self, stream: str, window: Window) -> Iterator[tuple[str, datetime]]:
        """Yield where, and at noon of which business date, time entries changed in a window."""
        return iter(()) if stream == witness.STREAM else self._streams.changes(stream, window)

    def reported_orders(self, window: Window) -> Sequence[witness.ReportedOrder]:
        """Return what Toast's own report says of the checks of each order of a business date; see `ReportSource`."""
        return witness.answered(window, lambda: self._reports.orders(window), PERMISSION)

    def close(self) -> None:
        """Release the HTTP connections."""
        for client in self._clients:
            client.close()

    # --- orders ---

    def _by_date(self, restaurant: str, window: Window) -> list[dict[str, str]]:
        if window.business_date is not None:
            return [{"businessDate": f"{window.business_date:%Y%m%d}"}]
        zone, closeout = self._calendar(restaurant)
        first = (window.start.astimezone(zone) - closeout).date()
        final = (window.end - timedelta(microseconds=1)).astimezone(zone).date()
        return [{"businessDate": f"{first + timedelta(days=n):%Y%m%d}"} for n in range((final - first).days + 1)]

    def _by_change(self, window: Window) -> list[dict[str, str]]:
        intervals = []
        start = max(window.start, _BEGINNING)
        while start < window.end:
            end = min(start + LONGEST_INTERVAL, window.end)
            # The end is not included, and Toast counts milliseconds: a part of one more is asked for rather than less.
            intervals.append({"startDate": stamp(start), "endDate": stamp(end, up=True)})
            start = end
        return intervals

    def _search(self, restaurant: str, question: dict[str, str]) -> Iterator[Page]:
        for orders, following in by_cursor(
            lambda _, number: self._bulk_page(restaurant, question, number),
            lambda page: page[1],
            lambda page: [order.raw for order in page[0]],
            connection=self._connection,
            what=_ORDERS,
            first=1,
        ):
            yield Page(orders, last=following is None)

    def _bulk_page(self, restaurant: str, question: dict[str, str], number: int) -> tuple[list[Order], int | None]:
        decode = page_decoder(restaurant, self._restaurant(restaurant).currency)
        answer = self._bulk.request(
            "GET",
            _ORDERS,
            params={**question, "pageSize": _PAGE_SIZE, "page": number},
            headers={_RESTAURANT: restaurant},
            budget=(restaurant,),
            idempotent=True,
            decode=decode,
        )
        return answer.value, _next_page(answer.headers.get("link", ""), number)

    def _order(self, restaurant: str, order_id: str) -> Order | None:
        currency = self._restaurant(restaurant).currency
        try:
            answer = self._get(
                f"/orders/v2/orders/{order_id}", restaurant, decode=lambda body: read_order(body, restaurant, currency)
            )
        except RefusedError as refused:
            if refused.status in (400, 404):  # not this restaurant's
                return None
            raise
        found: Order = answer.value
        return found

    # --- restaurants ---

    def _restaurants(self, *, anew: bool = False) -> tuple[str, ...]:
        if self._chosen:
            return self._chosen
        if anew or self._accessible is None:
            self._accessible = self._listed()
        return self._accessible

    def _listed(self) -> tuple[str, ...]:
        answer = self._api.request("GET", "/partners/v1/restaurants", idempotent=True, decode=_decode_accessible)
        return tuple(dict.fromkeys(one.restaurant_guid for one in answer.value if not one.deleted))

    def _restaurant(self, guid: str) -> _Restaurant:
        with self._mutex:
            known = self._known.get(guid)
            if known is None:
                known = self._known[guid] = self._get(
                    f"/restaurants/v1/restaurants/{guid}",
                    guid,
                    params={"includeArchived": "true"},
                    decode=_decode_restaurant,
                ).value
            return known

    def _calendar(self, restaurant: str) -> tuple[ZoneInfo, timedelta]:
        general = self._restaurant(restaurant).general
        try:
            zone = ZoneInfo(general.time_zone or "UTC")
        except (KeyError, ValueError, OSError):
            raise UnknownZoneError(
                f"the restaurant {restaurant} has an unknown time zone {general.time_zone!r}",
                connection=self._connection,
            ) from None
        return zone, timedelta(hours=4 if general.closeout_hour is None else general.closeout_hour)

    def _noon(self, restaurant: str, day: date) -> datetime:
        """Return an instant that lies in a restaurant's business date whatever its closeout hour."""
        zone, _ = self._calendar(restaurant)
        return datetime(day.year, day.month, day.day, 13, tzinfo=zone).astimezone(UTC)

    def _get(self, path: str, restaurant: str, **more: Any) -> Response[Any]:
        client = self._menus if path.startswith("/menus/") and path.endswith("/menus") else self._api
        method = "POST" if "json" in more else "GET"
        return client.request(
            method, path, headers={_RESTAURANT: restaurant}, budget=(restaurant,), idempotent=True, **more
        )


def _next_page(link: str, number: int) -> int | None:
    """Return the number of the page that a Link header (RFC 8288) names as the next; None when there is none."""
    found = _NEXT.search(link)
    if found is None:
        return None
    named = parse_qs(urlsplit(found.group(1)).query).get("page", [""])[0]
    return int(named) if named.isdigit() else number + 1


def _made_within(header: OrderHeader | None, window: Window) -> bool:
    return header is None or window.start <= header.created_at < window.end
