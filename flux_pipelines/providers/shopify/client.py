"""Shopify's orders and streams over the Admin GraphQL API. Sources of every fact here are in README.md beside this file."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from flux_pipelines.domain.errors import PermissionLostError
from flux_pipelines.providers import witness
from flux_pipelines.providers.base import (
    Location,
    Order,
    OrderHeader,
    Page,
    Record,
    SourceContext,
    TimeField,
    Window,
)
from flux_pipelines.providers.shopify.bulk import BulkOrders, BulkTooLargeError, BulkUnavailableError
from flux_pipelines.providers.shopify.graphql import GraphQL
from flux_pipelines.providers.shopify.orders import (
    Completer,
    Connection,
    Members,
    Restarts,
    Sizer,
    gid,
    number_of,
    read,
    sized,
    with_first,
)
from flux_pipelines.providers.shopify.reports import PERMISSION, ShopifyReports
from flux_pipelines.providers.shopify.streams import Shop, Streams
from flux_pipelines.transport import RefusedError

if TYPE_CHECKING:
    from flux_pipelines.transport import Stats

_log = logging.getLogger(__name__)

#: Without `read_all_orders` older orders are left out without a word (https://shopify.dev/docs/api/usage/access-scopes).
HISTORY_WITHOUT_SCOPE: Final = timedelta(days=60)
_ALL_ORDERS = "read_all_orders"
_READING = ("read_orders", "read_products", "read_inventory", "read_locations")
_SCOPES_KEPT = 600.0  # seconds for which granted scopes are believed
#: Shopify's general limit on how deep a connection may be paged is 25,000 objects; a search starts again before it.
_DEEPEST = 20_000
_BULK_PAGE = 250
_SECOND = timedelta(seconds=1)


class _Orders(msgspec.Struct):
    orders: Connection


class _ShopHead(msgspec.Struct, rename="camel"):
    id: str
    myshopify_domain: str


class _Scope(msgspec.Struct):
    handle: str


class _Installation(msgspec.Struct, rename="camel"):
    access_scopes: list[_Scope]


class _Access(msgspec.Struct, rename="camel"):
    shop: _ShopHead
    current_app_installation: _Installation


class _Version(msgspec.Struct):
    handle: str
    supported: bool


class _Versions(msgspec.Struct, rename="camel"):
    public_api_versions: list[_Version]


_CREATED: Callable[[OrderHeader], datetime] = lambda header: header.created_at  # noqa: E731
_UPDATED: Callable[[OrderHeader], datetime] = lambda header: header.updated_at  # noqa: E731


class ShopifyClient:
    """One shop's orders, catalog and stock (`Source`). Safe to use from threads."""

    max_locations_per_window = 1_000_000  # orders are never asked for by location: one window holds those of the shop
    by_business_date = False
    verified_by: Final = "updated"
    verification_is_whole = False

    def __init__(self, context: SourceContext) -> None:
        settings = context.provider.settings_of(context.connection)
        self._connection = context.connection.key
        self._bulk_days = int(settings["bulk_days"])
        self._graphql = GraphQL(context)
        self._streams = Streams(self._graphql)
        self._reports = ShopifyReports(self._graphql, self._shop, self.locations)
        self._bulk = BulkOrders(self._graphql)
        self._completer = Completer(self._graphql, lambda: number_of(self._shop().id))
        self._whole = Sizer(20)
        self._heads = Sizer(100)
        self._known: Shop | None = None
        self._known_places: frozenset[str] | None = None
        self._granted: tuple[float, frozenset[str]] | None = None
        self._lock = threading.Lock()

    @property
    def stats(self) -> Stats:
        """What this client's calls have cost so far: requests, retries, seconds waited for limits, bytes."""
        return self._graphql.stats

    @property
    def versions_answered(self) -> frozenset[str]:
        """The API versions that have answered; one that is not the pinned one means that the pinned one is gone."""
        return self._graphql.versions_answered

    def api_versions(self) -> dict[str, bool]:
        """Return the API versions that Shopify lists now, and whether each is supported."""
        found, _ = self._graphql.run("versions", {}, _Versions)
        return {version.handle: version.supported for version in found.public_api_versions}

    def supports_slicing(self, window: Window, time_field: TimeField) -> bool:
        """Tell whether a window is paged, oldest first; a bulk operation gives a window as a whole."""
        return time_field != "created" or not self._in_bulk(window)

    def history_from(self, now: datetime) -> datetime | None:
        """Return the instant 60 days ago, unless the app may read all orders."""
        return None if _ALL_ORDERS in self._scopes() else now - HISTORY_WITHOUT_SCOPE

    def locations(self) -> list[Location]:
        """Return the web shop itself, then every location, inactive ones too."""
        return self._streams.locations(self._shop())

    def pages(self, window: Window, time_field: TimeField) -> Iterator[Page]:
        """Yield a window's orders.

        By `created` (Shopify's `processedAt`: when the sale was made, also one that arrived later) they are whole: long
        windows come from a bulk operation, short ones page by page. By `updated` they have no more than what a header is
        made of.

        Raises:
            ValueError: the time_field is neither; Shopify cannot be asked by time of closing.

        """
        if time_field == "closed":
            raise ValueError("Shopify cannot be asked for orders by the time they were closed")
        if time_field == "created" and self._in_bulk(window):
            try:
                yield from self._bulk_pages(window)
                return
            except BulkUnavailableError as reason:
                _log.warning("%s: the bulk operation is of no use (%s): paging instead", self._connection, reason)
        yield from self._paged(window, time_field)

    def orders(self, order_ids: Sequence[str]) -> list[Order]:
        """Return the orders of these ids as they are now; Shopify leaves out those it does not know."""
        return self._completer.by_id([gid("Order", order_id) for order_id in order_ids])

    def read(self, stream: str, window: Window) -> Iterator[Sequence[Record]]:
        """Yield the records of a stream: `catalog` (what there is now), `inventory` (every level), or the sales report."""
        if stream == witness.STREAM:
            yield from witness.records(window, lambda: self._reports.stores(window), PERMISSION)
        else:
            yield from self._streams.read(stream, window)

    def reported_orders(self, window: Window) -> Sequence[witness.ReportedOrder]:
        """Return what Shopify's own report says of each order of a business date; see `ReportSource`."""
        return witness.answered(window, lambda: self._reports.orders(window), PERMISSION)

    def changes(self, stream: str, window: Window) -> Iterator[tuple[str, datetime]]:  # noqa: ARG002
        """Yield nothing: of the daily streams there is the report alone, which tells no changes."""
        yield from ()

    def verify_access(self) -> str:
        """Prove that the token may read what Flux reads, so that an empty answer means that there is nothing.

        Returns:
            The shop's domain.

        Raises:
            PermissionLostError: a scope that reading needs is not granted (any more).

        """
        access = self._access()
        granted = self._remember(access)
        missing = [scope for scope in _READING if not granted & {scope, scope.replace("read_", "write_", 1)}]
        if missing:
            raise PermissionLostError(
                f"the access token no longer has the permission {' and '.join(missing)}", connection=self._connection
            )
        return access.shop.myshopify_domain

    def close(self) -> None:
        """Release the HTTP connections."""
        self._graphql.close()

    def _shop(self) -> Shop:
        if self._known is None:
            self._known = self._streams.shop()[0]
        return self._known

    def _access(self) -> _Access:
        return self._graphql.run("access", {}, _Access)[0]

    def _remember(self, access: _Access) -> frozenset[str]:
        granted = frozenset(scope.handle for scope in access.current_app_installation.access_scopes)
        with self._lock:
            self._granted = (time.monotonic(), granted)
        return granted

    def _scopes(self) -> frozenset[str]:
        known = self._granted
        if known is not None and time.monotonic() - known[0] < _SCOPES_KEPT:
            return known[1]
        return self._remember(self._access())

    def _in_bulk(self, window: Window) -> bool:
        return self._bulk_days > 0 and window.end - window.start >= timedelta(days=self._bulk_days) - timedelta(hours=1)

    def _bulk_pages(self, window: Window) -> Iterator[Page]:
        try:
            found = self._bulk.find(_search("processed_at", window.start, window.end))
        except BulkTooLargeError:
            middle = _whole_second(window.start + (window.end - window.start) / 2)
            if middle <= window.start:
                raise BulkUnavailableError("the orders of one second are too many for a file") from None
            yield from self._not_last(Window(window.location_ids, window.start, middle))
            yield from self._bulk_pages(Window(window.location_ids, middle, window.end))
            return
        for first in range(0, len(found), _BULK_PAGE):
            part: list[Members] = found[first : first + _BULK_PAGE]
            orders = self._completer.whole(part)
            yield Page(self._within(orders, window, _CREATED), last=first + _BULK_PAGE >= len(found))
        if not found:
            yield Page([], last=True)

    def _not_last(self, window: Window) -> Iterator[Page]:
        for page in self._bulk_pages(window):
            yield Page(page.orders, last=False)

    def _paged(self, window: Window, time_field: TimeField) -> Iterator[Page]:
        name, sizer = ("orders", self._whole) if time_field == "created" else ("order_heads", self._heads)
        field, instant = ("processed_at", _CREATED) if time_field == "created" else ("updated_at", _UPDATED)
        start, reached, after, depth = window.start, window.start, None, 0
        restarts = Restarts(self._connection, name)
        while True:
            variables = {"query": _search(field, start, window.end), "sortKey": field.upper(), "after": after}
            try:
                found = sized(self._graphql, name, sizer, with_first(variables), _Orders).orders
            except RefusedError as refused:
                restarts.allow(refused, after)
                start, after, depth = reached, None, 0
                continue
            orders = self._made(found.nodes, time_field)
            last = not restarts.goes_on(found.page_info, found.nodes)
            yield Page(self._within(orders, window, instant), last=last)
            if last:
                return
            after = found.page_info.end_cursor
            depth += len(found.nodes)
            latest = max((instant(o.header) for o in orders if o.header is not None), default=reached)
            if latest > reached:
                reached = latest
                restarts.got_on()
            if depth >= _DEEPEST and reached > start:
                start, after, depth = reached, None, 0

    def _within(
        self, orders: Sequence[Order], window: Window, instant: Callable[[OrderHeader], datetime]
    ) -> list[Order]:
        """Leave the orders of the window: its half-open interval, its locations.

        What cannot be read stays, and what is of a location that nobody knows: it must not get lost.
        """
        wanted = frozenset(window.location_ids)
        kept = []
        for order in orders:
            header = order.header
            if header is not None:
                if not window.start <= instant(header) < window.end:
                    continue
                if header.location_id not in wanted and header.location_id in self._places():
                    continue
            kept.append(order)
        return kept

    def _places(self) -> frozenset[str]:
        if self._known_places is None:
            self._known_places = frozenset(location.location_id for location in self.locations())
        return self._known_places

    def _made(self, nodes: Sequence[msgspec.Raw], time_field: TimeField) -> list[Order]:
        if time_field == "created":
            return self._completer.whole(nodes)
        shop_id = number_of(self._shop().id)
        return [read(node, shop_id) for node in nodes]


def _search(field: str, start: datetime, end: datetime) -> str:
    """Return the search for an interval; Shopify's times have whole seconds, so it is widened to those."""
    until = end if end.microsecond == 0 else end + _SECOND
    return f"{field}:>='{_stamp(start)}' AND {field}:<'{_stamp(until)}'"


def _whole_second(instant: datetime) -> datetime:
    return instant.replace(microsecond=0)


def _stamp(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
