"""Square's own sales report: the Reporting API.

Facts: developer.squareup.com/docs/reporting-api (overview, best-practices, core-cubes, metadata-discovery, error-handling).
Paths are not under `/v2`. The names of cubes and their members are discovered (`meta`), and a query is checked against them
before it is sent. While Square computes, it answers 200 with `{"error": "Continue wait"}`: that is no empty report. Square's
sandbox answers 404.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import msgspec

from flux_pipelines.domain.decoding import decode, decoder
from flux_pipelines.domain.errors import BadResponseError
from flux_pipelines.providers.base import Window
from flux_pipelines.providers.witness import NoWitnessError, ReportedOrder

if TYPE_CHECKING:
    from flux_pipelines.transport.client import ApiClient

PERMISSION = "REPORTING_READ"
_CUBE = "Orders"
_NET, _PLACE, _ORDER, _AT, _SEGMENT = "net_sales", "location_id", "order_id", "sale_timestamp", "closed_checks"
_MORE = ("sales_tax_amount", "tips_amount", "discounts_amount", "itemized_returns")
_META_KEPT = 3600.0  # seconds; Square says 1 to 24 hours
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 15.0
_MOST_ROWS = 10_000
_WAITING = "Continue wait"
_MILLISECOND = timedelta(milliseconds=1)


class _Member(msgspec.Struct):
    name: str


class _Cube(msgspec.Struct):
    name: str
    measures: list[_Member] = []
    dimensions: list[_Member] = []
    segments: list[_Member] = []


class _Meta(msgspec.Struct):
    cubes: list[_Cube]


class _Load(msgspec.Struct):
    """An answer: rows, or that it is computed still."""

    data: list[msgspec.Raw] | None = None
    error: str | None = None


_decode_meta = decoder(_Meta)
_decode_load = decoder(_Load)
_kept: dict[str, tuple[float, dict[str, str]]] = {}
_keeping = threading.Lock()


class SquareReports:
    """The sales report of one connection.

    Args:
        api: the connection's client.
        connection: its key.
        patience: seconds for which an answer that is computed still is waited for.

    """

    def __init__(self, api: ApiClient, connection: str, patience: float) -> None:
        self._api = api
        self._connection = connection
        self._patience = patience

    def stores(self, window: Window) -> dict[date, dict[str, list[msgspec.Raw]]]:
        """Return what the report says of each store of each business date.

        Several dates are asked for together by the hour, and their rows add up: a trading day that ends at three in the
        morning is no day of Square's. Where a date does not begin with an hour in UTC, each is asked for alone.
        """
        dates = window.by_date()
        by_hour = len(dates) > 1 and all((at.minute, at.second) == (0, 0) for at in (*window.starts, window.end))
        if len(dates) > 1 and not by_hour:
            return {one.first_date: self.stores(one)[one.first_date] for one in dates}
        names = self._names(_NET, _PLACE, _AT, _SEGMENT)
        measures = [names[name] for name in (_NET, *_MORE) if name in names]
        rows = self._load(self._query(window, names, measures, [names[_PLACE]], by_hour=by_hour))
        if len(rows) >= _MOST_ROWS:
            raise NoWitnessError(f"the report has more than {_MOST_ROWS:,} rows")
        found: dict[date, dict[str, list[msgspec.Raw]]] = {one.first_date: {} for one in dates}
        for raw in rows:
            row = _row(raw)
            at = _hour(row.get(f"{names[_AT]}.hour")) if by_hour else window.start
            if not window.start <= at < window.end:
                raise NoWitnessError(f"the report has an hour that was not asked for, {at:%Y-%m-%d %H:%M} UTC")
            found[window.date_of(at)].setdefault(str(row.get(names[_PLACE])), []).append(raw)
        return found

    def orders(self, window: Window) -> list[ReportedOrder]:
        """Return what the report says of each order of some stores' business date."""
        names = self._names(_NET, _PLACE, _AT, _SEGMENT, _ORDER)
        rows = self._load(self._query(window, names, [names[_NET]], [names[_PLACE], names[_ORDER]]))
        if len(rows) >= _MOST_ROWS:
            raise NoWitnessError(f"the report has more than {_MOST_ROWS:,} orders")
        found = []
        for raw in rows:
            row = _row(raw)
            try:
                net = Decimal(str(row.get(names[_NET]) or 0))
            except InvalidOperation:
                raise NoWitnessError("an amount of the report cannot be read") from None
            found.append(ReportedOrder(str(row.get(names[_PLACE])), str(row.get(names[_ORDER])), net))
        return found

    def _query(
        self,
        window: Window,
        names: dict[str, str],
        measures: Sequence[str],
        dimensions: Sequence[str],
        *,
        by_hour: bool = False,
    ) -> dict[str, Any]:
        # Both ends of a range of instants belong to it. `order` is refused.
        span = [_stamp(window.start), _stamp(window.end - _MILLISECOND)]
        hours = {"granularity": "hour"} if by_hour else {}
        return {
            "measures": measures,
            "dimensions": dimensions,
            "segments": [names[_SEGMENT]],
            "timeDimensions": [{"dimension": names[_AT], "dateRange": span, **hours}],
            "filters": [{"member": names[_PLACE], "operator": "equals", "values": window.location_ids}],
            "timezone": "UTC",
            "limit": _MOST_ROWS,
        }

    def _names(self, *needed: str) -> dict[str, str]:
        """Return the full names of the cube's members by their own."""
        with _keeping:
            kept = _kept.get(self._connection)
            if kept is None or time.monotonic() - kept[0] > _META_KEPT:
                kept = _kept[self._connection] = (time.monotonic(), self._discovered())
        if missing := [name for name in needed if name not in kept[1]]:
            raise NoWitnessError(f"Square's reports have no {' and no '.join(missing)} of {_CUBE}")
        return kept[1]

    def _discovered(self) -> dict[str, str]:
        meta = self._api.request("GET", "/reporting/v1/meta", idempotent=True, decode=_decode_meta).value
        for cube in meta.cubes:
            if cube.name == _CUBE:
                members = (*cube.measures, *cube.dimensions, *cube.segments)
                return {member.name.rpartition(".")[2]: member.name for member in members}
        return {}

    def _load(self, query: dict[str, Any]) -> list[msgspec.Raw]:
        began, wait = time.monotonic(), _FIRST_WAIT
        while True:
            answer = self._api.request(
                "POST", "/reporting/v1/load", json={"query": query}, idempotent=True, decode=_decode_load
            ).value
            if answer.error is None:
                if answer.data is None:
                    raise BadResponseError("the report has neither rows nor an error", connection=self._connection)
                return answer.data
            if answer.error != _WAITING:
                raise NoWitnessError(f"Square says: {answer.error}", passing=True)
            if time.monotonic() - began + wait > self._patience:
                raise NoWitnessError(f"the report was computed still after {self._patience:g} s", passing=True)
            self._api.pause(wait)
            wait = min(2 * wait, _LONGEST_WAIT)


def _row(raw: msgspec.Raw) -> dict[str, Any]:
    found: dict[str, Any] = decode(raw, dict[str, Any])
    return found


def _hour(text: object) -> datetime:
    """Return the instant of an hour: without an offset, as the question was in UTC."""
    try:
        return datetime.fromisoformat(str(text)).replace(tzinfo=UTC)
    except ValueError:
        raise NoWitnessError("an hour of the report cannot be read") from None


def _stamp(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{instant.microsecond // 1000:03d}"
