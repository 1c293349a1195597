"""What Square shows of the people who buy: cards, recipients, addresses. All of it is there to be removed by its readers."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flux_sandbox.model import Customer, Sale

Json = dict[str, Any]

_BRANDS = ("VISA", "MASTERCARD", "AMERICAN_EXPRESS", "DISCOVER")


def tender_card(sale: Sale, payment_id: str) -> Json:
    """Return the card of an order's tender: its brand and last digits."""
    brand = _BRANDS[ord(payment_id[0]) % len(_BRANDS)] if sale.location.currency != "JPY" else "JCB"
    last = sale.customer.card_last4 if sale.customer else f"{sum(map(ord, payment_id)) * 37 % 10000:04d}"
    return {"card_brand": brand, "last_4": last}


def payment_card(sale: Sale, payment_id: str) -> Json:
    """Return the card of a payment, which says more."""
    customer = sale.customer
    card = tender_card(sale, payment_id)
    print_ = zlib.crc32(f"{customer.card_first6 if customer else ''}{card['last_4']}".encode())
    card |= {
        "exp_month": print_ % 12 + 1,
        "exp_year": 2027 + print_ % 5,
        "fingerprint": f"sq-1-{print_:08x}{zlib.crc32(payment_id.encode()) if not customer else 0:08x}",
        "card_type": "CREDIT",
        "prepaid_type": "NOT_PREPAID",
    }
    if customer:
        card |= {
            "bin": customer.card_first6,
            "cardholder_name": f"{customer.family_name.upper()}/{customer.given_name.upper()}",
        }
    return card


def address(customer: Customer) -> Json:
    """Return where somebody lives."""
    found = {
        "address_line_1": customer.street,
        "locality": customer.city,
        "administrative_district_level_1": customer.region,
        "postal_code": customer.postal_code,
        "country": customer.country,
        "first_name": customer.given_name,
        "last_name": customer.family_name,
    }
    return {name: text for name, text in found.items() if text}


def recipient(customer: Customer) -> Json:
    """Return who collects an order."""
    return {
        "customer_id": customer.id,
        "display_name": f"{customer.given_name} {customer.family_name}",
        "email_address": customer.email,
        "phone_number": customer.phone,
        "address": address(customer),
    }
