"""Bunch's orders, goods and the store: offsets, filters that repeat, and a limit of its own for each token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import msgspec

from flux_pipelines.domain.decoding import decoder
from flux_pipelines.providers.base import (
    Concurrency,
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
from flux_pipelines.providers.common.paging import by_instant, by_offset
from flux_pipelines.providers.common.source import PlainSource
from flux_pipelines.transport.errors import RefusedError

_MOST = 1000  # elements of one answer
_WHOLE = ("expand", "lineItems,payments,refunds,serviceCharges,customers")


class _Payment(msgspec.Struct, rename="camel"):
    result: str
    tip_amount: int = 0


class _Listed(msgspec.Struct):
    elements: list[_Payment] = []


class _Header(msgspec.Struct, rename="camel"):
    id: str
    currency: str
    total: int
    state: str
    payment_state: str
    created_time: int
    modified_time: int
    payments: _Listed = msgspec.field(default_factory=_Listed)
    refunds: _Listed = msgspec.field(default_factory=_Listed)


class _Page(msgspec.Struct):
    elements: list[msgspec.Raw]


class _Properties(msgspec.Struct, rename="camel"):
    timezone: str
    default_currency: str


class _Merchant(msgspec.Struct):
    id: str
    name: str
    properties: _Properties


_decode_header = decoder(_Header)
_decode_page = decoder(_Page)
_decode_merchant = decoder(_Merchant)
_decode_raw = decoder(msgspec.Raw)


def read_order(raw: msgspec.Raw, store: str) -> Order:
    """Make an order of its JSON; one whose header cannot be read is kept with the reason, and loses no other."""
    try:
        found = _decode_header(raw)
        created, updated = (datetime.fromtimestamp(ms / 1000, UTC) for ms in (found.created_time, found.modified_time))
    except (msgspec.DecodeError, ValueError, OverflowError, OSError) as problem:
        return Order(raw, None, f"the order's header cannot be read: {problem}")
    state = "COMPLETED" if found.payment_state == "PAID" else "CANCELED" if found.state == "voided" else "OPEN"
    # Tips are the payments' alone.
    tips = sum(one.tip_amount for one in found.payments.elements if one.result == "SUCCESS")
    tips -= sum(one.tip_amount for one in found.refunds.elements if one.result == "SUCCESS")
    return Order(raw, OrderHeader(found.id, store, created, updated, None, state, found.total + tips, found.currency))


class BunchClient(PlainSource):
    """One merchant, which is one store (`Source`). Safe to use from threads."""

    def __init__(self, context: SourceContext) -> None:
        settings = context.provider.settings_of(context.connection)
        self._merchant = str(settings["merchant_id"]) or context.connection.account_id
        self._path = f"/v3/merchants/{self._merchant}"
        self._connection = context.connection.key
        of_token, of_app = context.provider.rate_limits
        self._api = context.transport.client(
            provider=context.provider.name,
            connection=context.connection.key,
            base_url=str(settings["base_url"]),
            limits=(RateLimit(max(1, int(settings["requests_per_minute"]) // 60), 1.0, of_token.per), of_app),
            credentials=context.credentials,
            headers={},
            concurrency=(Concurrency(5, "connection"), Concurrency(10, "app")),
        )

    def locations(self) -> list[Location]:
        """Return the store that the merchant is."""
        found = _decode_merchant(self._store())
        return [Location(found.id, found.name, found.properties.timezone, found.properties.default_currency)]

    def pages(self, window: Window, time_field: TimeField) -> Iterator[Page]:
        """Yield the window's orders, oldest first by `time_field`."""
        field = "createdTime" if time_field == "created" else "modifiedTime"

        def ask(start: datetime, offset: int) -> list[Order]:
            asked = [
                ("filter", f"{field}>={_milliseconds(start)}"),
                ("filter", f"{field}<{_milliseconds(window.end)}"),
                ("orderBy", f"{field} ASC"),
                _WHOLE,
            ]
            return [read_order(raw, self._merchant) for raw in self._elements("orders", asked, offset)]

        def instant(order: Order) -> datetime | None:
            header = order.header
            return None if header is None else header.created_at if time_field == "created" else header.updated_at

        what = f"{self._path}/orders"
        found = by_instant(ask, window.start, instant, lambda one: one.raw, connection=self._connection, what=what)
        yield from (Page(orders, last=False) for orders in found)
        yield Page([], last=True)

    def orders(self, order_ids: Sequence[str]) -> list[Order]:
        """Return the orders of these ids as they are now: Bunch gives them one by one."""
        return [order for order_id in dict.fromkeys(order_ids) for order in self._order(order_id)]

    def read(self, stream: str, window: Window) -> Iterator[list[Record]]:
        """Yield the catalog: the store and its goods."""
        yield [Record("store", "", self._store())]
        goods = by_offset(
            lambda offset: self._elements("items", [("orderBy", "id ASC")], offset),
            connection=self._connection,
            what=f"{self._path}/items",
        )
        yield from ([Record("item", "", raw) for raw in page] for page in goods)

    def verify_access(self) -> str:
        """Prove that the token may read orders: whoever may not is refused; return the merchant's id."""
        self._elements("orders", [], 0, most=1)
        return self._merchant

    def _elements(self, what: str, asked: list[tuple[str, str]], offset: int, most: int = _MOST) -> list[msgspec.Raw]:
        params = [*asked, ("offset", str(offset)), ("limit", str(most))]
        path = f"{self._path}/{what}"
        return self._api.request("GET", path, params=params, idempotent=True, decode=_decode_page).value.elements

    def _order(self, order_id: str) -> Iterator[Order]:
        path = f"{self._path}/orders/{order_id}"
        try:
            raw = self._api.request("GET", path, params=[_WHOLE], idempotent=True, decode=_decode_raw).value
        except RefusedError as refused:
            if refused.status != 404:
                raise
            return
        yield read_order(raw.copy(), self._merchant)

    def _store(self) -> msgspec.Raw:
        params = [("expand", "address,properties")]
        return self._api.request("GET", self._path, params=params, idempotent=True, decode=_decode_raw).value.copy()


def _milliseconds(instant: datetime) -> int:
    """Return an instant as Bunch counts, rounded up: whoever asks since then wants nothing that was before."""
    return -int(-instant.timestamp() * 1000 // 1)
