"""What Square is asked for beside orders: payments, catalog, stock counts and timecards, as records of streams.

Each stream needs a permission of its own. An account that was connected before Flux asked for it goes on giving its orders;
the stream says which permission is missing and what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flux_pipelines.domain.errors import ConfigurationError, PermissionLostError
from flux_pipelines.providers.base import Record, Window
from flux_pipelines.providers.square import labor, payments
from flux_pipelines.providers.square.paging import follow, unordered
from flux_pipelines.providers.square.records import Found, Listed, is_sold_out, lists

if TYPE_CHECKING:
    from flux_pipelines.transport.client import ApiClient

#: The permissions without which a stream cannot be read.
STREAM_SCOPES: dict[str, tuple[str, ...]] = {
    "payments": ("PAYMENTS_READ",),
    "catalog": ("ITEMS_READ", "MERCHANT_PROFILE_READ"),
    "inventory": ("INVENTORY_READ",),
    "labor": ("TIMECARDS_READ",),
}
_CATALOG, _COUNTS = "/v2/catalog/search", "/v2/inventory/counts/batch-retrieve"
_PAGE_SIZE = 1000  # the most that the catalog and the counts give
_CATALOG_TYPES = ("ITEM", "ITEM_VARIATION", "CATEGORY")
#: A variation that the seller marked as sold out at one location at least.
SOLD_OUT = "sold_out"
_decode_objects = lists("objects", related="related_objects")
_decode_counts = lists("counts")
_read_locations = lists("locations")


def _decode_locations(body: bytes) -> Listed:
    answer = _read_locations(body)
    if not answer.found:
        raise ValueError("the answer holds no locations, but every merchant has one")
    return answer


class SquareStreams:
    """One connection's streams.

    Args:
        api: the connection's client.
        connection: its key, for errors.
        granted: tells which permissions the token has, as Square said when it was last asked.

    """

    def __init__(self, api: ApiClient, connection: str, granted: Callable[[], Collection[str]]) -> None:
        self._api = api
        self._connection = connection
        self._granted = granted

    def read(self, stream: str, window: Window) -> Iterator[list[Record]]:
        """Yield a stream's records; see `Source`.

        Raises:
            PermissionLostError: a permission is missing. Where nothing was found, Square has been asked whether it is: once
                a client, which is as long as a sync.

        """
        pages = {
            "payments": lambda: payments.read(self._api, self._connection, window),
            "catalog": lambda: self._catalog(window),
            "inventory": lambda: self._inventory(window),
            "labor": lambda: labor.read(self._api, self._connection, window),
        }
        empty = True
        for page in self._permitted(stream, pages):
            empty = False
            yield page
        if empty:
            self._confirm(stream)

    def changes(self, stream: str, window: Window) -> Iterator[tuple[str, datetime]]:
        """Yield where and when what changed had happened; see `Source`."""
        found = {
            "payments": lambda: payments.changes(self._api, self._connection, window),
            "labor": lambda: labor.changes(self._api, self._connection, window),
        }
        return self._permitted(stream, found)

    def _permitted(self, stream: str, known: dict[str, Callable[[], Iterator[Any]]]) -> Iterator[Any]:
        if stream not in known:
            raise ConfigurationError(
                f"Square has no stream {stream!r} that this can be asked of", connection=self._connection
            )
        try:
            yield from known[stream]()
        except PermissionLostError as lost:
            raise self._lost(stream, STREAM_SCOPES[stream], f" ({lost.what})") from lost

    def _confirm(self, stream: str) -> None:
        granted = self._granted()
        if missing := [scope for scope in STREAM_SCOPES[stream] if scope not in granted]:
            raise self._lost(stream, missing, "")

    def _lost(self, stream: str, scopes: Collection[str], said: str) -> PermissionLostError:
        return PermissionLostError(
            f"Square does not let the stream `{stream}` be read: it needs the permission {' and '.join(scopes)}{said}",
            connection=self._connection,
            next_step=(
                "Connect the account again, which asks for every permission, then run the failed partitions again. "
                "Orders are read without it."
            ),
        )

    def _catalog(self, window: Window) -> Iterator[list[Record]]:
        """Yield the whole catalog, deleted objects too, and the locations."""
        answer = self._api.request("GET", "/v2/locations", idempotent=True, decode=_decode_locations)
        yield [Record("location", one.head.id, one.raw) for one in answer.value.found]
        seen: set[tuple[str, int]] = set()

        def ask(_: datetime, cursor: str) -> Listed:
            body: dict[str, Any] = {
                "object_types": _CATALOG_TYPES,
                "include_deleted_objects": True,
                "include_related_objects": True,
                "limit": _PAGE_SIZE,
            }
            if cursor:
                body["cursor"] = cursor
            found = self._api.request("POST", _CATALOG, json=body, idempotent=True, decode=_decode_objects)
            return found.value

        for page in follow(ask, window.start, unordered, connection=self._connection, what=_CATALOG):
            # Related objects are the categories of each item and the item of each variation: again on every page.
            records = [Record(_kind(one), "", one.raw) for one in (*page.found, *page.related) if _is_new(one, seen)]
            if records:
                yield records

    def _inventory(self, window: Window) -> Iterator[list[Record]]:
        """Yield the counts of what can be sold, location by location."""
        for location_id in window.location_ids:

            def ask(_: datetime, cursor: str, location_id: str = location_id) -> Listed:
                body: dict[str, Any] = {"location_ids": [location_id], "states": ["IN_STOCK"], "limit": _PAGE_SIZE}
                if cursor:
                    body["cursor"] = cursor
                answer = self._api.request(
                    "POST",
                    _COUNTS,
                    json=body,
                    idempotent=True,
                    budget=(location_id,),
                    decode=_decode_counts,
                )
                return answer.value

            for page in follow(ask, window.start, unordered, connection=self._connection, what=_COUNTS):
                if page.found:
                    yield [Record("count", one.head.location_id or location_id, one.raw) for one in page.found]
        yield from self._sold_out(window)

    def _sold_out(self, window: Window) -> Iterator[list[Record]]:
        """Yield the variations that are marked as sold out: no count tells of that, and they need not be counted at all.

        The mark is no attribute that can be searched by (CatalogQuery), so every variation is looked at. Without the
        permission to read the catalog there are the counts alone.
        """

        def ask(_: datetime, cursor: str) -> Listed:
            body: dict[str, Any] = {"object_types": ["ITEM_VARIATION"], "limit": _PAGE_SIZE}
            if cursor:
                body["cursor"] = cursor
            found = self._api.request("POST", _CATALOG, json=body, idempotent=True, decode=_decode_objects)
            return found.value

        try:
            for page in follow(ask, window.start, unordered, connection=self._connection, what=_CATALOG):
                records = [Record(SOLD_OUT, "", one.raw) for one in page.found if is_sold_out(one.raw)]
                if records:
                    yield records
        except PermissionLostError:
            if "ITEMS_READ" in self._granted():
                raise


def _kind(one: Found) -> str:
    return one.head.type.lower() or "catalog_object"


def _is_new(one: Found, seen: set[tuple[str, int]]) -> bool:
    """Tell whether this version of an object has not been seen yet; one that cannot be read always is."""
    if not one.head.id:
        return True
    key = (one.head.id, one.head.version)
    if key in seen:
        return False
    seen.add(key)
    return True
