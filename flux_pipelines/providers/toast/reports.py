"""Toast's own sales report: the analytics API.

Facts: doc.toasttab.com/doc/devguide, "Analytics API": a report is asked for with a POST, which answers a GUID, and is had with
a GET: 202 while it is made, 409 when it must be asked for anew. `metrics/day`, `metrics/week` and `metrics/month` are by
restaurant and business date; days and weeks are limited to 10 a minute and 60 an hour, months to 10 an hour, what is had of
them to 30 a minute; `check/day` is by check, 5 a minute and 60 a day. It takes Standard API access for a management group, a
credential that integrations do not have.
"""

from __future__ import annotations

import threading
import time
from calendar import monthrange
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from flux_pipelines.domain.decoding import decode, decoder
from flux_pipelines.domain.errors import BadResponseError
from flux_pipelines.providers.base import Window
from flux_pipelines.providers.witness import NoWitnessError, ReportedOrder
from flux_pipelines.transport.errors import RefusedError

if TYPE_CHECKING:
    from flux_pipelines.transport.client import ApiClient

PERMISSION = "the scope enterprise-metrics:read, which comes with Standard API access for a management group"
#: What asking for reports and having them count against, apart from each other and from what is asked of restaurants.
_ASKING, _HAVING = ("analytics",), ("analytics/reports",)
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 15.0
_MOST_ASKED_ANEW = 3
#: A month or a week is asked for as a whole once it has been over for this long.
_SETTLED = timedelta(days=2)


class _Metrics(msgspec.Struct, rename="camel"):
    restaurant_guid: str
    business_date: str | int


class _Check(msgspec.Struct, rename="camel"):
    restaurant_guid: str
    order_guid: str
    check_total_amount: msgspec.Raw = msgspec.Raw(b"0")
    check_tax_amount: msgspec.Raw = msgspec.Raw(b"0")


_decode_list = decoder(list[msgspec.Raw])
_decode_metrics = decoder(_Metrics)
_decode_check = decoder(_Check)

_Rows = dict[date, dict[str, msgspec.Raw]]


class ToastReports:
    """The sales reports of one connection. Safe to use from threads.

    Args:
        asking: a client with the limits of asking for reports.
        having: a client with the limits of having what was asked for.
        connection: the connection's key.
        restaurants: returns the GUIDs of its restaurants.
        patience: seconds for which a report is waited for.

    """

    def __init__(
        self,
        asking: ApiClient,
        having: ApiClient,
        connection: str,
        restaurants: Callable[[], Sequence[str]],
        patience: float,
    ) -> None:
        self._asking = asking
        self._having = having
        self._connection = connection
        self._restaurants = restaurants
        self._patience = patience
        self._mutex = threading.Lock()
        self._known: dict[tuple[date, date], _Rows | Exception] = {}

    def stores(self, window: Window) -> dict[str, list[msgspec.Raw]]:
        """Return what the report says of a business date, of every restaurant."""
        span, first, last = _asked_with(window.first_date)
        with self._mutex:
            if (first, last) not in self._known:
                try:
                    self._known[first, last] = self._metrics(span, first, last)
                except Exception as error:  # noqa: BLE001 - of a span that cannot be had, each of its dates is told so
                    self._known[first, last] = error
            found = self._known[first, last]
        if isinstance(found, Exception):
            raise found
        return {store: [row] for store, row in found.get(window.first_date, {}).items()}

    def orders(self, window: Window) -> list[ReportedOrder]:
        """Return what the report says of the checks of each order of a business date, before tax."""
        day = f"{window.first_date:%Y%m%d}"
        rows = self._report("check/day", {"startBusinessDate": day, "restaurantIds": list(window.location_ids)})
        sums: dict[tuple[str, str], Decimal] = {}
        for raw in rows:
            one = _decode_check(raw)
            key = (one.restaurant_guid, one.order_guid)
            net = _amount(one.check_total_amount) - _amount(one.check_tax_amount)
            sums[key] = sums.get(key, Decimal(0)) + net
        return [ReportedOrder(place, order, net) for (place, order), net in sums.items()]

    def _metrics(self, span: str, first: date, last: date) -> _Rows:
        body = {
            "startBusinessDate": f"{first:%Y%m%d}",
            "endBusinessDate": f"{last:%Y%m%d}",
            "restaurantIds": list(self._restaurants()),
        }
        found: _Rows = {}
        for raw in self._report(f"metrics/{span}", body):
            row = _decode_metrics(raw)
            day = datetime.strptime(str(row.business_date), "%Y%m%d").date()  # noqa: DTZ007 - a date has no zone
            found.setdefault(day, {})[row.restaurant_guid] = raw
        return found

    def _report(self, kind: str, body: dict[str, Any]) -> list[msgspec.Raw]:
        began, wait, anew = time.monotonic(), _FIRST_WAIT, 0
        name = self._ask(kind, body)
        path = f"/era/v1/{kind.partition('/')[0]}/{name}"
        while True:
            try:
                answer = self._having.request(
                    "GET", path, idempotent=True, budget=_HAVING, expect="bytes", repeat_conflicts=False
                )
            except RefusedError as refused:
                if refused.status != 409:
                    raise
                anew += 1
                if anew > _MOST_ASKED_ANEW:
                    raise NoWitnessError(
                        "Toast asks again and again to ask for the report anew", passing=True
                    ) from None
                name = self._ask(kind, body)
                path = f"/era/v1/{kind.partition('/')[0]}/{name}"
                continue
            if answer.status != 202:
                return self._read(answer.content)
            if time.monotonic() - began + wait > self._patience:
                raise NoWitnessError(f"the report was made still after {self._patience:g} s", passing=True)
            self._having.pause(wait)
            wait = min(2 * wait, _LONGEST_WAIT)

    def _ask(self, kind: str, body: dict[str, Any]) -> str:
        answer = self._asking.request(
            "POST", f"/era/v1/{kind}", json=body, idempotent=True, budget=_ASKING, expect="bytes"
        )
        try:
            said = decode(answer.content)
        except msgspec.DecodeError:
            said = answer.content.decode(errors="replace").strip()
        name = said.get("reportRequestGuid") if isinstance(said, dict) else said
        if not isinstance(name, str) or not name:
            raise BadResponseError("Toast does not name the report that was asked for", connection=self._connection)
        return name

    def _read(self, content: bytes) -> list[msgspec.Raw]:
        try:
            return _decode_list(content)
        except (msgspec.DecodeError, ValueError):
            raise BadResponseError("Toast's report is not a list", connection=self._connection) from None


def _asked_with(day: date) -> tuple[str, date, date]:
    """Return the span that a date is asked for with, and its dates: the month or the week, once it is over; else itself."""
    monday = day - timedelta(days=day.weekday())
    settled = datetime.now(UTC).date() - _SETTLED
    for span, first, last in (
        ("month", day.replace(day=1), day.replace(day=monthrange(day.year, day.month)[1])),
        ("week", monday, monday + timedelta(days=6)),
    ):
        if last < settled:
            return span, first, last
    return "day", day, day


def _amount(raw: msgspec.Raw) -> Decimal:
    text = bytes(raw).decode()
    return Decimal(0) if text == "null" else Decimal(text.strip('"')).quantize(Decimal("0.01"))
