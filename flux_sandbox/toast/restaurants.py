"""Restaurants as Toast describes them, and the partners API: which restaurants a client is connected to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flux_sandbox.ids import token
from flux_sandbox.toast.errors import invalid
from flux_sandbox.toast.ids import group_guid, restaurant_guid
from flux_sandbox.toast.values import stamp_z

if TYPE_CHECKING:
    from flux_sandbox.model import Location, Merchant

Json = dict[str, Any]

_MOST_PER_PAGE, _PER_PAGE = 200, 100


def restaurant(merchant: Merchant, location: Location) -> Json:
    """Return a restaurant's information. The time zone is the one that is reported, right or wrong."""
    opens, closes = f"{location.opens:02d}:00:00.000", f"{int(location.opens + location.hours) % 24:02d}:00:00.000"
    overnight = location.opens + location.hours > 24
    service = {"name": "All day", "hours": {"startTime": opens, "endTime": closes}, "overnight": overnight}
    schedule = {"scheduleName": "Every day", "services": [service], "openTime": opens, "closeTime": closes}
    days = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
    return {
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
        "delivery": {"enabled": True, "minimum": None, "area": ""},
        "onlineOrdering": {
            "enabled": True,
            "scheduling": False,
            "specialRequests": True,
            "specialRequestsMessage": "",
            "paymentOptions": {
                "delivery": {"cash": False, "ccSameDay": True, "ccFuture": False},
                "takeout": {"cash": True, "ccSameDay": True, "ccFuture": False, "ccInStore": True},
                "ccTip": True,
            },
        },
        "prepTimes": {
            "deliveryPrepTime": 60,
            "deliveryTimeAfterOpen": 0,
            "deliveryTimeBeforeClose": 0,
            "takeoutPrepTime": 30,
            "takeoutTimeAfterOpen": 0,
            "takeoutTimeBeforeClose": 0,
            "takeoutThrottlingTime": 0,
            "deliveryThrottlingTime": 0,
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


def connected_page(merchant: Merchant, locations: Sequence[Location], query: Mapping[str, str]) -> Json:
    """Answer `GET /partners/v1/connectedRestaurants`: pages by token in the body.

    Raises:
        ApiError: 400: a page size out of bounds, or a token that none of its pages gave.

    """
    size = query.get("pageSize", str(_PER_PAGE))
    if not size.isdigit() or not 1 <= int(size) <= _MOST_PER_PAGE:
        raise invalid(f"pageSize must be between 1 and {_MOST_PER_PAGE}")
    count, per_page = len(locations), int(size)
    tokens = [token("toast page", merchant.id, per_page, n) for n in range(-(-count // per_page) or 1)]
    asked = query.get("pageToken") or tokens[0]
    if asked not in tokens:
        raise invalid("Invalid pageToken")
    at = tokens.index(asked)
    following = tokens[at + 1] if at + 1 < len(tokens) else None
    shown = locations[at * per_page : (at + 1) * per_page]
    return {
        "currentPageNum": at + 1,
        "results": [partner_restaurant(merchant, location) for location in shown],
        "totalResultCount": count,
        "pageSize": per_page,
        "currentPageToken": asked,
        "nextPageToken": following,
        "totalCount": count,
        "nextPageNum": at + 2 if following else None,
        "lastPageNum": len(tokens),
        "previousPageNum": at or None,
    }
