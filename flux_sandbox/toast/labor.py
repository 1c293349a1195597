"""The labor API: time entries and jobs.

Facts: devguide, "Getting time entries for employees", and the labor API's reference: a time entry's business date is that
of its `inDate`, as text; asked by business date, deleted ("archived") ones are left out, by time of change never.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from flux_sandbox.ids import guid
from flux_sandbox.toast.errors import invalid
from flux_sandbox.toast.ids import guid_of
from flux_sandbox.toast.order_context import configured, reference
from flux_sandbox.toast.search import DAY, business_date, span
from flux_sandbox.toast.values import (
    FIXED,
    NEVER,
    business_day,
    decimal_text,
    dollars,
    stamp,
    window_ms,
)

if TYPE_CHECKING:
    from flux_sandbox.model import Employee, Location, Merchant, Shift

Json = dict[str, Any]

MOST_DAYS = 30
_MINUTE, _HOUR = 60_000, 3_600_000
_HIRED = 1_700_000_000_000


def time_entries(merchant: Merchant, location: Location, query: Mapping[str, str]) -> list[Json]:
    """Answer `GET /labor/v1/timeEntries`: of a business date, or changed in an interval.

    Raises:
        ApiError: 400: not exactly one of the ways to ask, or more than 30 days.

    """
    shifts = [shift for shift in merchant.shifts if shift.location is location]
    if ("businessDate" in query) == ("modifiedStartDate" in query or "modifiedEndDate" in query):
        raise invalid("businessDate, or modifiedStartDate and modifiedEndDate, is required")
    if "businessDate" in query:
        start, end = window_ms(business_date(query, "businessDate"), location.timezone, merchant.cutoff_hour)
        found = [shift for shift in shifts if start <= shift.start < end and not shift.deleted]
    else:
        start, end = span(query, "modifiedStartDate", "modifiedEndDate", MOST_DAYS * DAY)
        found = [shift for shift in shifts if start <= shift.updated < end]
    return [_time_entry(merchant, shift) for shift in found]


def _time_entry(merchant: Merchant, shift: Shift) -> Json:
    """Return a TimeEntry."""
    guid_ = guid_of("shift", shift.id)
    regular, overtime = _hours(shift)
    return {
        **FIXED["time entry"],
        "guid": guid_,
        "createdDate": stamp(shift.start + 500),
        "modifiedDate": stamp(shift.updated),
        "deletedDate": stamp(shift.updated) if shift.deleted else None,
        "deleted": shift.deleted,
        "jobReference": reference("RestaurantJob", guid_of("job", shift.employee.job_id)),
        "employeeReference": reference("RestaurantUser", guid_of("employee", shift.employee.id)),
        "inDate": stamp(shift.start),
        "outDate": stamp(shift.end) if shift.end is not None else None,
        "businessDate": str(business_day(shift.start, shift.location.timezone, merchant.cutoff_hour)),
        "regularHours": regular,
        "overtimeHours": overtime,
        "hourlyWage": dollars(shift.employee.wage),
        "breaks": _breaks(merchant, shift, guid_),
        "declaredCashTips": dollars(shift.tips),
        "nonCashTips": dollars(0),
        "cashGratuityServiceCharges": dollars(0),
        "nonCashGratuityServiceCharges": dollars(0),
        "tipsWithheld": dollars(0),
        "nonCashSales": dollars(0),
        "cashSales": dollars(0),
    }


def _hours(shift: Shift) -> tuple[msgspec.Raw, msgspec.Raw]:
    """Return regular hours, unpaid breaks taken off, and overtime: long decimals, as hours of milliseconds are."""
    if shift.end is None:
        return msgspec.Raw(b"0.0"), msgspec.Raw(b"0.0")
    worked = shift.end - shift.start - shift.breaks * _MINUTE
    text = decimal_text(worked * 10**15 // _HOUR, 15)
    return msgspec.Raw(text.encode()), msgspec.Raw(b"0.0")


def _breaks(merchant: Merchant, shift: Shift, guid_: str) -> list[Json]:
    if not shift.breaks or shift.end is None:
        return []
    begun = shift.start + (shift.end - shift.start) // 2
    return [
        {
            **FIXED["break"],
            "guid": guid(guid_, "break"),
            "breakType": {"guid": configured(merchant, "break type", "Unpaid break"), "entityType": "BreakType"},
            "inDate": stamp(begun),
            "outDate": stamp(begun + shift.breaks * _MINUTE),
        }
    ]


def jobs(merchant: Merchant) -> list[Json]:
    """Answer `GET /labor/v1/jobs`."""
    found: dict[str, Employee] = {}
    for employee in merchant.employees:
        found.setdefault(employee.job_id, employee)
    return [
        {
            **FIXED["job"],
            "guid": guid_of("job", employee.job_id),
            "createdDate": stamp(_HIRED),
            "modifiedDate": stamp(_HIRED),
            "deletedDate": NEVER,
            "title": employee.job,
            "tipped": employee.job == "Server",
            "defaultWage": dollars(employee.wage),
        }
        for employee in found.values()
    ]
