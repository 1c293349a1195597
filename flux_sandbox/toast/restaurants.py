"""Restaurants as Toast describes them, and as the partners API lists those that a client is connected to."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from flux_sandbox.toast.ids import group_guid, restaurant_guid
from flux_sandbox.toast.values import FIXED, stamp_z

if TYPE_CHECKING:
    from flux_sandbox.model import Location, Merchant

Json = dict[str, Any]


def restaurant(merchant: Merchant, location: Location) -> Json:
    """Return a restaurant's information. The time zone is the one that is reported, right or wrong."""
    opens, closes = f"{location.opens:02d}:00:00.000", f"{int(location.opens + location.hours) % 24:02d}:00:00.000"
    overnight = location.opens + location.hours > 24
    service = {"name": "All day", "hours": {"startTime": opens, "endTime": closes}, "overnight": overnight}
    schedule = {"scheduleName": "Every day", "services": [service], "openTime": opens, "closeTime": closes}
    days = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
    return {
        **FIXED["restaurant"],
        "guid": restaurant_guid(location),
        "general": {
            "archived": not location.active,
            "name": merchant.name,
            "locationName": location.name,
            "locationCode": "",
            "description": "",
            "timeZone": location.reported_timezone,
            "closeoutHour": merchant.cutoff_hour,
            "managementGroupGuid": group_guid(merchant),
            "currencyCode": location.currency,
            "firstBusinessDate": int(location.created[:10].replace("-", "")),
        },
        "urls": {
            "website": f"https://{merchant.handle}.example",
            "facebook": "",
            "twitter": "",
            "orderOnline": "",
            "purchaseGiftCard": "",
            "checkGiftCard": "",
        },
        "location": {
            "address1": "1 Main Street",
            "address2": "",
            "city": location.city,
            "stateCode": location.region,
            "administrativeArea": location.region,
            "zipCode": location.postal_code,
            "country": location.country,
            "phone": "1112223333",
            "latitude": None,
            "longitude": None,
        },
        "schedules": {
            "daySchedules": {"1495000000000023": schedule},
            "weekSchedule": dict.fromkeys(days, "1495000000000023"),
        },
    }


def created_ms(location: Location) -> int:
    """Return when a restaurant was connected, UTC milliseconds."""
    return int(datetime.fromisoformat(location.created).timestamp()) * 1000


def partner_restaurant(merchant: Merchant, location: Location) -> Json:
    """Return a restaurant as the partners API lists it."""
    at = created_ms(location)
    return {
        "restaurantGuid": restaurant_guid(location),
        "managementGroupGuid": group_guid(merchant),
        "restaurantName": merchant.name,
        "locationName": location.name,
        "createdByEmailAddress": f"owner@{merchant.handle}.example",
        "externalGroupRef": None,
        "externalRestaurantRef": None,
        "modifiedDate": at,
        "createdDate": at,
        "isoModifiedDate": stamp_z(at),
        "isoCreatedDate": stamp_z(at),
    }
