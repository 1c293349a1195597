"""Toast's analytics API as the sandbox plays it: sales by restaurant and business date, and checks of a day.

Facts: doc.toasttab.com/doc/devguide, "Analytics API". A POST answers the GUID of the report, a GET the report: 202 while it is
made, 409 when it must be asked for anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from flux_sandbox.ids import guid
from flux_sandbox.reported import order_id, reported
from flux_sandbox.toast.errors import ApiError, forbidden, invalid, missing
from flux_sandbox.toast.ids import guid_of, restaurant_guid
from flux_sandbox.toast.values import date_of, dollars, window_ms

if TYPE_CHECKING:
    from flux_sandbox.model import Location, Merchant
    from flux_sandbox.truth import DayTruth
    from flux_sandbox.world import World

Json = dict[str, Any]

_LONGEST = {"day": 1, "week": 7, "month": 31}


class Reports:
    """Makes reports of what really happened, on request."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._asked: dict[str, tuple[str, Callable[[], list[Json]]]] = {}

    def check(self) -> None:
        """Refuse where there are no reports, or nobody may read them."""
        if self._world.reporting.absent:
            raise missing("Report")
        if self._world.reporting.denied:
            raise forbidden("Standard API access is required")

    def metrics(self, merchant: Merchant, span: str, body: Any) -> Json:
        """Answer `POST /era/v1/metrics/{day|week|month}`."""
        self.check()
        if span not in _LONGEST:
            raise missing(f"Time range {span}")
        first = _day(body, "startBusinessDate")
        last = _day(body, "endBusinessDate") if span != "day" or "endBusinessDate" in body else first
        if not 0 <= (last - first).days < _LONGEST[span]:
            raise invalid(f"The dates do not fit the time range {span}")
        places = _places(merchant, body)
        days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
        return self._ask(
            merchant, f"metrics|{first}|{last}|{places}", lambda: list(self._sales(merchant, places, days))
        )

    def checks(self, merchant: Merchant, body: Any) -> Json:
        """Answer `POST /era/v1/check/day`."""
        self.check()
        day = _day(body, "startBusinessDate")
        places = _places(merchant, body)
        return self._ask(merchant, f"check|{day}|{places}", lambda: list(self._orders(merchant, places, day)))

    def report(self, name: str) -> list[Json] | None:
        """Answer the GET of a report; None while it is made."""
        self.check()
        if name not in self._asked:
            raise missing(f"Report {name}")
        question, made = self._asked[name]
        if self._world.reporting.conflicting(question):
            raise ApiError(409, 10409, "The report request has expired. Create a new one.")
        return None if self._world.reporting.waiting(question) else made()

    def _ask(self, merchant: Merchant, question: str, made: Callable[[], list[Json]]) -> Json:
        name = guid("toast", "report", merchant.id, question, len(self._asked))
        self._asked[name] = (f"{merchant.id}|{question}", made)
        return {"reportRequestGuid": name}

    def _day(self, merchant: Merchant, place: Location, day: date, *, by_order: bool) -> dict[str, DayTruth]:
        low, high = window_ms(day, place.timezone, merchant.cutoff_hour)
        found = reported(self._world, merchant, [place.id], low, high - 1, apart=order_id if by_order else None)
        return {order: figures for (_, order), figures in found.items()}

    def _sales(self, merchant: Merchant, places: list[Location], days: list[date]) -> Iterator[Json]:
        for place in places:
            for day in days:
                for figures in self._day(merchant, place, day, by_order=False).values():
                    yield {
                        "restaurantGuid": restaurant_guid(place),
                        "businessDate": f"{day:%Y%m%d}",
                        "ordersCount": figures.orders,
                        "netSalesAmount": dollars(figures.net, whole=True),
                        "grossSalesAmount": dollars(figures.net + figures.discount, whole=True),
                        "discountAmount": dollars(figures.discount, whole=True),
                        "refundAmount": dollars(-figures.returns, whole=True),
                    }

    def _orders(self, merchant: Merchant, places: list[Location], day: date) -> Iterator[Json]:
        for place in places:
            for order, figures in self._day(merchant, place, day, by_order=True).items():
                if figures.orders:  # what came back of an order of another date is not among the date's checks
                    yield {
                        "restaurantGuid": restaurant_guid(place),
                        "orderGuid": guid_of("order", order),
                        "checkGuid": guid("toast", "reported check", order),
                        "orderOpenedDate": f"{day:%Y%m%d}",
                        "checkTotalAmount": dollars(figures.net - figures.returns + figures.tax, whole=True),
                        "checkDiscountAmount": dollars(figures.discount, whole=True),
                        "checkTaxAmount": dollars(figures.tax, whole=True),
                        "checkTipAmount": dollars(figures.tips, whole=True),
                        "checkRefundAmount": dollars(-figures.returns, whole=True),
                    }


def _day(body: Any, name: str) -> date:
    found = date_of(str(body.get(name, ""))) if isinstance(body, dict) else None
    if found is None:
        raise invalid(f"Invalid {name}: expected yyyyMMdd")
    return found


def _places(merchant: Merchant, body: Any) -> list[Location]:
    wanted = body.get("restaurantIds") or [restaurant_guid(one) for one in merchant.locations]
    return [one for one in merchant.locations if restaurant_guid(one) in wanted]
