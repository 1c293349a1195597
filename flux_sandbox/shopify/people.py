"""Customers and their addresses as Shopify's Admin API has them: everything that must never reach the lake."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flux_sandbox.shopify.ids import Json, gid, legacy
from flux_sandbox.shopify.values import Nodes

if TYPE_CHECKING:
    from flux_sandbox.model import Customer, Merchant

_SINCE = "2024-01-15T09:00:00Z"


def address(person: Customer) -> Json:
    """Return a MailingAddress."""
    name = f"{person.given_name} {person.family_name}"
    number = legacy("MailingAddress", person.id)
    return {
        "id": gid("MailingAddress", number),
        "address1": person.street,
        "address2": None,
        "city": person.city,
        "company": None,
        "coordinatesValidated": False,
        "country": person.country,
        "countryCodeV2": person.country,
        "firstName": person.given_name,
        "formatted": [person.street, f"{person.city} {person.region} {person.postal_code}".strip(), person.country],
        "formattedArea": f"{person.city} {person.region}, {person.country}",
        "lastName": person.family_name,
        "latitude": None,
        "longitude": None,
        "name": name,
        "phone": person.phone,
        "province": person.region or None,
        "provinceCode": person.region or None,
        "timeZone": None,
        "zip": person.postal_code,
    }


def customer(person: Customer, merchant: Merchant) -> Json:
    """Return a Customer."""
    where = address(person)
    number = legacy("Customer", person.id)
    return {
        "__typename": "Customer",
        "id": gid("Customer", number),
        "legacyResourceId": str(number),
        "addresses": [where],
        "addressesV2": Nodes([where]),
        "createdAt": _SINCE,
        "defaultAddress": where,
        "defaultEmailAddress": {"emailAddress": person.email},
        "defaultPhoneNumber": {"phoneNumber": person.phone},
        "displayName": f"{person.given_name} {person.family_name}",
        "email": person.email,
        "firstName": person.given_name,
        "lastName": person.family_name,
        "locale": merchant.language,
        "note": None,
        "phone": person.phone,
        "state": "DISABLED",
        "tags": [],
        "taxExempt": False,
        "updatedAt": _SINCE,
        "verifiedEmail": True,
    }
