"""The Location object that Square would show of a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flux_sandbox.model import Location, Merchant


def location_object(merchant: Merchant, location: Location) -> dict[str, Any]:
    """Return a merchant's store as `GET /v2/locations` lists it."""
    address = {
        "address_line_1": "1 Sandbox Street",
        "locality": location.city,
        "administrative_district_level_1": location.region,
        "postal_code": location.postal_code,
        "country": location.country,
    }
    return {
        "id": location.id,
        "name": location.name,
        "address": {key: value for key, value in address.items() if value},
        "timezone": location.reported_timezone,
        "capabilities": ["CREDIT_CARD_PROCESSING", "AUTOMATIC_TRANSFERS"],
        "status": "ACTIVE" if location.active else "INACTIVE",
        "created_at": location.created,
        "merchant_id": merchant.id,
        "country": location.country,
        "language_code": merchant.language,
        "currency": location.currency,
        "business_name": merchant.name,
        "type": "PHYSICAL",
        "mcc": "5814",
    }
