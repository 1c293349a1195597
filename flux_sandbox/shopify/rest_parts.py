"""Parts of Shopify's REST shapes: ids, amounts, taxes and addresses."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec

from flux_sandbox.shopify.ids import Json, exponent

if TYPE_CHECKING:
    from collections.abc import Sequence


def number_of(node: Json | None) -> int | None:
    """Return the number in a node's id."""
    return int(node["id"].partition("?")[0].rsplit("/", 1)[-1]) if node else None


def text_of(money: Json) -> str:
    """Return a MoneyV2's amount with every decimal of its currency."""
    # What no reader can use is passed on as it is.
    places = exponent(money["currencyCode"])
    try:
        return str(Decimal(money["amount"]).quantize(Decimal(1).scaleb(-places)))
    except ArithmeticError:
        return str(money["amount"])


def amount_of(bag: Json | None) -> str | None:
    """Return a MoneyBag's amount in the shop's currency."""
    return text_of(bag["shopMoney"]) if bag else None


def set_of(bag: Json | None) -> Json | None:
    """Return a MoneyBag as the payloads write it."""
    if bag is None:
        return None
    return {
        "shop_money": {"amount": text_of(bag["shopMoney"]), "currency_code": bag["shopMoney"]["currencyCode"]},
        "presentment_money": {
            "amount": text_of(bag["presentmentMoney"]),
            "currency_code": bag["presentmentMoney"]["currencyCode"],
        },
    }


def bare_of(bag: Json) -> msgspec.Raw:
    """Return an amount as a JSON number, digit by digit."""
    return msgspec.Raw((amount_of(bag) or "0").encode())


def rest_tax_lines(lines: Sequence[Json]) -> list[Json]:
    """Return tax lines."""
    return [
        {
            "title": one["title"],
            "rate": one["rate"],
            "price": amount_of(one["priceSet"]),
            "price_set": set_of(one["priceSet"]),
            "channel_liable": one["channelLiable"],
        }
        for one in lines
    ]


def rest_address(found: Json | None) -> Json | None:
    """Return an address."""
    if found is None:
        return None
    return {
        "first_name": found["firstName"],
        "last_name": found["lastName"],
        "name": found["name"],
        "company": None,
        "address1": found["address1"],
        "address2": found["address2"],
        "city": found["city"],
        "province": found["province"],
        "province_code": found["provinceCode"],
        "country": found["country"],
        "country_code": found["countryCodeV2"],
        "zip": found["zip"],
        "phone": found["phone"],
        "latitude": None,
        "longitude": None,
    }
