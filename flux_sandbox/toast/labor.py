"""The labor API: time entries, jobs, and employees with everything about them that a careless client would keep.

Facts: devguide, "Getting time entries for employees", and the labor API's reference: a time entry's business date is that
of its `inDate`, as text; asked by business date, deleted ("archived") ones are left out, by time of change never.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from flux_sandbox.ids import guid
from flux_sandbox.toast.errors import invalid
from flux_sandbox.toast.ids import guid_of
from flux_sandbox.toast.order_context import configured, reference
from flux_sandbox.toast.search import DAY, business_date, span
from flux_sandbox.toast.values import (
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
_CHOICES = "businessDate, startDate and endDate, modifiedStartDate and modifiedEndDate, or timeEntryIds is required"


def time_entries(merchant: Merchant, location: Location, query: Mapping[str, str], ids: Sequence[str]) -> list[Json]:
    """Answer `GET /labor/v1/timeEntries`.

    Raises:
        ApiError: 400: not exactly one of the ways to ask, or more than 30 days.

    """
    shifts = [shift for shift in merchant.shifts if shift.location is location]
    asked = [
        bool(ids),
        "businessDate" in query,
        "startDate" in query or "endDate" in query,
        "modifiedStartDate" in query or "modifiedEndDate" in query,
    ]
    if asked.count(True) != 1:
        raise invalid(_CHOICES)
    if ids:
        found = [shift for shift in shifts if guid_of("shift", shift.id) in ids]
    elif "businessDate" in query:
        start, end = window_ms(business_date(query, "businessDate"), location.timezone, merchant.cutoff_hour)
        found = [shift for shift in shifts if start <= shift.start < end and not shift.deleted]
    elif asked[2]:
        start, end = span(query, most=MOST_DAYS * DAY)
        archived = query.get("includeArchived") == "true"
        found = [shift for shift in shifts if start <= shift.start < end and (archived or not shift.deleted)]
    else:
        start, end = span(query, "modifiedStartDate", "modifiedEndDate", MOST_DAYS * DAY)
        found = [shift for shift in shifts if start <= shift.updated < end]
    missed = query.get("includeMissedBreaks") == "true"
    return [time_entry(merchant, shift, missed=missed) for shift in found]


def time_entry(merchant: Merchant, shift: Shift, *, missed: bool) -> Json:
    """Return a TimeEntry."""
    guid_ = guid_of("shift", shift.id)
    regular, overtime = _hours(shift)
    return {
        "guid": guid_,
        "entityType": None,
        "externalId": None,
        "createdDate": stamp(shift.start + 500),
        "modifiedDate": stamp(shift.updated),
        "deletedDate": stamp(shift.updated) if shift.deleted else None,
        "deleted": shift.deleted,
        "jobReference": reference("RestaurantJob", guid_of("job", shift.employee.job_id)),
        "employeeReference": reference("RestaurantUser", guid_of("employee", shift.employee.id)),
        "shiftReference": None,
        "inDate": stamp(shift.start),
        "outDate": stamp(shift.end) if shift.end is not None else None,
        "autoClockedOut": False,
        "businessDate": str(business_day(shift.start, shift.location.timezone, merchant.cutoff_hour)),
        "regularHours": regular,
        "overtimeHours": overtime,
        "hourlyWage": dollars(shift.employee.wage),
        "breaks": _breaks(merchant, shift, guid_, missed=missed),
        "declaredCashTips": dollars(shift.tips),
        "nonCashTips": dollars(0),
        "nonCashTipsRoundingLoss": None,
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


def _breaks(merchant: Merchant, shift: Shift, guid_: str, *, missed: bool) -> list[Json]:
    kind = {"guid": configured(merchant, "break type", "Unpaid break"), "entityType": "BreakType"}
    found = []
    if shift.breaks and shift.end is not None:
        begun = shift.start + (shift.end - shift.start) // 2
        found.append(_break(guid(guid_, "break"), kind, begun, begun + shift.breaks * _MINUTE, missed=False))
    if missed and shift.end is not None and not shift.breaks:
        found.append(_break(guid(guid_, "missed"), kind, shift.start + _HOUR, None, missed=True))
    return found


def _break(guid_: str, kind: Json, begun: int, ended: int | None, *, missed: bool) -> Json:
    return {
        "guid": guid_,
        "breakType": kind,
        "paid": False,
        "inDate": stamp(begun),
        "outDate": stamp(ended) if ended is not None else None,
        "missed": missed,
        "waived": False,
        "auditResponse": None,
    }


def jobs(merchant: Merchant) -> list[Json]:
    """Answer `GET /labor/v1/jobs`."""
    found: dict[str, Employee] = {}
    for employee in merchant.employees:
        found.setdefault(employee.job_id, employee)
    return [
        {
            "guid": guid_of("job", employee.job_id),
            "entityType": "RestaurantJob",
            "externalId": None,
            "createdDate": stamp(_HIRED),
            "modifiedDate": stamp(_HIRED),
            "deleted": False,
            "deletedDate": NEVER,
            "title": employee.job,
            "code": "",
            "tipped": employee.job == "Server",
            "defaultWage": dollars(employee.wage),
            "wageFrequency": "HOURLY",
            "excludeFromReporting": False,
        }
        for employee in found.values()
    ]


def employees(merchant: Merchant) -> list[Json]:
    """Answer `GET /labor/v1/employees`: names, addresses and numbers of people are in it."""
    return [
        {
            "guid": guid_of("employee", employee.id),
            "entityType": "RestaurantUser",
            "externalId": None,
            "createdDate": stamp(_HIRED),
            "modifiedDate": stamp(_HIRED),
            "deleted": False,
            "deletedDate": NEVER,
            "disabled": False,
            "firstName": employee.given_name,
            "lastName": employee.family_name,
            "chosenName": employee.given_name,
            "email": employee.email,
            "phoneNumber": employee.phone,
            "phoneNumberCountryCode": "1",
            "externalEmployeeId": "",
            "jobReferences": [reference("RestaurantJob", guid_of("job", employee.job_id))],
            "wageOverrides": [],
        }
        for employee in merchant.employees
    ]
