"""Square's Reporting API as the sandbox plays it: `GET /reporting/v1/meta` and `POST /reporting/v1/load`.

Facts: developer.squareup.com/docs/reporting-api (core-cubes, best-practices, error-handling). While a query is computed the
answer is 200 with `{"error": "Continue wait"}`; `order` is refused; amounts are decimal units, as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from flux_pipelines.domain.money import from_minor
from flux_sandbox.reported import hour, order_id, reported
from flux_sandbox.square.errors import ApiError, invalid

if TYPE_CHECKING:
    from flux_sandbox.model import Merchant
    from flux_sandbox.truth import DayTruth
    from flux_sandbox.world import World

Json = dict[str, Any]

_CUBE = "Orders"
#: Each measure, and what of the truth it is.
_MEASURES = {
    "net_sales": "net",
    "sales_tax_amount": "tax",
    "tips_amount": "tips",
    "discounts_amount": "discount",
    "itemized_returns": "returns",
}
_DIMENSIONS = ("location_id", "order_id", "sale_timestamp", "local_date")
_SEGMENTS = ("closed_checks", "open_checks")
_NAMES = {
    "measures": (*_MEASURES, "count"),
    "dimensions": _DIMENSIONS,
    "segments": _SEGMENTS,
}
_KNOWN = frozenset({"measures", "dimensions", "segments", "timeDimensions", "filters", "timezone", "limit"})
_DEFAULT_ROWS = 10_000


def meta() -> Json:
    """Return the schema: one cube."""
    members = {kind: [{"name": f"{_CUBE}.{name}"} for name in names] for kind, names in _NAMES.items()}
    return {"cubes": [{"name": _CUBE, "title": _CUBE, "type": "cube", **members}]}


class Reports:
    """Answers queries over what really happened."""

    def __init__(self, world: World) -> None:
        self._world = world

    def check(self) -> None:
        """Refuse where there are no reports, or nobody may read them."""
        if self._world.reporting.absent:
            raise ApiError(404, "NOT_FOUND", "Resource not found.")
        if self._world.reporting.denied:
            raise ApiError(403, "INSUFFICIENT_SCOPES", "The merchant has not granted REPORTING_READ.")

    def meta(self) -> Json:
        """Answer `GET /reporting/v1/meta`."""
        self.check()
        return meta()

    def load(self, merchant: Merchant, body: Any) -> Json:
        """Answer `POST /reporting/v1/load`."""
        self.check()
        query = body.get("query") if isinstance(body, dict) else None
        if not isinstance(query, dict) or set(query) - _KNOWN:
            raise invalid("BAD_REQUEST", "Invalid request")
        asked = {kind: _members(query, kind, names) for kind, names in _NAMES.items()}
        if "closed_checks" not in asked["segments"]:
            raise invalid("BAD_REQUEST", "this sandbox reports fully paid orders only: ask for closed_checks")
        if set(asked["dimensions"]) - {"location_id", "order_id"}:
            raise invalid("BAD_REQUEST", "this sandbox groups by location_id and order_id only")
        if self._world.reporting.waiting(msgspec.json.encode([merchant.id, query]).decode()):
            return {"error": "Continue wait"}
        low, high = _span(query)
        own = [location.id for location in merchant.locations]
        wanted = _places(query, own)
        by_hour, by_order = _is_by_hour(query), "order_id" in asked["dimensions"]
        if by_hour and by_order:
            raise invalid("BAD_REQUEST", "this sandbox reports orders or hours")
        apart = hour if by_hour else order_id if by_order else None
        found = reported(self._world, merchant, wanted, low, high, apart=apart)
        rows = [_row(place, part, figures, asked, by_hour=by_hour) for (place, part), figures in sorted(found.items())]
        return {"query": query, "data": rows[: query.get("limit", _DEFAULT_ROWS)]}


def _members(query: Mapping[str, Any], kind: str, known: tuple[str, ...]) -> list[str]:
    found = []
    for name in query.get(kind, []):
        own = str(name).removeprefix(f"{_CUBE}.")
        if own == name or own not in known:
            raise invalid("BAD_REQUEST", f"'{name}' not found for path '{name}'")
        found.append(own)
    return found


def _span(query: Mapping[str, Any]) -> tuple[int, int]:
    """Return the interval of instants that is asked for, both ends included."""
    try:
        (asked,) = query["timeDimensions"]
        first, last = asked["dateRange"]
        if asked["dimension"] != f"{_CUBE}.sale_timestamp" or query.get("timezone") != "UTC":
            raise ValueError
        return _ms(first), _ms(last)
    except (KeyError, TypeError, ValueError):
        raise invalid("BAD_REQUEST", "this sandbox takes one range of sale_timestamp, in UTC") from None


def _is_by_hour(query: Mapping[str, Any]) -> bool:
    """Tell whether hours are told apart; days and weeks are, in this sandbox, not."""
    granularity = query["timeDimensions"][0].get("granularity")
    if granularity not in (None, "hour"):
        raise invalid("BAD_REQUEST", "this sandbox knows the granularity `hour` only")
    return granularity is not None


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def _places(query: Mapping[str, Any], own: list[str]) -> list[str]:
    wanted = own
    for one in query.get("filters", []):
        if one.get("member") != f"{_CUBE}.location_id" or one.get("operator") != "equals":
            raise invalid("BAD_REQUEST", "this sandbox filters by location_id only")
        wanted = [id_ for id_ in wanted if id_ in one.get("values", [])]
    return wanted


def _row(place: str, part: str, figures: DayTruth, asked: Mapping[str, list[str]], *, by_hour: bool) -> Json:
    row: Json = {}
    for name in asked["dimensions"]:
        row[f"{_CUBE}.{name}"] = place if name == "location_id" else part
    if by_hour:  # a time dimension is told with its granularity, and without
        row |= {f"{_CUBE}.sale_timestamp.hour": part, f"{_CUBE}.sale_timestamp": part}
    for name in asked["measures"]:
        if name == "count":
            row[f"{_CUBE}.count"] = str(figures.orders)
        else:
            row[f"{_CUBE}.{name}"] = str(from_minor(getattr(figures, _MEASURES[name]), figures.currency))
    return row
