"""`POST /v2/labor/timecards/search` over who worked when in the world.

Facts: SearchTimecards and Timecard of Square's OpenAPI document 2025-08-20. Times carry the offset of the store and are cut
to whole minutes; at most 200 a page; deleted timecards are in no list.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from flux_sandbox.ids import code
from flux_sandbox.square.cursors import Cursors, fingerprint
from flux_sandbox.square.orders import stamp
from flux_sandbox.square.params import FIRST, LAST, a_body, a_range, an_object, forbidden, limit, one_of, strings

if TYPE_CHECKING:
    from flux_sandbox.model import Merchant, Shift
    from flux_sandbox.world import World

Json = dict[str, Any]

_PAGE = 200
_MINUTE = 60_000
_FIELDS = ("START_AT", "UPDATED_AT")


class Staff:
    """The timecards of Square's merchants."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._cursors = Cursors(world)

    def search(self, merchant: Merchant, body: Any) -> Json:
        """Answer `POST /v2/labor/timecards/search`."""
        body = a_body(body, "query", "limit", "cursor")
        query = an_object(body.get("query"), "query", frozenset({"filter", "sort"}))
        wanted = an_object(query.get("filter"), "query.filter", frozenset({"location_ids", "start"}))
        own = [location.id for location in merchant.locations]
        places = strings(wanted.get("location_ids"), "query.filter.location_ids", 1000) or tuple(own)
        if not set(own).issuperset(places):
            raise forbidden()
        first, last = a_range(wanted.get("start"), "query.filter.start")
        sort = an_object(query.get("sort"), "query.sort", frozenset({"field", "order"}))
        by_change = one_of(sort.get("field"), "query.sort.field", _FIELDS) == "UPDATED_AT"
        descending = one_of(sort.get("order"), "query.sort.order", ("DESC", "ASC")) == "DESC"
        found: list[tuple[int, str, Shift]] = []
        for shift in self._world.shifts_between(places, "start", FIRST, LAST):
            start = _minute(shift.start)
            if not shift.deleted and first <= start and (last is None or start <= last):
                found.append((shift.updated if by_change else start, shift.id, shift))
        size = limit(body.get("limit"), _PAGE, _PAGE)
        page, more = self._cursors.page(found, fingerprint(query), body.get("cursor"), size, descending=descending)
        return {**({"timecards": [timecard(shift) for shift in page]} if page else {}), **more}


def _minute(ms: int) -> int:
    return ms // _MINUTE * _MINUTE


def timecard(shift: Shift) -> Json:
    """Return the Timecard object of a period worked."""
    zone = ZoneInfo(shift.location.timezone)
    currency = shift.location.currency
    employee = shift.employee
    wage = {
        "title": employee.job,
        "hourly_rate": {"amount": employee.wage, "currency": currency},
        "job_id": employee.job_id,
        "tip_eligible": employee.job == "Server",
    }
    result: Json = {
        "id": shift.id,
        "location_id": shift.location.id,
        "timezone": shift.location.timezone,
        "start_at": _local(shift.start, zone),
        "wage": wage,
        "status": "OPEN" if shift.end is None else "CLOSED",
        "version": 1 if shift.end is None else 2,
        "created_at": _seconds(shift.start),
        "updated_at": _seconds(shift.updated),
        "team_member_id": employee.id,
        "declared_cash_tip_money": {"amount": shift.tips, "currency": currency},
    }
    if shift.end is not None:
        result["end_at"] = _local(shift.end, zone)
        result["breaks"] = [_break(shift, zone, paid=True)]
        if shift.breaks:
            result["breaks"].append(_break(shift, zone, paid=False))
    return result


def _break(shift: Shift, zone: ZoneInfo, *, paid: bool) -> Json:
    """Return a break: the one that is paid, early on, is ten minutes long."""
    minutes = 10 if paid else shift.breaks
    begin = shift.start + (60 if paid else 120) * _MINUTE
    return {
        "id": code(shift.id, "break", paid, length=13),
        "start_at": _local(begin, zone),
        "end_at": _local(begin + minutes * _MINUTE, zone),
        "break_type_id": code(shift.location.merchant_id, "break", paid, length=13),
        "name": "Tea Break" if paid else "Lunch Break",
        "expected_duration": f"PT{minutes}M",
        "is_paid": paid,
    }


def _local(ms: int, zone: ZoneInfo) -> str:
    return datetime.fromtimestamp(_minute(ms) // 1000, zone).isoformat()


def _seconds(ms: int) -> str:
    return f"{stamp(ms)[:19]}Z"
